//! Room in a stream that all routes write to. The first routes to come may take most of it; the
//! rest is in equal shares, so that one route whose destination is gone does not stop the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::api::{self, ApiError};
use crate::connect::NatsConnection;
use crate::names::{DEAD_LETTERS, dead, of_route};
use crate::streams::{DEAD, RETRIES, StreamName};

/// Time for which an answer of the servers is used: what other processes write meanwhile is not in
/// it.
const KNOWN_FOR: Duration = Duration::from_secs(2);

/// A server that counts a route's messages looks at the subject of each. It is asked so seldom
/// that this takes a twentieth of its time.
const COUNTED_SELDOM: u32 = 20;

/// Percentage of the bytes that is there for every route, whoever comes first; the rest is in
/// shares.
const IN_COMMON: u64 = 75;

/// Room for the routes' messages in one stream.
#[derive(Debug)]
pub(crate) struct StreamRoom {
    link: NatsConnection,
    stream: StreamName,
    /// The limit where the stream has none of its own.
    bytes: u64,
    fill: AsyncMutex<Known<Fill>>,
    is_crowded: AtomicBool,
    /// What each route has there, of those that asked while it was crowded.
    routes: Mutex<BTreeMap<String, Arc<AsyncMutex<Known<RouteUse>>>>>,
}

/// An answer of the servers, and until when it is used.
#[derive(Debug)]
struct Known<T> {
    value: T,
    until: Option<Instant>,
}

/// How full the stream is.
#[derive(Clone, Copy, Debug, Default)]
struct Fill {
    bytes: u64,
    messages: u64,
    limit: u64,
    /// Routes that may have messages there.
    routes: u64,
}

/// What one route has in the stream.
#[derive(Clone, Copy, Debug, Default)]
struct RouteUse {
    messages: u64,
    /// Routes that have any; 0 if that was not asked.
    routes: u64,
}

impl<T> Known<T> {
    const fn unknown(value: T) -> Self {
        Self { value, until: None }
    }

    /// Asks again if the last answer is old. Without an answer the last one is used for as long
    /// again: who waits for room would otherwise wait for the server too.
    async fn renew(&mut self, ask: impl AsyncFnOnce() -> Result<T, ApiError>, stream: StreamName) {
        if self.until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let began = Instant::now();
        match ask().await {
            Ok(value) => self.value = value,
            Err(error) => tracing::debug!(%stream, %error, "it can't be asked how full it is"),
        }
        self.until = Some(Instant::now() + KNOWN_FOR.max(began.elapsed() * COUNTED_SELDOM));
    }
}

impl StreamRoom {
    /// Room in `stream`, which may have so many bytes if it has no limit of its own.
    pub(crate) fn new(link: NatsConnection, stream: StreamName, bytes: u64) -> Self {
        Self {
            link,
            stream,
            bytes,
            fill: AsyncMutex::new(Known::unknown(Fill::default())),
            is_crowded: AtomicBool::new(false),
            routes: Mutex::default(),
        }
    }

    /// Whether `route` may write another message, with a body of so many bytes. It counts as
    /// written until the servers are asked again, so that what is written at once keeps to the
    /// share as well.
    pub(crate) async fn has_room(&self, route: &str, bytes: usize) -> bool {
        let mut fill = self.fill.lock().await;
        fill.renew(async || self.look().await, self.stream).await;
        self.note_crowded(fill.value);
        if fill.value.is_crowded() {
            let look = fill.value;
            drop(fill);
            let of_route = self.of_route(route);
            let mut used = of_route.lock().await;
            used.renew(async || self.count(route).await, self.stream)
                .await;
            if !look.is_within_share(used.value) {
                return false;
            }
            used.value.messages += 1;
            drop(used);
            fill = self.fill.lock().await;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        fill.value.bytes = fill.value.bytes.saturating_add(bytes);
        fill.value.messages += 1;
        true
    }

    fn note_crowded(&self, fill: Fill) {
        let was = self.is_crowded.swap(fill.is_crowded(), Ordering::Relaxed);
        if fill.is_crowded() && !was {
            tracing::error!(
                stream = %self.stream,
                "three quarters of the bytes that it may have are taken: routes that take more than their share of the rest write no more to it"
            );
        }
    }

    fn of_route(&self, route: &str) -> Arc<AsyncMutex<Known<RouteUse>>> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || Arc::new(AsyncMutex::new(Known::unknown(RouteUse::default())));
        Arc::clone(routes.entry(route.to_owned()).or_insert_with(unknown))
    }

    async fn look(&self) -> Result<Fill, ApiError> {
        let info = api::stream_info(&self.link, self.stream).await?;
        Ok(Fill {
            bytes: info.state.bytes,
            messages: info.state.messages,
            limit: u64::try_from(info.config.max_bytes).unwrap_or(self.bytes),
            routes: u64::try_from(info.state.consumer_count).unwrap_or(u64::MAX),
        })
    }

    async fn count(&self, route: &str) -> Result<RouteUse, ApiError> {
        if self.stream == RETRIES {
            // Each delivery has a subject of its own.
            let messages = api::count_subjects(&self.link, RETRIES, &of_route(route)).await?;
            return Ok(RouteUse {
                messages,
                routes: 0,
            });
        }
        let letters = api::subjects(&self.link, DEAD, DEAD_LETTERS).await?;
        let own = dead(route);
        let others = letters
            .iter()
            .filter(|(subject, _)| *subject != own)
            .count();
        Ok(RouteUse {
            messages: letters
                .iter()
                .find(|(subject, _)| *subject == own)
                .map_or(0, |(_, count)| *count),
            routes: u64::try_from(others + 1).unwrap_or(u64::MAX),
        })
    }
}

impl Fill {
    fn is_crowded(self) -> bool {
        self.bytes > self.limit / 100 * IN_COMMON
    }

    /// Whether a route has less than its share, as if all messages had the same size. A route
    /// that has none may always write one.
    fn is_within_share(self, used: RouteUse) -> bool {
        let routes = self.routes.max(used.routes).max(1);
        let share = self.limit / 100 * (100 - IN_COMMON) / routes;
        let average = self.bytes / self.messages.max(1);
        used.messages == 0 || used.messages.saturating_mul(average) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_keeps_a_share_whatever_the_others_take() {
        let fill = |bytes| Fill {
            bytes,
            messages: 100,
            limit: 1_000,
            routes: 5,
        };
        assert!(!fill(700).is_crowded());
        assert!(fill(800).is_crowded());
        // A fifth of 250 bytes, at ten bytes each.
        for (messages, is_within) in [(0, true), (4, true), (5, false)] {
            let used = RouteUse {
                messages,
                routes: 0,
            };
            assert_eq!(fill(1_000).is_within_share(used), is_within, "{messages}");
        }
        // There are more routes than consumers.
        let used = RouteUse {
            messages: 1,
            routes: 50,
        };
        assert!(!fill(1_000).is_within_share(used));
    }
}
