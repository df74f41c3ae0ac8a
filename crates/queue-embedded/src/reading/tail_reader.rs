//! The tail reader: one thread that reads each new event once and offers it to
//! every route, and brings back what waited for a retry.
//!
//! A route whose buffer is full is left behind; when it has room again, the reader catches up for
//! it from the file. So a slow route costs reading, and delays no other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use event_model::{Event, RestoreError};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use sqlite_file::rows::{EVENT, event, signed, unsigned};
use sqlite_file::{Failure, lock};

use crate::file::routes::{asked_again, pause_of, paused_until};
use crate::reading::ready::{ReadyDelivery, Retry};
use crate::reading::route::RouteBuffer;
use crate::shared::Shared;
use crate::stores::quarantined::QuarantineDamaged;
use crate::writing::claim::SkipAhead;
use crate::writing::settle::{GivenBack, give_back};

/// Largest number of events, and of bytes of their bodies, read at once.
const CHUNK: usize = 128;
const CHUNK_BYTES: usize = 1 << 20;

/// Largest number of chunks read before leases and retries are checked again.
const TURNS: usize = 32;

/// One second in nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// Longest sleep: the delay until a redrive by another process is noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// Events in order of position, and the position up to which was read.
type Tail = (Vec<(u64, Arc<Event>)>, u64);

pub(crate) struct TailReader {
    pub(crate) sql: Connection,
    pub(crate) shared: Arc<Shared>,
}

impl TailReader {
    /// Runs until the queue closes.
    pub(crate) fn run(self) {
        while !self.shared.is_closing() {
            match self.round() {
                Ok(sleep) => park_timeout(sleep),
                Err(error) => {
                    self.note(&error);
                    park_timeout(LONGEST_SLEEP);
                }
            }
        }
    }

    fn round(&self) -> rusqlite::Result<Duration> {
        let next_expiry = self.expire_leases();
        self.heed_other_writers()?;
        let routes: Vec<_> = lock(&self.shared.routes).clone();
        for route in &routes {
            route.resume_if_due(self.shared.now());
            if let Err(error) = self.reload(route).and_then(|()| self.feed_retries(route)) {
                self.note(&error);
                route.waits_until(self.shared.now() + SECOND);
            }
        }
        let more = self.feed_tails(&routes)?;
        for route in &routes {
            if let Some(cursor) = route.idle_cursor() {
                self.shared.submit(SkipAhead {
                    route: Arc::clone(route),
                    cursor,
                });
            }
        }
        Ok(if more {
            Duration::ZERO
        } else {
            self.sleep(&routes, next_expiry)
        })
    }

    /// Feeds in turn the routes nearest to the end and those furthest behind, for a bounded time:
    /// a route that reads a long past must not keep others from new events. `true` if there is
    /// more.
    fn feed_tails(&self, routes: &[Arc<RouteBuffer>]) -> rusqlite::Result<bool> {
        for _ in 0..TURNS {
            let near = self.feed_tail(routes, Iterator::max)?;
            let far = self.feed_tail(routes, Iterator::min)?;
            if self.shared.is_closing() || !(near || far) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reports a failed read: a damaged file fails the queue, as it does when it can't be
    /// written.
    fn note(&self, error: &rusqlite::Error) {
        tracing::error!(%error, "the queue file can't be read");
        if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) {
            self.shared.status().note(&Failure::from(error));
        }
    }

    /// Gives back deliveries whose lease ran out; returns the time of the next expiry.
    fn expire_leases(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut leases = lock(&self.shared.leases);
        let expired: Vec<_> = leases
            .iter()
            .filter(|(_, held)| held.until <= now)
            .map(|(key, held)| (*key, held.attempt))
            .collect();
        for (key, attempt) in expired {
            leases.remove(&key);
            tracing::warn!(
                position = key.position,
                attempt,
                "lease expired; the delivery goes to whoever asks next"
            );
            give_back(&self.shared, key, attempt, GivenBack::Expired);
        }
        leases.values().map(|held| held.until).min()
    }

    /// Reacts to changes by other processes, which may have redriven an event or paused a route.
    fn heed_other_writers(&self) -> rusqlite::Result<()> {
        if !self.shared.others_wrote.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let now = self.shared.now();
        let mut asked = Vec::new();
        let heed = |route: &Arc<RouteBuffer>| {
            route.waits_until(i64::MIN);
            let pause = pause_of(&self.sql, &route.name, now)?;
            route.set_paused_until(pause.as_ref().map_or(0, paused_until));
            if route.ask_again(asked_again(&self.sql, &route.name)?) {
                asked.push(route.name.clone());
            }
            Ok(())
        };
        let heeded = lock(&self.shared.routes).iter().try_for_each(heed);
        if let Some(look) = lock(&self.shared.look).clone() {
            asked.iter().for_each(|route| look.close_breaker(route));
        }
        if heeded.is_err() {
            // No write may follow for a long time, so this is tried again.
            self.shared.others_wrote.store(true, Ordering::Release);
        }
        heeded
    }

    fn reload(&self, route: &RouteBuffer) -> rusqlite::Result<()> {
        if !route.is_stale() {
            return Ok(());
        }
        let cursor = self.sql.query_row(
            "SELECT cursor FROM routes WHERE id = ?1",
            [route.id],
            |row| row.get(0),
        );
        match cursor.optional()? {
            Some(cursor) => route.reset(unsigned(cursor)),
            None => {
                tracing::error!(
                    route = route.name,
                    "forgotten while in use: it delivers nothing until the next start"
                );
                lock(&self.shared.routes).retain(|other| other.id != route.id);
            }
        }
        Ok(())
    }

    fn feed_retries(&self, route: &RouteBuffer) -> rusqlite::Result<()> {
        let now = self.shared.now();
        let Some(limit) = route.wants_retries() else {
            return Ok(());
        };
        if !route.take_due(now) {
            return Ok(());
        }
        let (due, more) = self.due(route, now, limit)?;
        let next = if more {
            Some(now)
        } else {
            self.next_due(route, now)?
        };
        route.offer_retries(due, next);
        Ok(())
    }

    /// Deliveries that are due, and whether there may be more.
    fn due(
        &self,
        route: &RouteBuffer,
        now: i64,
        limit: usize,
    ) -> rusqlite::Result<(Vec<ReadyDelivery>, bool)> {
        let mut statement = self.sql.prepare_cached(&due())?;
        let mut rows = statement.query(params![
            route.id,
            now,
            i64::try_from(limit).unwrap_or(i64::MAX)
        ])?;
        let mut due = Vec::new();
        let mut count = 0;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            let position = unsigned(row.get(0)?);
            match event(row, 6)? {
                Ok(event) => {
                    bytes += event.body().len();
                    due.push(ReadyDelivery {
                        position,
                        event: Arc::new(event),
                        retry: Some(retry(row)?),
                        matched: None,
                    });
                }
                Err(damaged) => self.set_aside(position, &damaged),
            }
            if bytes >= CHUNK_BYTES {
                return Ok((due, true));
            }
        }
        Ok((due, count >= limit))
    }

    fn next_due(&self, route: &RouteBuffer, now: i64) -> rusqlite::Result<Option<i64>> {
        self.sql
            .prepare_cached(
                "SELECT min(at) FROM deliveries WHERE route = ?1 AND in_flight = 0 AND at > ?2",
            )?
            .query_row(params![route.id, now], |row| row.get(0))
    }

    /// Reads one chunk for the route that `choose` picks by its position, and offers it to the
    /// others that are within the chunk; `false` if there is nothing to read.
    fn feed_tail(
        &self,
        routes: &[Arc<RouteBuffer>],
        choose: fn(std::vec::IntoIter<u64>) -> Option<u64>,
    ) -> rusqlite::Result<bool> {
        let last = self.shared.last.load(Ordering::Acquire);
        let scans: Vec<u64> = routes
            .iter()
            .filter_map(|route| route.wants_more())
            .filter(|scan| *scan < last)
            .collect();
        let Some(from) = choose(scans.into_iter()) else {
            return Ok(false);
        };
        let (events, end) = self.read(from, last)?;
        for route in routes {
            if route
                .scan_with_room()
                .is_some_and(|scan| scan >= from && scan < end)
            {
                route.offer(&events, end);
            }
        }
        Ok(true)
    }

    /// Events after `position` in order, and the position up to which was read.
    fn read(&self, position: u64, last: u64) -> rusqlite::Result<Tail> {
        let recent = lock(&self.shared.recent)
            .after(position, CHUNK)
            .unwrap_or_default();
        match recent.last() {
            Some((end, _)) => Ok((recent.clone(), *end)),
            None => self.read_file(position, last),
        }
    }

    fn read_file(&self, position: u64, last: u64) -> rusqlite::Result<Tail> {
        let mut statement = self.sql.prepare_cached(&tail())?;
        let mut rows = statement.query(params![signed(position), CHUNK as i64])?;
        let mut events = Vec::with_capacity(CHUNK);
        let mut count = 0;
        let mut bytes = 0;
        let mut newest = position;
        while let Some(row) = rows.next()? {
            count += 1;
            newest = unsigned(row.get(0)?);
            match event(row, 1)? {
                Ok(event) => {
                    bytes += event.body().len();
                    events.push((newest, Arc::new(event)));
                }
                Err(damaged) => self.set_aside(newest, &damaged),
            }
            if bytes >= CHUNK_BYTES {
                return Ok((events, newest));
            }
        }
        // The file may have more than `last` says, never less.
        Ok((
            events,
            if count < CHUNK {
                newest.max(last)
            } else {
                newest
            },
        ))
    }

    fn set_aside(&self, position: u64, damaged: &RestoreError) {
        tracing::error!(error = %damaged, position, "damaged event moved to the quarantine; others are not affected");
        self.shared.submit(QuarantineDamaged {
            position,
            shared: Arc::clone(&self.shared),
        });
    }

    fn sleep(&self, routes: &[Arc<RouteBuffer>], next_expiry: Option<Instant>) -> Duration {
        let now = self.shared.now();
        let until_due = routes
            .iter()
            .filter(|route| route.wants_retries().is_some())
            .filter_map(|route| route.next_due())
            .map(|at| Duration::from_nanos(u64::try_from(at.saturating_sub(now)).unwrap_or(0)))
            .min();
        let until_expiry = next_expiry.map(|at| at.saturating_duration_since(Instant::now()));
        [until_due, until_expiry]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(LONGEST_SLEEP)
            .min(LONGEST_SLEEP)
    }
}

/// The query of [`TailReader::read_file`]. By bodies: there may be ten million ids without one.
fn tail() -> String {
    format!(
        "SELECT e.position, {EVENT} FROM bodies b CROSS JOIN events e USING (position)
         WHERE b.position > ?1 ORDER BY b.position LIMIT ?2"
    )
}

/// The query of [`TailReader::due`].
fn due() -> String {
    format!(
        "SELECT d.position, d.redrive, d.attempt, d.deaths, d.asks_match, d.asked, {EVENT}
         FROM deliveries d JOIN events e USING (position) JOIN bodies b USING (position)
         WHERE d.route = ?1 AND d.in_flight = 0 AND d.at <= ?2 ORDER BY d.at LIMIT ?3"
    )
}

/// Reads the columns after the position in [`TailReader::due`].
fn retry(row: &Row<'_>) -> rusqlite::Result<Retry> {
    Ok(Retry {
        redrive: row.get(1)?,
        attempt: row.get(2)?,
        deaths: row.get(3)?,
        asks_match: row.get(4)?,
        asked: row.get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::plan;

    #[test]
    fn new_events_are_searched_by_their_bodies_and_retries_by_when_they_are_due() {
        let first = |query: &str| plan(query).swap_remove(0);
        assert_eq!(
            first(&tail()),
            "SEARCH b USING INTEGER PRIMARY KEY (rowid>?)"
        );
        assert_eq!(
            first(&due()),
            "SEARCH d USING INDEX deliveries_due (route=? AND at<?)"
        );
    }
}
