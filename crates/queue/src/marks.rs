//! Small facts that are found by their names at once, and replaced whole: which event was
//! reconciled, how far a spool is drained, how far an account is compared.

use std::fmt;
use std::time::Duration;

use event_model::{Bytes, EventId, FluentKey, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::QueueError;

/// How long a mark is kept that nobody sets again: longer than any sender tries, and
/// longer than events are kept by default.
pub const MARKED_FOR: Duration = Duration::from_hours(30 * 24);

/// Facts by name. A name is tokens ([`event_model::token`]), joined by dots.
pub trait Marks: fmt::Debug + Send + Sync {
    /// What is known under this name.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, QueueError>>;

    /// Sets it, durably. It is forgotten [`MARKED_FOR`] after, or somewhat later; until then
    /// nothing else takes its place: where there is no room, setting fails.
    fn set<'a>(&'a self, name: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), QueueError>>;

    /// What is known under this name, and its version, which changes whenever it is set.
    fn get_versioned<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<(Bytes, u64)>, QueueError>>;

    /// Sets it as [`Marks::set`] does, if its version is still this one; 0 if it is not there.
    /// `false` if somebody else was faster.
    fn compare_and_set<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        version: u64,
    ) -> BoxFuture<'a, Result<bool, QueueError>>;

    /// Every mark whose name begins with `<word>.`, in order of their names.
    fn entries<'a>(&'a self, word: &'a str) -> BoxFuture<'a, Result<Vec<MarkEntry>, QueueError>>;

    /// The time by which marks are stamped.
    fn now(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>>;

    /// Forgets one. One that is not there is forgotten already.
    fn unset<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;
}

const _: fn(&dyn Marks) = |_| {};

/// Where marks are kept: all that a process is given of a queue to say how it does, when it is
/// to see nothing of what else is kept there.
///
/// ```
/// use event_model::Timestamp;
/// use queue::{HasMarks, QueueError, marks};
///
/// async fn compared_until(kept: &dyn HasMarks) -> Result<Option<Timestamp>, QueueError> {
///     marks::compared(kept.marks(), "ACME").await
/// }
/// ```
pub trait HasMarks: fmt::Debug + Send + Sync {
    /// Small facts that are found by their names.
    fn marks(&self) -> &dyn Marks;
}

const _: fn(&dyn HasMarks) = |_| {};

/// A mark as it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkEntry {
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: Bytes,
    /// When it was set, by the store's clock.
    pub set_at: Timestamp,
}

/// What a spool says of itself, every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolMark {
    /// Where it is, for people.
    pub host: String,
    /// Whatever came before this is in the queue.
    pub drained_to: Timestamp,
    /// It was closed with nothing in it: nothing comes from it until it is opened.
    pub is_closed: bool,
}

impl SpoolMark {
    /// Whether nothing that came before `until` is still in the spool.
    pub fn is_drained_to(&self, until: Timestamp) -> bool {
        self.is_closed || self.drained_to >= until
    }
}

const SPOOL: &str = "spool";

/// Says how a spool stands. `id` is its own, for as long as its file lives.
pub async fn set_spool(marks: &dyn Marks, id: &str, mark: &SpoolMark) -> Result<(), QueueError> {
    marks.set(&format!("{SPOOL}.{id}"), json(mark)).await
}

/// Every spool that has said something, by its id.
pub async fn spools(marks: &dyn Marks) -> Result<Vec<(String, SpoolMark)>, QueueError> {
    let all = marks.entries(SPOOL).await?;
    let read = |MarkEntry { name, value, .. }: MarkEntry| {
        let mark = serde_json::from_slice(&value)
            .map_err(|error| QueueError::unavailable("reading how a spool stands", error))?;
        let id = name.strip_prefix("spool.").unwrap_or(&name);
        Ok((id.to_owned(), mark))
    };
    all.into_iter().map(read).collect()
}

/// Keeps what a spool has said for another [`MARKED_FOR`]. What it says meanwhile, or that
/// somebody gives it up, stays as it is.
pub async fn keep_spool(marks: &dyn Marks, id: &str) -> Result<(), QueueError> {
    let name = format!("{SPOOL}.{id}");
    if let Some((said, version)) = marks.get_versioned(&name).await? {
        // Where another was faster, what that one set is kept as long.
        marks.compare_and_set(&name, said, version).await?;
    }
    Ok(())
}

/// Forgets a spool that will never be opened again.
pub async fn forget_spool(marks: &dyn Marks, id: &str) -> Result<(), QueueError> {
    marks.unset(&format!("{SPOOL}.{id}")).await
}

/// An event that was told twice: out of Fluent's log, and by a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The one that was reconciled.
    pub reconciled: EventId,
    /// The one that a route has delivered.
    pub delivered: Option<EventId>,
}

impl Twin {
    /// Whether this one of them need not be delivered any more. One that was reconciled
    /// stands for every webhook of its event; a webhook for itself alone, since two rules
    /// may have sent two.
    pub fn is_over(&self, id: EventId) -> bool {
        match self.delivered {
            None => false,
            Some(delivered) if id == self.reconciled => delivered != id,
            Some(delivered) => delivered == self.reconciled,
        }
    }
}

/// Says that an event was reconciled, before it is published. `seal` proves it to those who do
/// not believe what is only written there; empty where everybody does.
pub async fn set_reconciled(
    marks: &dyn Marks,
    key: FluentKey,
    id: EventId,
    seal: &str,
) -> Result<(), QueueError> {
    let value = format!("{id} {seal}");
    marks.set(&format!("{RECONCILED}{key}"), value.trim_end().to_owned().into()).await
}

/// Begins the names of marks that say what was reconciled.
const RECONCILED: &str = "reconciled.";

/// What a mark of this name and value says was reconciled: the key, the event, and the seal,
/// empty where there is none. Nothing where it is no such mark.
pub fn reconciled_of<'v>(name: &str, value: &'v [u8]) -> Option<(FluentKey, EventId, &'v str)> {
    let key = name.strip_prefix(RECONCILED)?.parse().ok()?;
    let value = std::str::from_utf8(value).ok()?;
    let (id, seal) = value.split_once(' ').unwrap_or((value, ""));
    Some((key, id.parse().ok()?, seal))
}

/// The event of this key that was reconciled, if one was, and what a route has delivered.
pub async fn twin(marks: &dyn Marks, key: FluentKey, route: &str) -> Result<Option<Twin>, QueueError> {
    let name = format!("{RECONCILED}{key}");
    let value = marks.get(&name).await?.unwrap_or_default();
    let Some((_, reconciled, _)) = reconciled_of(&name, &value) else { return Ok(None) };
    let delivered = marks.get(&delivered(key, route)).await?.and_then(|id| read_id(&id));
    Ok(Some(Twin { reconciled, delivered }))
}

/// Says that a route has delivered one of the events of this key.
pub async fn set_delivered(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
    id: EventId,
) -> Result<(), QueueError> {
    marks.set(&delivered(key, route), id.to_string().into()).await
}

fn delivered(key: FluentKey, route: &str) -> String {
    format!("delivered.{route}.{key}")
}

fn read_id(text: &[u8]) -> Option<EventId> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What is known of the tries of a login, and its version. `login` names it, and says
/// nothing of whose it is.
pub async fn login(marks: &dyn Marks, login: &str) -> Result<Option<(Bytes, u64)>, QueueError> {
    marks.get_versioned(&format!("login.{login}")).await
}

/// Replaces it, if its version is still this one; 0 if there is none.
pub async fn replace_login(
    marks: &dyn Marks,
    login: &str,
    record: Bytes,
    version: u64,
) -> Result<bool, QueueError> {
    marks.compare_and_set(&format!("login.{login}"), record, version).await
}

/// How far an account's log is compared.
pub async fn compared(marks: &dyn Marks, account: &str) -> Result<Option<Timestamp>, QueueError> {
    let found = marks.get(&format!("compared.{account}")).await?;
    Ok(found.and_then(|at| std::str::from_utf8(&at).ok()?.parse().ok()))
}

/// Says how far an account's log is compared.
pub async fn set_compared(marks: &dyn Marks, account: &str, until: Timestamp) -> Result<(), QueueError> {
    marks.set(&format!("compared.{account}"), until.to_string().into()).await
}

/// Facts of strings, times and truths always have a form in JSON.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use event_model::Environment;

    use super::*;

    #[test]
    fn what_was_reconciled_stands_for_all_and_a_webhook_for_itself() {
        let id = |body: &str| EventId::of(Environment::Sandbox, body.as_bytes());
        let (log, webhook, another) = (id("log"), id("webhook"), id("another rule's"));
        let over = |delivered| {
            let twin = Twin { reconciled: log, delivered };
            [log, webhook, another].map(|id| twin.is_over(id))
        };
        assert_eq!(over(None), [false; 3]);
        assert_eq!(over(Some(log)), [false, true, true]);
        assert_eq!(over(Some(webhook)), [true, false, false]);
    }
}
