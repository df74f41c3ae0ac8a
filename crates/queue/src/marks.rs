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

/// Facts by name. A name is words of letters, digits, `-` and `_`, joined by dots.
pub trait Marks: fmt::Debug + Send + Sync {
    /// What is known under this name.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, QueueError>>;

    /// Sets it, durably. It is forgotten [`MARKED_FOR`] after, or with the next such
    /// clean-up.
    fn set<'a>(&'a self, name: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Every mark whose name begins with `<word>.`, in order of their names.
    fn list<'a>(&'a self, word: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>, QueueError>>;

    /// Forgets one. One that is not there is forgotten already.
    fn unset<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;
}

const _: fn(&dyn Marks) = |_| {};

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
    let all = marks.list(SPOOL).await?;
    let read = |(name, value): (String, Bytes)| {
        let mark = serde_json::from_slice(&value)
            .map_err(|error| QueueError::unavailable("reading how a spool stands", error))?;
        let id = name.strip_prefix("spool.").unwrap_or(&name);
        Ok((id.to_owned(), mark))
    };
    all.into_iter().map(read).collect()
}

/// Forgets a spool that will never be opened again.
pub async fn forget_spool(marks: &dyn Marks, id: &str) -> Result<(), QueueError> {
    marks.unset(&format!("{SPOOL}.{id}")).await
}

/// Where an event stands that Fluent's log told of, on one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// It was never reconciled: there is no other.
    None,
    /// It was, and the route has not ended either of the two.
    Open,
    /// The route has ended this one of them.
    Ended(EventId),
}

/// Says that an event was reconciled, before it is published.
pub async fn set_reconciled(marks: &dyn Marks, key: FluentKey, id: EventId) -> Result<(), QueueError> {
    marks.set(&format!("reconciled.{key}"), id.to_string().into()).await
}

/// Whether another event of this key was reconciled, and what became of the two.
pub async fn twin(marks: &dyn Marks, key: FluentKey, route: &str) -> Result<Twin, QueueError> {
    if marks.get(&format!("reconciled.{key}")).await?.is_none() {
        return Ok(Twin::None);
    }
    let ended = marks.get(&ended(key, route)).await?;
    let ended = ended.and_then(|id| std::str::from_utf8(&id).ok()?.parse().ok());
    Ok(ended.map_or(Twin::Open, Twin::Ended))
}

/// Says that a route has ended one of the events of this key.
pub async fn set_ended(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
    id: EventId,
) -> Result<(), QueueError> {
    marks.set(&ended(key, route), id.to_string().into()).await
}

fn ended(key: FluentKey, route: &str) -> String {
    format!("ended.{route}.{key}")
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
