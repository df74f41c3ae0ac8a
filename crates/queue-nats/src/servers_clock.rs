//! The clock of the server that leads a stream, as its answers tell it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use event_model::{Clock, Timestamp};
use tokio::time::Instant;

use crate::api::{self, ApiError};
use crate::connect::NatsConnection;
use crate::streams::StreamName;

/// Longest time of an answer that is used to read the servers' clock, which it gives to half of
/// that time.
const PROMPT: Duration = Duration::from_millis(500);

/// Difference of the clocks that is an alarm: FluentClockSkew.
const SKEWED: Duration = Duration::from_secs(2);

/// The clock of the server that leads one stream.
#[derive(Debug)]
pub(crate) struct ServersClock {
    stream: StreamName,
    /// `None` until it was read.
    read: Mutex<Option<Reading>>,
}

/// What an answer told.
#[derive(Clone, Copy, Debug)]
struct Reading {
    said: Timestamp,
    heard: Instant,
    /// Nanoseconds by which it is ahead of our clock.
    ahead: i64,
}

impl ServersClock {
    pub(crate) fn of(stream: StreamName) -> Self {
        Self {
            stream,
            read: Mutex::default(),
        }
    }

    /// Returns the state of the stream, and reads the clock.
    pub(crate) async fn read(
        &self,
        link: &NatsConnection,
        clock: &dyn Clock,
    ) -> Result<Info, ApiError> {
        let asked = clock.now();
        let began = Instant::now();
        let (info, at) = api::stream_info_at(link, self.stream).await?;
        let took = began.elapsed();
        // An answer that took long says little about the time at which it was written; but it says
        // more than none.
        if (took <= PROMPT || self.reading().is_none())
            && let Some(at) = at
        {
            let heard = began + took / 2;
            let ours = asked.as_nanosecond() + i128::try_from(took.as_nanos() / 2).unwrap_or(0);
            let ahead = i64::try_from(at.as_nanosecond() - ours).unwrap_or_default();
            let reading = Reading {
                said: at,
                heard,
                ahead,
            };
            let known = self
                .read
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .replace(reading);
            self.say_skew(known.map(|known| known.ahead), ahead);
        }
        Ok(info)
    }

    /// Returns its present time, if it was read.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        let reading = self.reading()?;
        reading.said.checked_add(reading.heard.elapsed()).ok()
    }

    /// Returns by how many nanoseconds it is ahead of ours, if it was read.
    pub(crate) fn ahead(&self) -> Option<i64> {
        self.reading().map(|reading| reading.ahead)
    }

    fn reading(&self) -> Option<Reading> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs once that the clocks differ, and once that they no longer do.
    fn say_skew(&self, known: Option<i64>, ahead: i64) {
        let ahead_ms = ahead / 1_000_000;
        let stream = self.stream;
        match (known.is_some_and(is_skewed), is_skewed(ahead)) {
            (false, true) => {
                tracing::error!(
                    %stream,
                    ahead_ms,
                    "the clock of the NATS server that leads a stream is apart from ours: what waits goes by that server's"
                )
            }
            (true, false) => tracing::info!(
                %stream,
                ahead_ms,
                "the clock of the NATS server that leads a stream and ours agree again"
            ),
            _ => {}
        }
    }
}

/// Whether a difference of so many nanoseconds is more than measuring is off.
pub(crate) fn is_skewed(ahead: i64) -> bool {
    Duration::from_nanos(ahead.unsigned_abs()) > SKEWED
}

/// Returns the time by a clock that is so many nanoseconds ahead.
pub(crate) fn shifted(at: Timestamp, ahead: i64) -> Timestamp {
    Timestamp::from_nanosecond(at.as_nanosecond() + i128::from(ahead)).unwrap_or(at)
}
