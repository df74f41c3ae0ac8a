//! Fluent's own log of events, a slice of time after the other.

use std::collections::HashMap;
use std::time::Duration;

use event_model::Timestamp;
use fluent_api::{ApiError, Client, EventQuery, EventRecord, time};
use serde::Serialize;
use tokio::time::sleep;

use crate::error::ReconcileError;
use crate::window::{Window, later};

/// Records asked for at once.
const PAGE: u32 = 500;

/// Most records of one name in a slice: more, and the slice is halved.
const MOST: usize = 10_000;

/// How often a page is asked for, and the first wait: what passes passes within a minute,
/// which is how long its rate limit lasts.
const TRIES: u32 = 6;
const AGAIN: Duration = Duration::from_secs(2);

/// Of this type is what workflows did about an event, and not the event itself.
const AUDIT: &str = "ORCHESTRATION_AUDIT";

/// How Fluent logs that it sent a webhook.
const ACTION: &str = "ACTION";
const SEND_WEBHOOK: &str = "Send Webhook";

/// How long after an event its sending may be logged.
const SENDING: Duration = Duration::from_mins(1);

/// What Fluent says of sending an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "sent", content = "status")]
pub enum Sent {
    /// It logged that it did, with this status: `SUCCESS`, for one.
    Logged(String),
    /// Its log has nothing of it.
    Unlogged,
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
        let mut found = Vec::new();
        let mut ahead = vec![window];
        while let Some(window) = ahead.pop() {
            let query = EventQuery { name: Some(name.to_owned()), ..EventQuery::default() };
            match self.records(query, window).await? {
                Some(records) => found.extend(records),
                None => match window.halves() {
                    Some([first, second]) => ahead.extend([second, first]),
                    None => return Err(ReconcileError::TooMany(MOST, name.to_owned())),
                },
            }
        }
        let is_event = |record: &EventRecord| {
            record.name == name
                && record.kind.as_deref() != Some(AUDIT)
                && record.category.as_deref() != Some(ACTION)
        };
        found.retain(is_event);
        found.sort_by_key(generated);
        Ok(found)
    }

    /// What it says of sending, by the event's id.
    pub(crate) async fn sent(&self, window: Window) -> Result<HashMap<String, String>, ReconcileError> {
        let mut sent = HashMap::new();
        let mut ahead = vec![Window { until: later(window.until, SENDING), ..window }];
        while let Some(window) = ahead.pop() {
            let query = EventQuery {
                name: Some(SEND_WEBHOOK.to_owned()),
                category: Some(ACTION.to_owned()),
                ..EventQuery::default()
            };
            let Some(records) = self.records(query, window).await? else {
                let halves = window.halves();
                let [first, second] =
                    halves.ok_or_else(|| ReconcileError::TooMany(MOST, SEND_WEBHOOK.to_owned()))?;
                ahead.extend([second, first]);
                continue;
            };
            for record in records {
                let status = record.event_status.unwrap_or_default();
                sent.extend(record.context.source_events.into_iter().map(|id| (id, status.clone())));
            }
        }
        Ok(sent)
    }

    /// Every record in a time, or nothing if there are too many.
    async fn records(
        &self,
        query: EventQuery,
        window: Window,
    ) -> Result<Option<Vec<EventRecord>>, ReconcileError> {
        let mut found = Vec::new();
        loop {
            let query = EventQuery {
                from: Some(window.from),
                to: Some(window.until),
                start: u32::try_from(found.len()).unwrap_or(u32::MAX),
                count: PAGE,
                ..query.clone()
            };
            let page = self.page(&query).await?;
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

    async fn page(&self, query: &EventQuery) -> Result<fluent_api::EventPage, ReconcileError> {
        let failed = |source| ReconcileError::Api { account: self.account.to_owned(), source };
        let mut tried = 1;
        loop {
            match self.client.events(query).await {
                Err(error) if tried < TRIES && may_pass(&error) => {
                    sleep(error.wait().unwrap_or(AGAIN * tried)).await;
                    tried += 1;
                }
                answered => return answered.map_err(failed),
            }
        }
    }
}

/// A login that is refused is not tried over and over: it would be locked.
fn may_pass(error: &ApiError) -> bool {
    error.is_transient()
        && !matches!(error, ApiError::Login { .. } | ApiError::Secret(_) | ApiError::NotFound)
}

/// When Fluent wrote it.
pub(crate) fn generated(record: &EventRecord) -> Option<Timestamp> {
    record.generated_on.as_deref().and_then(time)
}
