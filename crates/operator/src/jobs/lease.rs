//! The lease of the one executor: a fact that says who has it, and until when, by the store's
//! clock.

use std::time::Duration;

use event_model::Timestamp;
use queue::{FactStore, QueueError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

const LEASE: &str = "job-lease.executor";

/// Time for which a lease is good. A process that is killed keeps jobs from others for so long.
const LASTS: Duration = Duration::from_secs(10);

/// Interval at which it is renewed.
pub(crate) const RENEWED_EVERY: Duration = Duration::from_secs(3);

/// Time before its end at which its holder stops: the store's clock and ours tick differently.
const MARGIN: Duration = Duration::from_secs(1);

/// The lease, in the hands of this process.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) token: String,
    good_until: Instant,
}

/// What is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredLease {
    token: String,
    process: String,
    until: Timestamp,
}

impl StoredLease {
    /// True if the holder may work. An end that no lease can have comes from a clock that was set
    /// back since.
    fn is_good(&self, now: Timestamp) -> bool {
        let latest = now.checked_add(LASTS * 2).unwrap_or(now);
        self.until > now && self.until <= latest
    }
}

impl Lease {
    /// Takes the lease, if nobody else has it.
    pub(crate) async fn take(
        facts: &dyn FactStore,
        process: &str,
    ) -> Result<Option<Self>, QueueError> {
        let token = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut lease = Self {
            token,
            good_until: Instant::now(),
        };
        let is_ours = lease.hold(facts, process).await?;
        Ok(is_ours.then_some(lease))
    }

    /// Renews it. Returns `false` if another process has it.
    pub(crate) async fn renew(
        &mut self,
        facts: &dyn FactStore,
        process: &str,
    ) -> Result<bool, QueueError> {
        self.hold(facts, process).await
    }

    /// The time at which its holder stops, unless it was renewed.
    pub(crate) fn good_until(&self) -> Instant {
        self.good_until
    }

    async fn hold(&mut self, facts: &dyn FactStore, process: &str) -> Result<bool, QueueError> {
        let asked = Instant::now();
        let found = facts.get_versioned(LEASE).await?;
        let now = facts.now().await?;
        let version = found.as_ref().map_or(0, |(_, version)| *version);
        let held: Option<StoredLease> =
            found.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
        if held.is_some_and(|held| held.token != self.token && held.is_good(now)) {
            return Ok(false);
        }
        let held = StoredLease {
            token: self.token.clone(),
            process: process.to_owned(),
            until: now.checked_add(LASTS).unwrap_or(now),
        };
        let bytes = serde_json::to_vec(&held).unwrap_or_default();
        let is_ours = facts.compare_and_set(LEASE, bytes.into(), version).await?;
        if is_ours {
            self.good_until = asked + (LASTS - MARGIN);
        }
        Ok(is_ours)
    }

    /// Gives it back, so that another process need not wait for its end.
    pub(crate) async fn give_back(self, facts: &dyn FactStore) -> Result<(), QueueError> {
        let found = facts.get_versioned(LEASE).await?;
        let Some((bytes, version)) = found else {
            return Ok(());
        };
        let held: Option<StoredLease> = serde_json::from_slice(&bytes).ok();
        if held.is_some_and(|held| held.token == self.token) {
            // If another process has it by now, it stays with that.
            facts.compare_and_set(LEASE, "{}".into(), version).await?;
        }
        Ok(())
    }
}

/// The process that has the lease now.
pub(crate) async fn holder(facts: &dyn FactStore) -> Result<Option<String>, QueueError> {
    let found = facts.get(LEASE).await?;
    let held: Option<StoredLease> = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let now = facts.now().await?;
    Ok(held
        .filter(|held| held.is_good(now))
        .map(|held| held.process))
}
