//! A monitor of the stream of events: its epoch, how full it is, and whether it exists at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use event_model::{Clock, Timestamp};
use queue::{Horizon, Impediment, QueueError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiError};
use crate::cluster;
use crate::connect::NatsConnection;
use crate::options::Layout;
use crate::streams::Shard;

/// Interval at which a stream that is full, gone or recreated is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Longest time of an answer that is used to read the servers' clock, which it gives to half of
/// that time.
const PROMPT: Duration = Duration::from_millis(500);

/// Difference of the clocks that is an alarm: FluentClockSkew.
const SKEWED: Duration = Duration::from_secs(2);

/// Part of its bytes from which on a stream is reported to fill.
const FILLING: f64 = 0.7;

/// The servers' clock, as an answer gave it.
#[derive(Clone, Copy, Debug)]
struct ServersClock {
    said: Timestamp,
    heard: Instant,
    /// Nanoseconds by which it is ahead of our clock.
    ahead: i64,
}

/// State of the stream of events, as it was last read.
#[derive(Debug)]
pub(crate) struct StreamMonitor {
    link: NatsConnection,
    epoch: Mutex<Option<String>>,
    is_full: AtomicBool,
    is_there: AtomicBool,
    /// True if the server says that there is no such stream.
    is_missing: AtomicBool,
    is_filling: AtomicBool,
    /// Number of times that the stream was seen to be another one.
    epoch_number: AtomicU64,
    layout: Layout,
    clock: Arc<dyn Clock>,
    /// `None` until it was read.
    servers_clock: Mutex<Option<ServersClock>>,
    /// `None` until the stream was seen; then the time of the oldest event that is still there,
    /// if older ones were removed.
    known_since: Mutex<Option<Option<Timestamp>>>,
}

impl StreamMonitor {
    pub(crate) fn new(link: NatsConnection, layout: Layout, clock: Arc<dyn Clock>) -> Self {
        Self {
            link,
            epoch: Mutex::default(),
            is_full: AtomicBool::new(false),
            is_there: AtomicBool::new(false),
            is_missing: AtomicBool::new(false),
            is_filling: AtomicBool::new(false),
            epoch_number: AtomicU64::new(0),
            layout,
            clock,
            servers_clock: Mutex::default(),
            known_since: Mutex::default(),
        }
    }

    /// Returns the expected layout of the streams.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the present time by the servers' clock, which decides how long messages are kept
    /// and wait. Our clock may be set meanwhile.
    pub(crate) fn servers_now(&self) -> Timestamp {
        let read = self.servers_clock();
        let now = read.and_then(|clock| clock.said.checked_add(clock.heard.elapsed()).ok());
        now.unwrap_or_else(|| self.clock.now())
    }

    /// Converts a time of our clock to the servers' clock.
    pub(crate) fn servers_time(&self, at: Timestamp) -> Timestamp {
        let ahead = self.servers_clock().map_or(0, |clock| clock.ahead);
        Timestamp::from_nanosecond(at.as_nanosecond() + i128::from(ahead)).unwrap_or(at)
    }

    /// Converts a time of the servers' clock to ours, as the inverse of `servers_time`.
    pub(crate) fn local_time(&self, at: Timestamp) -> Timestamp {
        let ahead = self.servers_clock().map_or(0, |clock| clock.ahead);
        Timestamp::from_nanosecond(at.as_nanosecond() - i128::from(ahead)).unwrap_or(at)
    }

    /// Returns by how many nanoseconds the servers' clock is ahead of ours, if the two differ by
    /// more than measuring is off; 0 otherwise.
    pub(crate) fn skew(&self) -> i64 {
        let ahead = self.servers_clock().map(|clock| clock.ahead);
        ahead.filter(|ahead| is_skewed(*ahead)).unwrap_or(0)
    }

    /// Returns by how many milliseconds our clock is ahead of the servers'.
    pub(crate) fn clock_ahead_ms(&self) -> Option<i64> {
        self.servers_clock().map(|clock| -clock.ahead / 1_000_000)
    }

    fn servers_clock(&self) -> Option<ServersClock> {
        *self
            .servers_clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns for how many seconds ids are known, as far as the stream of events shows.
    pub(crate) fn ids_known_for(&self) -> Option<u64> {
        let known = *self
            .known_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let window = self.layout.dedup_window;
        let age =
            |since: Timestamp| Duration::try_from(self.servers_now().duration_since(since)).ok();
        Some(
            known?
                .and_then(age)
                .map_or(window, |age| age.min(window))
                .as_secs(),
        )
    }

    /// Reads the state of the stream of events, and with it the servers' clock.
    async fn stream(&self) -> Result<Info, ApiError> {
        let asked = self.clock.now();
        let began = Instant::now();
        let (info, at) = api::stream_info_at(&self.link, Shard::ONLY.events()).await?;
        let took = began.elapsed();
        // An answer that took long says little about the time at which it was written; but it says
        // more than none.
        if (took <= PROMPT || self.servers_clock().is_none())
            && let Some(at) = at
        {
            let heard = began + took / 2;
            let ours = asked.as_nanosecond() + i128::try_from(took.as_nanos() / 2).unwrap_or(0);
            let ahead = i64::try_from(at.as_nanosecond() - ours).unwrap_or_default();
            let read = ServersClock {
                said: at,
                heard,
                ahead,
            };
            let known = self
                .servers_clock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .replace(read);
            say_skew(known.map(|known| known.ahead), ahead);
        }
        Ok(info)
    }

    /// Returns a number that changes when the stream is recreated.
    pub(crate) fn epoch_number(&self) -> u64 {
        self.epoch_number.load(Ordering::Acquire)
    }

    /// Returns the epoch of the stream, which is read from the server once.
    pub(crate) async fn epoch(&self) -> Result<String, QueueError> {
        if let Some(epoch) = self.known_epoch() {
            return Ok(epoch);
        }
        Ok(self.refresh().await?.epoch)
    }

    /// Returns the epoch of the stream, if it was read already.
    pub(crate) fn known_epoch(&self) -> Option<String> {
        self.epoch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Why a publish is likely to fail now.
    pub(crate) fn impediment(&self) -> Option<Impediment> {
        let why = match self.is_there.load(Ordering::Relaxed) {
            true if !self.is_full.load(Ordering::Relaxed) => return None,
            true => "the stream FLUENT_EVENTS is full (`queue.retention.bytes`)",
            false if self.is_missing.load(Ordering::Relaxed) => {
                "the stream FLUENT_EVENTS is not there (`fluent-webhooks cluster init` makes it)"
            }
            false => "NATS does not answer, or refuses to show the stream FLUENT_EVENTS",
        };
        Some(why.into())
    }

    /// Returns how many bytes waiting deliveries may take.
    pub(crate) fn waiting_limit(&self) -> u64 {
        self.layout.bytes
    }

    /// Reads the state of the stream now.
    pub(crate) async fn refresh(&self) -> Result<Horizon, QueueError> {
        match self.stream().await {
            Ok(info) => self.seen(&info),
            Err(error) => {
                self.is_there.store(false, Ordering::Relaxed);
                self.is_missing.store(error.is_missing(), Ordering::Relaxed);
                Err(error.of("looking at the stream of events"))
            }
        }
    }

    fn seen(&self, info: &Info) -> Result<Horizon, QueueError> {
        let epoch = info.created.unix_timestamp_nanos().to_string();
        let known = self
            .epoch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(epoch.clone());
        if known.is_some_and(|known| known != epoch) {
            self.epoch_number.fetch_add(1, Ordering::AcqRel);
            tracing::error!(
                stream = %Shard::ONLY.events(),
                "the stream of events was made anew: what it held is gone from it"
            );
        }
        self.fills(info);
        let removed_before = (info.state.first_sequence > 1 && info.state.messages > 0)
            .then(|| {
                Timestamp::from_nanosecond(info.state.first_timestamp.unix_timestamp_nanos()).ok()
            })
            .flatten();
        *self
            .known_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(removed_before);
        self.is_there.store(true, Ordering::Relaxed);
        Ok(Horizon {
            epoch,
            last: Shard::ONLY.position(info.state.last_sequence)?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a share of bytes")]
    fn fills(&self, info: &Info) {
        let limit = u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX);
        let share = info.state.bytes as f64 / limit as f64;
        // A message of the largest size must fit.
        let largest = u64::try_from(info.config.max_message_size).unwrap_or(0);
        self.is_full.store(
            info.state.bytes.saturating_add(largest) > limit,
            Ordering::Relaxed,
        );
        let was = self.is_filling.swap(share >= FILLING, Ordering::Relaxed);
        if share >= FILLING && !was {
            let percent = (share * 100.0).round();
            tracing::error!(
                stream = %Shard::ONLY.events(),
                percent,
                "the stream of events fills: is a route behind, or gone?"
            );
        }
    }

    /// Reads the state again and again until the queue closes, and logs changes.
    pub(crate) async fn watch(self: Arc<Self>, closing: CancellationToken) {
        let mut was_missing = false;
        let mut said = None;
        loop {
            let looked = self.stream().await;
            let is_missing = matches!(&looked, Err(error) if error.is_missing());
            self.is_there.store(looked.is_ok(), Ordering::Relaxed);
            self.is_missing.store(is_missing, Ordering::Relaxed);
            match &looked {
                Ok(info) => {
                    drop(self.seen(info));
                    let wrong = cluster::wrong_with(&self.link, &self.layout, info);
                    say_what_is_wrong(wrong.as_deref(), said.as_deref());
                    said = wrong;
                }
                Err(ApiError::Refused(_)) if is_missing && !was_missing => {
                    tracing::error!(
                        stream = %Shard::ONLY.events(),
                        "the stream of events is not there: `fluent-webhooks cluster init` makes it"
                    );
                }
                Err(error) => tracing::debug!(%error, "the stream of events can't be looked at"),
            }
            was_missing = is_missing;
            if closing
                .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
                .await
                .is_none()
            {
                return;
            }
        }
    }
}

fn is_skewed(ahead: i64) -> bool {
    Duration::from_nanos(ahead.unsigned_abs()) > SKEWED
}

/// Returns the time by a clock that is so many nanoseconds ahead.
pub(crate) fn shifted(at: Timestamp, ahead: i64) -> Timestamp {
    Timestamp::from_nanosecond(at.as_nanosecond() + i128::from(ahead)).unwrap_or(at)
}

/// Logs once that the clocks differ, and once that they no longer do.
fn say_skew(known: Option<i64>, ahead: i64) {
    let ahead_ms = ahead / 1_000_000;
    match (known.is_some_and(is_skewed), is_skewed(ahead)) {
        (false, true) => {
            tracing::error!(
                ahead_ms,
                "the clock of the NATS servers is apart from ours: what waits goes by theirs"
            )
        }
        (true, false) => tracing::info!(
            ahead_ms,
            "the clock of the NATS servers and ours agree again"
        ),
        _ => {}
    }
}

/// A process that only publishes goes on with a cluster that is not as it should be, since
/// refusing would lose events: so the log must tell of it.
fn say_what_is_wrong(wrong: Option<&str>, said: Option<&str>) {
    match wrong {
        Some(wrong) if said != Some(wrong) => {
            tracing::error!(
                wrong,
                "the cluster is not what it is to be: `fluent-webhooks cluster check` says more"
            );
        }
        None if said.is_some() => tracing::info!("the cluster is what it is to be again"),
        _ => {}
    }
}
