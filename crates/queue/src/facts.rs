//! Facts: small durable values that are read by name and replaced whole, such as which event was
//! reconciled, how far a spool is drained, or how far an account is compared.

use std::fmt;
use std::time::Duration;

use event_model::{Bytes, EventId, FluentKey, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::QueueError;

/// Time for which a fact is stored that is not set again: longer than any sender tries, and
/// longer than events are stored by default.
pub const MARKED_FOR: Duration = Duration::from_hours(30 * 24);

/// The store of facts. A name is tokens ([`event_model::token`]), joined by dots.
pub trait FactStore: fmt::Debug + Send + Sync {
    /// The value under this name.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, QueueError>>;

    /// Sets a fact durably. It is forgotten [`MARKED_FOR`] later, or somewhat after that; until
    /// then nothing removes it to make room: if there is no room, setting fails.
    fn set<'a>(&'a self, name: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), QueueError>>;

    /// The value under this name, and its version, which changes whenever the fact is set.
    fn get_versioned<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<(Bytes, u64)>, QueueError>>;

    /// Sets a fact as [`FactStore::set`] does, if its version is still `version`; 0 stands for a fact
    /// that does not exist. Returns `false` if another writer was faster.
    fn compare_and_set<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        version: u64,
    ) -> BoxFuture<'a, Result<bool, QueueError>>;

    /// Every fact whose name begins with `<word>.`, in order of names.
    fn entries<'a>(&'a self, word: &'a str) -> BoxFuture<'a, Result<Vec<Fact>, QueueError>>;

    /// The store's current time, by which facts are stamped.
    fn now(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>>;

    /// Forgets a fact. Forgetting one that does not exist succeeds.
    fn unset<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;
}

const _: fn(&dyn FactStore) = |_| {};

/// Access to the fact store alone: for a process that reports on itself, and may see nothing else
/// of the queue.
///
/// ```
/// use event_model::Timestamp;
/// use fluent_queue::{FactAccess, QueueError, facts};
///
/// async fn compared_until(kept: &dyn FactAccess) -> Result<Option<Timestamp>, QueueError> {
///     facts::compared_until(kept.facts(), "ACME").await
/// }
/// ```
pub trait FactAccess: fmt::Debug + Send + Sync {
    /// The fact store.
    fn facts(&self) -> &dyn FactStore;
}

const _: fn(&dyn FactAccess) = |_| {};

/// A fact, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Bytes,
    /// The time at which it was set, by the store's clock.
    pub set_at: Timestamp,
}

/// Report of a spool on itself, written every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolWatermark {
    /// The host that it runs on, for people.
    pub host: String,
    /// Everything that arrived before this time is in the queue.
    pub drained_to: Timestamp,
    /// True if the spool was closed empty: nothing comes from it until it is opened again.
    pub is_closed: bool,
}

impl SpoolWatermark {
    /// Whether everything that arrived before `until` has left the spool.
    pub fn is_drained_to(&self, until: Timestamp) -> bool {
        self.is_closed || self.drained_to >= until
    }
}

const SPOOL: &str = "spool";

/// Writes the report of a spool. `id` is the spool's own, for as long as its file exists.
pub async fn set_spool(
    facts: &dyn FactStore,
    id: &str,
    mark: &SpoolWatermark,
) -> Result<(), QueueError> {
    facts.set(&format!("{SPOOL}.{id}"), json(mark)).await
}

/// The report of every spool, by its id.
pub async fn spools(facts: &dyn FactStore) -> Result<Vec<(String, SpoolWatermark)>, QueueError> {
    let all = facts.entries(SPOOL).await?;
    let read = |Fact { name, value, .. }: Fact| {
        let mark = serde_json::from_slice(&value)
            .map_err(|error| QueueError::unavailable("reading how a spool stands", error))?;
        let id = name.strip_prefix("spool.").unwrap_or(&name);
        Ok((id.to_owned(), mark))
    };
    all.into_iter().map(read).collect()
}

/// Extends the time for which a spool's report is stored by another [`MARKED_FOR`]. A report that
/// is written meanwhile, or removed by a person, stays as it is.
pub async fn keep_spool(facts: &dyn FactStore, id: &str) -> Result<(), QueueError> {
    let name = format!("{SPOOL}.{id}");
    if let Some((said, version)) = facts.get_versioned(&name).await? {
        // If another writer was faster, its report is stored as long.
        facts.compare_and_set(&name, said, version).await?;
    }
    Ok(())
}

/// Forgets a spool that will never be opened again.
pub async fn forget_spool(facts: &dyn FactStore, id: &str) -> Result<(), QueueError> {
    facts.unset(&format!("{SPOOL}.{id}")).await
}

/// An event that came twice: from Fluent's log, and by a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconciledPair {
    /// The event that was reconciled.
    pub reconciled: EventId,
    /// The event that the route has delivered.
    pub delivered: Option<EventId>,
}

impl ReconciledPair {
    /// Whether `id` need not be delivered any more. A reconciled event stands for every webhook
    /// of its key; a webhook stands for itself alone, since two rules may have sent two.
    pub fn is_duplicate(&self, id: EventId) -> bool {
        match self.delivered {
            None => false,
            Some(delivered) if id == self.reconciled => delivered != id,
            Some(delivered) => delivered == self.reconciled,
        }
    }
}

/// Records that an event was reconciled, before it is published. `seal` proves it to readers that
/// do not trust the store; it is empty if all do.
pub async fn set_reconciled(
    facts: &dyn FactStore,
    key: FluentKey,
    id: EventId,
    seal: &str,
) -> Result<(), QueueError> {
    let value = format!("{id} {seal}");
    facts
        .set(
            &format!("{RECONCILED}{key}"),
            value.trim_end().to_owned().into(),
        )
        .await
}

/// Prefix of the names of facts that record a reconciled event.
const RECONCILED: &str = "reconciled.";

/// Reads a fact that records a reconciled event: the key, the event, and the seal, which is empty
/// if there is none. `None` if it is another kind of fact.
pub fn reconciled_of<'v>(name: &str, value: &'v [u8]) -> Option<(FluentKey, EventId, &'v str)> {
    let key = name.strip_prefix(RECONCILED)?.parse().ok()?;
    let value = std::str::from_utf8(value).ok()?;
    let (id, seal) = value.split_once(' ').unwrap_or((value, ""));
    Some((key, id.parse().ok()?, seal))
}

/// The event of this key that was reconciled, if one was, and the event that the route has
/// delivered.
pub async fn reconciled_pair(
    facts: &dyn FactStore,
    key: FluentKey,
    route: &str,
) -> Result<Option<ReconciledPair>, QueueError> {
    let name = format!("{RECONCILED}{key}");
    let value = facts.get(&name).await?.unwrap_or_default();
    let Some((_, reconciled, _)) = reconciled_of(&name, &value) else {
        return Ok(None);
    };
    let delivered = facts
        .get(&delivered(key, route))
        .await?
        .and_then(|id| read_id(&id));
    Ok(Some(ReconciledPair {
        reconciled,
        delivered,
    }))
}

/// Records that a route has delivered one of the events of this key.
pub async fn set_delivered(
    facts: &dyn FactStore,
    key: FluentKey,
    route: &str,
    id: EventId,
) -> Result<(), QueueError> {
    facts
        .set(&delivered(key, route), id.to_string().into())
        .await
}

fn delivered(key: FluentKey, route: &str) -> String {
    format!("delivered.{route}.{key}")
}

fn read_id(text: &[u8]) -> Option<EventId> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The record of the tries of a login, and its version. `login` names the login without saying
/// whose it is.
pub async fn login(facts: &dyn FactStore, login: &str) -> Result<Option<(Bytes, u64)>, QueueError> {
    facts.get_versioned(&format!("login.{login}")).await
}

/// Replaces the record of a login, if its version is still `version`; 0 stands for no record.
/// Returns `false` if another writer was faster.
pub async fn replace_login(
    facts: &dyn FactStore,
    login: &str,
    record: Bytes,
    version: u64,
) -> Result<bool, QueueError> {
    facts
        .compare_and_set(&format!("login.{login}"), record, version)
        .await
}

/// The time up to which an account's log is compared.
pub async fn compared_until(
    facts: &dyn FactStore,
    account: &str,
) -> Result<Option<Timestamp>, QueueError> {
    let found = facts.get(&format!("compared.{account}")).await?;
    Ok(found.and_then(|at| std::str::from_utf8(&at).ok()?.parse().ok()))
}

/// Records the time up to which an account's log is compared.
pub async fn set_compared_until(
    facts: &dyn FactStore,
    account: &str,
    until: Timestamp,
) -> Result<(), QueueError> {
    facts
        .set(&format!("compared.{account}"), until.to_string().into())
        .await
}

/// Encodes a value as JSON, which can't fail for strings, times and booleans.
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use event_model::Environment;

    use super::*;

    #[test]
    fn what_was_reconciled_stands_for_all_and_a_webhook_for_itself() {
        let id = |body: &str| EventId::of(Environment::Sandbox, body.as_bytes());
        let log = id("log");
        let webhook = id("webhook");
        let another = id("another rule's");
        let over = |delivered| {
            let twin = ReconciledPair {
                reconciled: log,
                delivered,
            };
            [log, webhook, another].map(|id| twin.is_duplicate(id))
        };
        assert_eq!(over(None), [false; 3]);
        assert_eq!(over(Some(log)), [false, true, true]);
        assert_eq!(over(Some(webhook)), [true, false, false]);
    }
}
