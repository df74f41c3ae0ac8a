//! What `backup` prints.

use std::path::Path;

use queues::{BackupReport, SpoolState};
use schemars::JsonSchema;
use serde::Serialize;

use super::UtcTime;

/// A backup that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Backup {
    pub(crate) folder: String,
    /// The copy of the queue's file; `null` if the queue is on NATS.
    pub(crate) queue: Option<BackedUpQueue>,
    /// The copy of the spool; `null` if there is none.
    pub(crate) spool: Option<BackedUpSpool>,
    /// The copy of the audit log; `null` if nobody has changed anything.
    pub(crate) audit: Option<BackedUpAudit>,
}

/// What the copy of a queue has.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackedUpQueue {
    file: String,
    events: u64,
    /// Deliveries that wait for another attempt.
    waiting: u64,
    dead_letters: u64,
    quarantined: u64,
    /// Refused webhooks that are held.
    refused: u64,
    newest_received_at: Option<UtcTime>,
}

impl BackedUpQueue {
    /// What this file has.
    pub(crate) fn new(file: &Path, report: &BackupReport) -> Self {
        Self {
            file: file.display().to_string(),
            events: report.events,
            waiting: report.waiting,
            dead_letters: report.dead_letters,
            quarantined: report.quarantined,
            refused: report.refused,
            newest_received_at: report.newest.map(UtcTime::from),
        }
    }
}

/// What the copy of a spool has.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackedUpSpool {
    file: String,
    /// Events that the queue has not acknowledged yet.
    unsent: u64,
    /// Events that it acknowledged, and that are to be read back before they go.
    unconfirmed: u64,
    /// Bodies for the quarantine.
    quarantined: u64,
}

impl BackedUpSpool {
    /// What this file has.
    pub(crate) fn new(file: &Path, state: &SpoolState) -> Self {
        Self {
            file: file.display().to_string(),
            unsent: state.unsent,
            unconfirmed: state.unconfirmed,
            quarantined: state.quarantined,
        }
    }
}

/// What the copy of an audit log has.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackedUpAudit {
    file: String,
    /// Entries of its newest file.
    entries: usize,
}

impl BackedUpAudit {
    /// What this file has.
    pub(crate) fn new(file: &Path, entries: usize) -> Self {
        Self {
            file: file.display().to_string(),
            entries,
        }
    }
}
