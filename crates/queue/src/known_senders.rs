//! Record of the networks that sent genuine webhooks lately. All gateways share it, so that one
//! that has just started knows whose refused webhooks may be real.

use event_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{FactStore, QueueError};

const NAME: &str = "senders";

/// Largest number of networks in the record, the newest: far more than Fluent has.
pub const MOST_SENDERS: usize = 256;

/// A network that sent a genuine webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownSender {
    /// The network, as in logs.
    pub network: String,
    /// The time of its latest genuine webhook.
    pub at: Timestamp,
}

/// The record, and its version for [`set_known_senders`]. One that can't be read is empty.
pub async fn known_senders(facts: &dyn FactStore) -> Result<(Vec<KnownSender>, u64), QueueError> {
    let found = facts.get_versioned(NAME).await?;
    Ok(found.map_or_else(Default::default, |(value, version)| {
        let senders = serde_json::from_slice(&value).unwrap_or_default();
        (senders, version)
    }))
}

/// Replaces the record, if its version is still `version`. Returns `false` if another gateway was
/// faster.
pub async fn set_known_senders(
    facts: &dyn FactStore,
    mut senders: Vec<KnownSender>,
    version: u64,
) -> Result<bool, QueueError> {
    senders.sort_by_key(|sender| std::cmp::Reverse(sender.at));
    senders.truncate(MOST_SENDERS);
    let value = serde_json::to_vec(&senders)
        .map_err(|error| QueueError::unavailable("writing down who sends", error))?;
    facts.compare_and_set(NAME, value.into(), version).await
}
