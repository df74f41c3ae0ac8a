//! Reports that every process writes about itself again and again. A process that stops writing
//! is taken for gone.

use std::collections::BTreeMap;
use std::time::Duration;

use event_model::{Bytes, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{FactStore, QueueError};

/// Interval between two reports of a process.
pub const REPORTED_EVERY: Duration = Duration::from_secs(15);

/// Silence after which a process is taken for gone.
pub const GONE_AFTER: Duration = Duration::from_secs(60);

/// Report of a process on itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessReport {
    /// Its kind: `gateway`, `dispatcher`, `serve`, `operator`, `reconciler`.
    pub kind: String,
    /// The host that it runs on.
    pub host: String,
    /// Its process id on that host.
    pub pid: u32,
    /// Where its process id counts: two processes of the same place see each other's. `None` if
    /// that is not known.
    pub pid_space: Option<String>,
    /// The start of the process by the system's count, which tells it from another that got its
    /// id later.
    pub pid_started: Option<u64>,
    /// The product's version.
    pub version: String,
    /// Start of the process.
    pub started_at: Timestamp,
    /// Whether the process can do its work.
    pub is_ready: bool,
    /// Why it can't do its work, if that is so and the process says it.
    pub impediment: Option<String>,
    /// True if the process was told to stop, and is stopping.
    pub is_stopping: bool,
    /// True if the process ended as it was told to, so that nothing is wrong.
    pub is_closed: bool,
    /// The routes of its settings.
    pub routes: Vec<String>,
    /// A digest of each part of these routes' settings, by the route and the part's key.
    pub route_settings: BTreeMap<String, BTreeMap<String, String>>,
    /// The disks that it writes to.
    pub disks: Vec<DiskUsage>,
    /// The certificates that it uses.
    pub certificates: Vec<CertificateEnd>,
    /// Logins at Fluent that the process may not try now.
    pub logins: Vec<RestingLogin>,
    /// Accounts whose genuine webhooks the process refused.
    pub refused: Vec<RefusedAccount>,
    /// Genuine webhooks of accounts that are not listed, whether named above or not.
    pub refused_count: u64,
    /// The private address that nearly all webhooks come from, if there is one and it is not
    /// listed as a trusted proxy.
    pub untrusted_proxy: Option<String>,
}

/// Fill level of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskUsage {
    /// A path on the disk.
    pub path: String,
    /// Bytes in use.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
}

/// End of a certificate's validity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateEnd {
    /// The certificate's file.
    pub file: String,
    /// The earliest end among the certificates in the file.
    pub ends_at: Timestamp,
}

/// A login that Fluent refused twice, which is therefore not tried for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestingLogin {
    /// The account.
    pub account: String,
    /// Its environment.
    pub environment: String,
    /// End of the time for which nobody tries the login.
    pub rests_until: Timestamp,
}

/// An account whose genuine webhooks were refused. Its name comes from the webhook: it is
/// escaped, and cut to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedAccount {
    /// The name in the webhooks.
    pub account: String,
    /// The environment of the key that matched.
    pub environment: String,
    /// The reason: `unknown-account`, `unknown-retailer`, `wrong-key`.
    pub reason: String,
    /// The listed account with nearly the same name.
    pub nearest: Option<String>,
    /// Number of webhooks.
    pub count: u64,
    /// Arrival of the last of them.
    pub last_at: Timestamp,
}

/// A report, and the time at which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSeen {
    /// Names the process in commands: its kind and a digest of where it runs; of several that
    /// have both in common, a number, too.
    pub id: String,
    /// The report.
    pub report: ProcessReport,
    /// The time of the report, by the store's clock.
    pub seen_at: Timestamp,
    /// True if it ran where the reader runs, and is not there any more.
    pub has_died: bool,
}

impl ProcessSeen {
    /// Whether the process has died, or has been silent for over [`GONE_AFTER`], without reporting
    /// its end. A report of a time that is still to come, by more than that, is of a moment with a
    /// wrong clock, and nothing has come since.
    pub fn is_gone(&self, now: Timestamp) -> bool {
        let apart = now.duration_since(self.seen_at).unsigned_abs();
        !self.report.is_closed && (self.has_died || apart > GONE_AFTER)
    }

    /// Whether the process is running: neither closed nor gone.
    pub fn is_running(&self, now: Timestamp) -> bool {
        !self.report.is_closed && !self.is_gone(now)
    }
}

/// Writes the report of a process. `id` is `<kind>.<token>`.
pub async fn set_process(
    facts: &dyn FactStore,
    id: &str,
    report: &ProcessReport,
) -> Result<(), QueueError> {
    let value: Bytes = serde_json::to_vec(report).unwrap_or_default().into();
    facts.set(&format!("process.{id}"), value).await
}

/// What was said last under this name.
pub async fn process(facts: &dyn FactStore, id: &str) -> Result<Option<ProcessReport>, QueueError> {
    let found = facts.get(&format!("process.{id}")).await?;
    // What another version wrote, and can't be read, is nobody's fault.
    Ok(found.and_then(|value| serde_json::from_slice(&value).ok()))
}

/// Every process that has said something, the newest version of it.
pub async fn processes(facts: &dyn FactStore) -> Result<Vec<ProcessSeen>, QueueError> {
    let all = facts.entries("process").await?;
    // A report of another version that can't be read is left out: that is no error.
    let read = |entry: crate::Fact| {
        let report = serde_json::from_slice(&entry.value).ok()?;
        let id = entry
            .name
            .strip_prefix("process.")
            .unwrap_or(&entry.name)
            .to_owned();
        Some(ProcessSeen {
            id,
            report,
            seen_at: entry.set_at,
            has_died: false,
        })
    };
    Ok(all.into_iter().filter_map(read).collect())
}

/// Forgets a process that will not come back.
pub async fn forget_process(facts: &dyn FactStore, id: &str) -> Result<(), QueueError> {
    facts.unset(&format!("process.{id}")).await
}
