//! Fluent's own log of events, a slice of time after the other.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use event_model::Timestamp;
use fluent_api::{ApiError, Client, EventPage, EventQuery, EventRecord, time};
use serde::{Serialize, Serializer};
use tokio::time::sleep;

use crate::error::ReconcileError;
use crate::window::{Window, later};

/// Records asked for at once: with a few KiB each, half of the longest answer that is read.
/// Where they are larger, fewer are asked for.
const PAGE: u32 = 500;

/// Most records of one name that are read at once: more, and the time is halved. They are
/// held in memory, with their attributes.
const MOST: usize = 10_000;

/// How often a page is asked for, and the first wait, which grows: half a minute in all.
/// Where Fluent says how long to wait, that counts.
const TRIES: u32 = 6;
const AGAIN: Duration = Duration::from_secs(2);

/// Of this type is what workflows did about an event, and not the event itself.
const AUDIT: &str = "ORCHESTRATION_AUDIT";

/// How Fluent logs that it sent a webhook.
const ACTION: &str = "ACTION";
const SEND_WEBHOOK: &str = "Send Webhook";

/// A sending that went well, and one that was given up.
const SUCCESS: &str = "SUCCESS";
const FAILED: &str = "FAILED";

/// Of this category is what rules write into the log themselves: among it, that a rule's Setting
/// could not be loaded, so that nothing was sent. In which words is not documented; they
/// name the Setting.
const CUSTOM: &str = "CUSTOM";
const OF_A_SETTING: &str = "setting";
const OF_A_WEBHOOK: &str = "webhook";

/// How long after an event its sending may be logged, when it was tried to the end.
const SENT_WITHIN: Duration = Duration::from_mins(1);

/// What Fluent says of sending an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It logged that it tried, with this status: `SUCCESS`, for one.
    Logged(String),
    /// A rule wrote of a Setting that it could not load, as it seems: then nothing was sent, and
    /// nothing got lost on the way.
    NoSetting {
        /// Whether it wrote of a webhook, too: another rule's Setting says nothing of this one.
        of_webhook: bool,
    },
    /// Its log has nothing of it within a minute.
    Unlogged,
    /// Its log could not be read that far.
    Unknown,
}

impl Sending {
    /// Every label.
    pub const LABELS: [&str; 6] = ["success", "failed", "other", "no-setting", "none", "unknown"];

    /// In a metric: of Fluent's own words, two.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Logged(status) if status == SUCCESS => "success",
            Self::Logged(status) if status == FAILED => "failed",
            Self::Logged(_) => "other",
            Self::NoSetting { .. } => "no-setting",
            Self::Unlogged => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// The status, or `no-setting`, `none` or `unknown`.
impl fmt::Display for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logged(status) => status,
            Self::NoSetting { .. } => "no-setting",
            Self::Unlogged => "none",
            Self::Unknown => "unknown",
        })
    }
}

impl Serialize for Sending {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// What Fluent says of sending the events of a time, by their ids; nothing where that could
/// not be read.
#[derive(Debug, Default)]
pub(crate) struct Sendings {
    logged: Option<HashMap<String, String>>,
    /// Events of which a rule wrote of a Setting, and whether one wrote of a webhook with it.
    without_setting: HashMap<String, bool>,
}

impl Sendings {
    pub(crate) fn of(&self, id: &str) -> Sending {
        match self.logged.as_ref().map(|all| all.get(id)) {
            Some(Some(status)) => Sending::Logged(status.clone()),
            sent => match (self.without_setting.get(id), sent) {
                (Some(of_webhook), _) => Sending::NoSetting { of_webhook: *of_webhook },
                (None, Some(_)) => Sending::Unlogged,
                (None, None) => Sending::Unknown,
            },
        }
    }
}

/// One account's log.
#[derive(Debug)]
pub(crate) struct Log<'a> {
    pub(crate) account: &'a str,
    pub(crate) client: &'a Client,
}

impl Log<'_> {
    /// The events of this name in a time, the oldest first.
    pub(crate) async fn events(
        &self,
        name: &str,
        window: Window,
    ) -> Result<Vec<EventRecord>, ReconcileError> {
        let query = EventQuery { name: Some(name.to_owned()), ..EventQuery::default() };
        let mut found = self.all(&query, window).await?;
        let is_event = |record: &EventRecord| {
            record.name == name
                && record.kind.as_deref() != Some(AUDIT)
                && record.category.as_deref() != Some(ACTION)
                && window.has(generated(record))
        };
        found.retain(is_event);
        Ok(found)
    }

    /// What it says of sending these events of a time.
    pub(crate) async fn sendings(&self, window: Window, events: &[EventRecord]) -> Sendings {
        let window = Window { until: later(window.until, SENT_WITHIN), ..window };
        let logged = self.logged_sendings(window).await;
        let is_unlogged =
            |event: &EventRecord| logged.as_ref().is_none_or(|all| !all.contains_key(&event.id));
        let without_setting = match events.iter().any(is_unlogged) {
            true => self.without_setting(window).await,
            false => HashMap::new(),
        };
        Sendings { logged, without_setting }
    }

    /// Events of which a rule wrote of a Setting. Where that can't be read, it is none.
    async fn without_setting(&self, window: Window) -> HashMap<String, bool> {
        let query = EventQuery { category: Some(CUSTOM.to_owned()), ..EventQuery::default() };
        let records = self.all(&query, window).await.unwrap_or_default();
        let mut found = HashMap::new();
        for record in records.into_iter().filter(|record| names(record, OF_A_SETTING)) {
            let of_webhook = names(&record, OF_A_WEBHOOK);
            for id in record.context.source_events {
                *found.entry(id).or_default() |= of_webhook;
            }
        }
        found
    }

    /// Nobody waits for it, and nothing rests on it alone: what can't be read is not known.
    async fn logged_sendings(&self, window: Window) -> Option<HashMap<String, String>> {
        let query = EventQuery {
            name: Some(SEND_WEBHOOK.to_owned()),
            category: Some(ACTION.to_owned()),
            ..EventQuery::default()
        };
        let records = self.all(&query, window).await.ok()?;
        let mut sendings: HashMap<String, String> = HashMap::new();
        for record in records {
            let status = record.event_status.unwrap_or_default();
            for id in record.context.source_events {
                // The newest counts, but for one that went well.
                let known = sendings.entry(id).or_default();
                if known != SUCCESS {
                    known.clone_from(&status);
                }
            }
        }
        Some(sendings)
    }

    /// Every record in a time, the oldest first, each once.
    async fn all(&self, query: &EventQuery, window: Window) -> Result<Vec<EventRecord>, ReconcileError> {
        let (mut found, mut ahead) = (Vec::new(), vec![window]);
        while let Some(window) = ahead.pop() {
            match (self.records(query, window).await?, window.halves()) {
                (Some(records), _) => found.extend(records),
                (None, Some([first, second])) => ahead.extend([second, first]),
                (None, None) => {
                    return Err(ReconcileError::TooMany(MOST, query.name.clone().unwrap_or_default()));
                }
            }
        }
        // What lies between two halves is in both.
        found.sort_by(|a, b| (generated(a), &a.id).cmp(&(generated(b), &b.id)));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    /// Every record in a time, or nothing if there are too many.
    async fn records(
        &self,
        query: &EventQuery,
        window: Window,
    ) -> Result<Option<Vec<EventRecord>>, ReconcileError> {
        let (mut found, mut count) = (Vec::new(), PAGE);
        loop {
            let query = EventQuery {
                from: Some(window.from),
                to: Some(window.until),
                start: u32::try_from(found.len()).unwrap_or(u32::MAX),
                count,
                ..query.clone()
            };
            let page = match self.page(&query).await {
                // Large records: fewer of them.
                Err(ApiError::TooLong(_)) if count > 1 => {
                    count /= 2;
                    continue;
                }
                page => page.map_err(|source| self.failed(source))?,
            };
            let is_last = !page.has_more || page.results.is_empty();
            found.extend(page.results);
            if found.len() > MOST {
                return Ok(None);
            }
            if is_last {
                return Ok(Some(found));
            }
        }
    }

    fn failed(&self, source: ApiError) -> ReconcileError {
        ReconcileError::Api { account: self.account.to_owned(), source }
    }

    async fn page(&self, query: &EventQuery) -> Result<EventPage, ApiError> {
        let mut tried = 1;
        loop {
            // A quarter of what is allowed: deliveries ask the same account.
            sleep(Duration::from_secs(4) / self.client.per_second().get()).await;
            match self.client.events(query).await {
                Err(error) if tried < TRIES && may_pass(&error) => {
                    sleep(error.wait().unwrap_or(AGAIN * tried)).await;
                    tried += 1;
                }
                answered => return answered,
            }
        }
    }
}

/// A login that is refused is not tried over and over: it would be locked.
fn may_pass(error: &ApiError) -> bool {
    error.is_transient()
        && !matches!(error, ApiError::Login { .. } | ApiError::Secret(_) | ApiError::NotFound)
}

/// Whether what a rule wrote has this word: in its name, or in what it says beside it.
fn names(record: &EventRecord, word: &str) -> bool {
    let has_it = |text: &str| text.to_ascii_lowercase().contains(word);
    has_it(&record.name) || record.attributes.as_ref().is_some_and(|said| has_it(&said.to_string()))
}

/// When Fluent wrote it.
pub(crate) fn generated(record: &EventRecord) -> Option<Timestamp> {
    record.generated_on.as_deref().and_then(time)
}

#[cfg(test)]
mod tests;
