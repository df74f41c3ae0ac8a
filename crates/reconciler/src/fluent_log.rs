//! Fluent's log of events, read in slices of time.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use event_model::Timestamp;
use fluent_api::{ApiError, Client, EventPage, EventQuery, EventRecord, time};
use serde::{Serialize, Serializer};
use tokio::time::sleep;

use crate::error::ReconcileError;
use crate::window::{Window, later};

/// Records of one page: with a few KiB each, half of the longest answer that is read. If they are
/// larger, fewer are requested.
const PAGE: u32 = 500;

/// Most records of one name that are read at once: if there are more, the time is halved. They
/// are held in memory, with their attributes.
const MOST: usize = 10_000;

/// Most tries for a page, and the first wait between them, which grows: half a minute in all. If
/// Fluent says how long to wait, that counts.
const TRIES: u32 = 6;
const AGAIN: Duration = Duration::from_secs(2);

/// Type of the records of what workflows did about an event, which are not the event itself.
const AUDIT: &str = "ORCHESTRATION_AUDIT";

/// Category of the records of webhooks that Fluent has sent.
const ACTION: &str = "ACTION";
const SEND_WEBHOOK: &str = "Send Webhook";

/// Status of a webhook that was sent, and of one that was given up.
const SUCCESS: &str = "SUCCESS";
const FAILED: &str = "FAILED";

/// Category of the records that rules write into the log themselves. Among them is that a rule's
/// Setting could not be loaded, so that nothing was sent; its words are not documented, but name
/// the Setting.
const CUSTOM: &str = "CUSTOM";
const OF_A_SETTING: &str = "setting";
const OF_A_WEBHOOK: &str = "webhook";

/// Time after an event in which its sending is logged, with all tries.
const SENT_WITHIN: Duration = Duration::from_mins(1);

/// Record in Fluent's log of sending an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendStatus {
    /// Fluent logged that it tried, with this status, such as `SUCCESS`.
    Logged(String),
    /// A rule wrote of a Setting that it could not load, as it seems: then nothing was sent, and
    /// nothing got lost on the way.
    NoSetting {
        /// Whether it wrote of a webhook, too: the Setting of another rule says nothing of this
        /// event.
        of_webhook: bool,
    },
    /// The log has nothing of it within a minute.
    Unlogged,
    /// The log could not be read that far.
    Unknown,
}

impl SendStatus {
    /// All labels.
    pub const LABELS: [&str; 6] = [
        "success",
        "failed",
        "other",
        "no-setting",
        "none",
        "unknown",
    ];

    /// Returns the label in a metric, which has only two of Fluent's own words.
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

/// Shows the status, or `no-setting`, `none` or `unknown`.
impl fmt::Display for SendStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logged(status) => status,
            Self::NoSetting { .. } => "no-setting",
            Self::Unlogged => "none",
            Self::Unknown => "unknown",
        })
    }
}

impl Serialize for SendStatus {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// Records of sending the events of a time, by the events' ids; `logged` is `None` if they could
/// not be read.
#[derive(Debug, Default)]
pub(crate) struct Sendings {
    logged: Option<HashMap<String, String>>,
    /// Events for which a rule wrote of a Setting, and whether one wrote of a webhook with it.
    without_setting: HashMap<String, bool>,
}

impl Sendings {
    pub(crate) fn of(&self, id: &str) -> SendStatus {
        match self.logged.as_ref().map(|all| all.get(id)) {
            Some(Some(status)) => SendStatus::Logged(status.clone()),
            sent => match (self.without_setting.get(id), sent) {
                (Some(of_webhook), _) => SendStatus::NoSetting {
                    of_webhook: *of_webhook,
                },
                (None, Some(_)) => SendStatus::Unlogged,
                (None, None) => SendStatus::Unknown,
            },
        }
    }
}

/// Log of one account.
#[derive(Debug)]
pub(crate) struct Log<'a> {
    pub(crate) account: &'a str,
    pub(crate) client: &'a Client,
}

impl Log<'_> {
    /// Returns the events of this name in a time, the oldest first.
    pub(crate) async fn events(
        &self,
        name: &str,
        window: Window,
    ) -> Result<Vec<EventRecord>, ReconcileError> {
        let query = EventQuery {
            name: Some(name.to_owned()),
            ..EventQuery::default()
        };
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

    /// Returns what the log says of sending these events of a time.
    pub(crate) async fn sendings(&self, window: Window, events: &[EventRecord]) -> Sendings {
        let window = Window {
            until: later(window.until, SENT_WITHIN),
            ..window
        };
        let logged = self.logged_sendings(window).await;
        let is_unlogged = |event: &EventRecord| {
            logged
                .as_ref()
                .is_none_or(|all| !all.contains_key(&event.id))
        };
        let without_setting = match events.iter().any(is_unlogged) {
            true => self.without_setting(window).await,
            false => HashMap::new(),
        };
        Sendings {
            logged,
            without_setting,
        }
    }

    /// Returns the events for which a rule wrote of a Setting; none if that can't be read.
    async fn without_setting(&self, window: Window) -> HashMap<String, bool> {
        let query = EventQuery {
            category: Some(CUSTOM.to_owned()),
            ..EventQuery::default()
        };
        let records = self.all(&query, window).await.unwrap_or_default();
        let mut found = HashMap::new();
        for record in records
            .into_iter()
            .filter(|record| names(record, OF_A_SETTING))
        {
            let of_webhook = names(&record, OF_A_WEBHOOK);
            for id in record.context.source_events {
                *found.entry(id).or_default() |= of_webhook;
            }
        }
        found
    }

    /// Returns the logged sendings; `None` if they can't be read. Nobody waits for them, and
    /// nothing depends on them alone.
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
                // The newest counts, except that a success is never replaced.
                let known = sendings.entry(id).or_default();
                if known != SUCCESS {
                    known.clone_from(&status);
                }
            }
        }
        Some(sendings)
    }

    /// Returns every record in a time, the oldest first, each once.
    async fn all(
        &self,
        query: &EventQuery,
        window: Window,
    ) -> Result<Vec<EventRecord>, ReconcileError> {
        let mut found = Vec::new();
        let mut ahead = vec![window];
        while let Some(window) = ahead.pop() {
            match (self.records(query, window).await?, window.halves()) {
                (Some(records), _) => found.extend(records),
                (None, Some([first, second])) => ahead.extend([second, first]),
                (None, None) => {
                    return Err(ReconcileError::TooMany(
                        MOST,
                        query.name.clone().unwrap_or_default(),
                    ));
                }
            }
        }
        // A record at the border of two halves is in both.
        found.sort_by(|a, b| (generated(a), &a.id).cmp(&(generated(b), &b.id)));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    /// Returns every record in a time; `None` if there are too many.
    async fn records(
        &self,
        query: &EventQuery,
        window: Window,
    ) -> Result<Option<Vec<EventRecord>>, ReconcileError> {
        let mut found = Vec::new();
        let mut count = PAGE;
        loop {
            let query = EventQuery {
                from: Some(window.from),
                to: Some(window.until),
                start: u32::try_from(found.len()).unwrap_or(u32::MAX),
                count,
                ..query.clone()
            };
            let page = match self.page(&query).await {
                // The records are large: request fewer of them.
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
        ReconcileError::Api {
            account: self.account.to_owned(),
            source,
        }
    }

    async fn page(&self, query: &EventQuery) -> Result<EventPage, ApiError> {
        let mut tried = 1;
        loop {
            // A quarter of the allowed rate: deliveries use the same account.
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

/// Whether trying again may help. A refused login is not tried again and again: it would be
/// locked.
fn may_pass(error: &ApiError) -> bool {
    error.is_transient()
        && !matches!(
            error,
            ApiError::Login { .. } | ApiError::Secret(_) | ApiError::NotFound
        )
}

/// Whether the record of a rule has this word, in its name or in its text.
fn names(record: &EventRecord, word: &str) -> bool {
    let has_it = |text: &str| text.to_ascii_lowercase().contains(word);
    has_it(&record.name)
        || record
            .attributes
            .as_ref()
            .is_some_and(|said| has_it(said.get()))
}

/// Returns when Fluent wrote the record.
pub(crate) fn generated(record: &EventRecord) -> Option<Timestamp> {
    record.generated_on.as_deref().and_then(time)
}

#[cfg(test)]
mod tests;
