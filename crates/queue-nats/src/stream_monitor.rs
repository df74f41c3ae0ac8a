//! A monitor of the stream of events: its epoch, how full it is, and whether it exists at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use event_model::{Clock, Timestamp};
use queue::{Horizon, Impediment, QueueError};
use tokio_util::sync::CancellationToken;

use crate::api::ApiError;
use crate::cluster;
use crate::connect::NatsConnection;
use crate::options::Layout;
use crate::servers_clock::{ServersClock, is_skewed, shifted};
use crate::streams::{RETRIES, Shard};

/// Interval at which a stream that is full, gone or recreated is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Number of looks after which the clock of the server that leads the retries is read, too.
const RETRIES_CLOCK_EVERY: u64 = 3;

/// Part of its bytes from which on a stream is reported to fill.
const FILLING: f64 = 0.7;

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
    /// The clock of the server that leads the events, and of the one that leads the retries.
    servers_clock: ServersClock,
    retries_clock: ServersClock,
    /// Whether this process writes retries: others have no right to look at their stream.
    has_retries: AtomicBool,
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
            servers_clock: ServersClock::of(Shard::ONLY.events()),
            retries_clock: ServersClock::of(RETRIES),
            has_retries: AtomicBool::new(false),
            known_since: Mutex::default(),
        }
    }

    /// Returns the expected layout of the streams.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the present time by the servers' clock, which decides how long messages wait and are
    /// kept. Our clock may be set meanwhile. It is that of the server that leads the events.
    pub(crate) fn servers_now(&self) -> Timestamp {
        self.servers_clock.now().unwrap_or_else(|| self.clock.now())
    }

    /// Converts a time of the servers' clock to that of the server that leads the retries, which
    /// decides when they are due.
    pub(crate) fn retries_time(&self, at: Timestamp) -> Timestamp {
        let Some(theirs) = self.retries_clock.now() else {
            return at;
        };
        let ahead = theirs.as_nanosecond() - self.servers_now().as_nanosecond();
        shifted(at, i64::try_from(ahead).unwrap_or_default())
    }

    /// Reads the clock of the server that leads the retries, now and from now on.
    pub(crate) async fn watch_retries_clock(&self) {
        if !self.has_retries.swap(true, Ordering::AcqRel) {
            self.read_retries_clock().await;
        }
    }

    /// Reads the clock of the server that leads the retries. Without an answer, the one that was
    /// known counts on.
    pub(crate) async fn read_retries_clock(&self) {
        if let Err(error) = self.retries_clock.read(&self.link, &*self.clock).await {
            tracing::debug!(%error, "the clock of the server that leads the retries can't be read");
        }
    }

    /// Converts a time of our clock to the servers' clock.
    pub(crate) fn servers_time(&self, at: Timestamp) -> Timestamp {
        shifted(at, self.servers_clock.ahead().unwrap_or(0))
    }

    /// Converts a time of the servers' clock to ours, as the inverse of `servers_time`.
    pub(crate) fn local_time(&self, at: Timestamp) -> Timestamp {
        shifted(at, -self.servers_clock.ahead().unwrap_or(0))
    }

    /// Returns by how many nanoseconds the servers' clock is ahead of ours, if the two differ by
    /// more than measuring is off; 0 otherwise.
    pub(crate) fn skew(&self) -> i64 {
        let ahead = self.servers_clock.ahead();
        ahead.filter(|ahead| is_skewed(*ahead)).unwrap_or(0)
    }

    /// Returns by how many milliseconds our clock is ahead of the servers', or one of the servers'
    /// of the other's: the largest of these.
    pub(crate) fn clock_ahead_ms(&self) -> Option<i64> {
        let events = self.servers_clock.ahead();
        let retries = self.retries_clock.ahead();
        let between = events
            .zip(retries)
            .map(|(events, retries)| events.saturating_sub(retries));
        let all = [
            events.map(|ahead| -ahead),
            retries.map(|ahead| -ahead),
            between,
        ];
        let worst = all
            .into_iter()
            .flatten()
            .max_by_key(|ahead| ahead.unsigned_abs());
        worst.map(|ahead| ahead / 1_000_000)
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
        self.servers_clock.read(&self.link, &*self.clock).await
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
        let mut looks = 0_u64;
        loop {
            looks += 1;
            if looks.is_multiple_of(RETRIES_CLOCK_EVERY) && self.has_retries.load(Ordering::Acquire)
            {
                self.read_retries_clock().await;
            }
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
