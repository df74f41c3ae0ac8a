//! What every process of the product says of itself, again and again: who is gone is seen by
//! what it no longer says.

use std::time::Duration;

use event_model::{Bytes, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Marks, QueueError};

/// How often a process says it.
pub const REPORTED_EVERY: Duration = Duration::from_secs(15);

/// One that has said nothing for so long is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(60);

/// What a process says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessReport {
    /// What it does: `gateway`, `dispatcher`, `serve`, `operator`, `reconciler`.
    pub kind: String,
    /// Where it runs.
    pub host: String,
    /// Its number there.
    pub pid: u32,
    /// The product's version.
    pub version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Whether it can do its work.
    pub is_ready: bool,
    /// It was told to end, and does.
    pub is_stopping: bool,
    /// It ended as it was told to: nothing is wrong.
    pub is_closed: bool,
    /// The routes of its settings.
    pub routes: Vec<String>,
    /// The disks that it writes to.
    pub disks: Vec<DiskUsage>,
    /// The certificates that it uses.
    pub certificates: Vec<CertificateEnd>,
    /// Logins at Fluent that it may not try now.
    pub logins: Vec<RestingLogin>,
    /// Genuine webhooks that it refused.
    pub refused: Vec<RefusedAccount>,
    /// Genuine webhooks of accounts that are not listed, whether named above or not.
    pub refused_count: u64,
    /// The one private address that nearly all webhooks come from, and that is no trusted proxy's.
    pub untrusted_proxy: Option<String>,
}

/// How full a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskUsage {
    /// A path on it.
    pub path: String,
    /// Bytes that are used.
    pub used: u64,
    /// Bytes that there are.
    pub total: u64,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateEnd {
    /// Its file.
    pub file: String,
    /// The first end of those in it.
    pub ends_at: Timestamp,
}

/// A login that Fluent refused twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestingLogin {
    /// The account.
    pub account: String,
    /// Its environment.
    pub environment: String,
    /// Nobody tries it before.
    pub rests_until: Timestamp,
}

/// An account whose genuine webhooks were refused. Its name is Fluent's word, not ours:
/// escaped, and cut to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedAccount {
    /// The name in the webhooks.
    pub account: String,
    /// Of which environment their key is.
    pub environment: String,
    /// Why: `unknown-account`, `unknown-retailer`, `wrong-key`.
    pub reason: String,
    /// The listed account of nearly the same name.
    pub nearest: Option<String>,
    /// How many came.
    pub count: u64,
    /// The last of them.
    pub last_at: Timestamp,
}

/// A report, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSeen {
    /// Names the process in commands: its kind and a digest of where it runs; of several that
    /// have both in common, a number, too.
    pub id: String,
    /// What it said.
    pub report: ProcessReport,
    /// When it said that, by the store's clock.
    pub seen_at: Timestamp,
}

impl ProcessSeen {
    /// Whether it ended without saying so.
    pub fn is_gone(&self, now: Timestamp) -> bool {
        let silent_for = Duration::try_from(now.duration_since(self.seen_at)).unwrap_or_default();
        !self.report.is_closed && silent_for > GONE_AFTER
    }

    /// Whether it is at work.
    pub fn is_running(&self, now: Timestamp) -> bool {
        !self.report.is_closed && !self.is_gone(now)
    }
}

/// Says how a process does. `id` is `<kind>.<token>`.
pub async fn set_process(marks: &dyn Marks, id: &str, report: &ProcessReport) -> Result<(), QueueError> {
    let value: Bytes = serde_json::to_vec(report).unwrap_or_default().into();
    marks.set(&format!("process.{id}"), value).await
}

/// What was said last under this name.
pub async fn process(marks: &dyn Marks, id: &str) -> Result<Option<ProcessReport>, QueueError> {
    let found = marks.get(&format!("process.{id}")).await?;
    // What another version wrote, and can't be read, is nobody's fault.
    Ok(found.and_then(|value| serde_json::from_slice(&value).ok()))
}

/// Every process that has said something, the newest version of it.
pub async fn processes(marks: &dyn Marks) -> Result<Vec<ProcessSeen>, QueueError> {
    let all = marks.entries("process").await?;
    // What another version wrote, and can't be read, is nobody's fault.
    let read = |entry: crate::MarkEntry| {
        let report = serde_json::from_slice(&entry.value).ok()?;
        let id = entry.name.strip_prefix("process.").unwrap_or(&entry.name).to_owned();
        Some(ProcessSeen { id, report, seen_at: entry.set_at })
    };
    Ok(all.into_iter().filter_map(read).collect())
}

/// Forgets a process that will not come back.
pub async fn forget_process(marks: &dyn Marks, id: &str) -> Result<(), QueueError> {
    marks.unset(&format!("process.{id}")).await
}
