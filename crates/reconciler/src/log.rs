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
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use event_model::{Clock, SystemClock};
    use fluent_api::{Credentials, Limits, LoginLedger, MemoryLedger, Options};
    use simulator::api::{Fluent, LOGIN, Sending as Sent, World};

    use super::*;

    fn ledger() -> Arc<dyn LoginLedger> {
        Arc::new(MemoryLedger::new(|| SystemClock.now()))
    }

    fn client(fluent: &Fluent) -> Client {
        let secret = || -> fluent_api::ReadSecret { Arc::new(|| Ok(LOGIN.to_owned())) };
        let credentials = Credentials {
            username: LOGIN.to_owned(),
            password: secret(),
            client_id: LOGIN.to_owned(),
            client_secret: secret(),
        };
        let limits = Limits { per_second: NonZeroU32::new(1000).unwrap(), ..Limits::default() };
        Client::new(Options {
            base: fluent.url().parse().unwrap(),
            account: "ACME".to_owned(),
            environment: "sandbox".to_owned(),
            credentials,
            limits,
            ledger: ledger(),
        })
        .unwrap()
    }

    async fn fluent() -> Fluent {
        Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34)).await.unwrap()
    }

    /// The last hour.
    fn hour() -> Window {
        let until = SystemClock.now();
        Window { from: crate::window::earlier(until, Duration::from_hours(1)), until }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_does_not_fit_at_once_is_read_in_halves() {
        let fluent = fluent().await;
        let order = fluent.world().place_order();
        let all = MOST + 700;
        for number in 0..all {
            let ago = Duration::from_millis(10 * number as u64) + Duration::from_mins(1);
            fluent.world().webhook_of("E", &order, ago, Sent::Never);
        }
        fluent.world().webhook_of("F", &order, Duration::from_mins(2), Sent::Never);
        let client = client(&fluent);
        let log = Log { account: "ACME", client: &client };
        let found = log.events("E", hour()).await.unwrap();
        assert_eq!(found.len(), all, "each of them, once");
        assert!(found.is_sorted_by_key(generated), "the oldest first");
        assert!(found.iter().all(|record| record.name == "E"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_limit_is_waited_for_and_a_failure_is_tried_again() {
        let fluent = fluent().await;
        let order = fluent.world().place_order();
        for _ in 0..3 {
            fluent.world().webhook_of("E", &order, Duration::from_mins(2), Sent::Failed);
        }
        let client = client(&fluent);
        let log = Log { account: "ACME", client: &client };
        fluent.behave(|behaviour| {
            behaviour.fail_next = 1;
            behaviour.rate_limit = Some((1, Duration::from_secs(1)));
        });
        assert_eq!(log.events("E", hour()).await.unwrap().len(), 3);
        let sent = log.sendings(hour(), &[]).await;
        let id = fluent.world().log()[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(sent.of(&id), Sending::Logged("FAILED".to_owned()));
        assert_eq!(sent.of("another"), Sending::Unlogged);
        assert!(fluent.calls().limited > 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rule_without_its_setting_is_told_from_what_got_lost() {
        let fluent = fluent().await;
        let order = fluent.world().place_order();
        let sendings = [Sent::Failed, Sent::NoSetting, Sent::Never];
        let ago = Duration::from_mins(2);
        let ids = sendings.map(|sending| id_of(&fluent.world().webhook_of("E", &order, ago, sending)));
        // What other rules write says nothing of it, and of another Setting not whether it was sent.
        fluent.world().log_custom(&ids[2], "Stock was checked", ago);
        let other = id_of(&fluent.world().webhook_of("E", &order, ago, Sent::Never));
        fluent.world().log_custom(&other, "The carrier setting was read", ago);
        let client = client(&fluent);
        let log = Log { account: "ACME", client: &client };
        let events = log.events("E", hour()).await.unwrap();
        let found = log.sendings(hour(), &events).await;
        let no_setting = Sending::NoSetting { of_webhook: true };
        let expected = [Sending::Logged("FAILED".to_owned()), no_setting, Sending::Unlogged];
        assert_eq!(ids.each_ref().map(|id| found.of(id)), expected);
        let of_another = Sending::NoSetting { of_webhook: false };
        assert_eq!((found.of(&other), of_another.label()), (of_another.clone(), "no-setting"));
        assert!(!crate::admitting::was_to_be_sent(&of_another), "its workflow may have failed before");
        assert!(expected[..2].iter().all(crate::admitting::was_to_be_sent));
        let labels = expected.map(|sending| sending.label());
        assert_eq!(labels, ["failed", "no-setting", "none"]);
        assert!(labels.iter().all(|label| Sending::LABELS.contains(label)));
        // Of what was sent nobody asks what rules wrote.
        let searches = fluent.calls().searches;
        let sent: Vec<_> = events.into_iter().filter(|event| event.id == ids[0]).collect();
        log.sendings(hour(), &sent).await;
        assert_eq!(fluent.calls().searches, searches + 1);
    }

    fn id_of(body: &[u8]) -> String {
        serde_json::from_slice::<serde_json::Value>(body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_login_that_is_refused_is_not_tried_over_and_over() {
        let fluent = fluent().await;
        let client = client(&fluent);
        let log = Log { account: "ACME", client: &client };
        fluent.behave(|behaviour| {
            behaviour.fail_with = 401;
            behaviour.fail_next = 100;
        });
        let refused = log.events("E", hour()).await.unwrap_err();
        assert!(matches!(refused, ReconcileError::Api { source: ApiError::Login { .. }, .. }), "{refused:?}");
        assert!(fluent.calls().logins <= 2, "{:?}", fluent.calls());
    }
}
