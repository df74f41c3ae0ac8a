//! The tail reader: one thread that reads each new event once and offers it to
//! every route, and brings back what waited for a retry.
//!
//! A route whose buffer is full is left behind; when it has room again, the
//! reader catches up for it from the file. So a slow route costs reading, and
//! delays nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use event_model::{Damaged, Event};
use rusqlite::{Connection, params};

use crate::claim::SkipAhead;
use crate::quarantined::SetAside;
use crate::route::{Ready, Retry, RouteBuffer};
use crate::rows::{EVENT, event, signed, unsigned};
use crate::settle::give_back;
use crate::shared::{Shared, lock};

/// Events read at once.
const CHUNK: usize = 128;

/// Longest sleep: how soon a redrive by another process is seen.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// Events in order of position, and how far was looked.
type Tail = (Vec<(u64, Arc<Event>)>, u64);

pub(crate) struct Feeder {
    pub(crate) sql: Connection,
    pub(crate) shared: Arc<Shared>,
}

impl Feeder {
    /// Runs until the queue closes.
    pub(crate) fn run(self) {
        while !self.shared.is_closing() {
            match self.round() {
                Ok(sleep) => park_timeout(sleep),
                Err(error) => {
                    tracing::error!(%error, "the queue file can't be read");
                    park_timeout(LONGEST_SLEEP);
                }
            }
        }
    }

    fn round(&self) -> rusqlite::Result<Duration> {
        let next_expiry = self.expire_leases();
        self.heed_other_writers();
        let routes: Vec<_> = lock(&self.shared.routes).clone();
        for route in &routes {
            self.reload(route)?;
            self.feed_retries(route)?;
        }
        while self.feed_tail(&routes)? {}
        for route in &routes {
            if let Some(cursor) = route.idle_cursor() {
                self.shared.submit(SkipAhead { route: Arc::clone(route), cursor });
            }
        }
        Ok(self.sleep(&routes, next_expiry))
    }

    /// Gives back what was held for too long; says when the next one is.
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
            give_back(&self.shared, key, attempt);
        }
        leases.values().map(|held| held.until).min()
    }

    /// Another process may have redriven something.
    fn heed_other_writers(&self) {
        if self.shared.others_wrote.swap(false, Ordering::AcqRel) {
            for route in lock(&self.shared.routes).iter() {
                route.waits_until(i64::MIN);
            }
        }
    }

    fn reload(&self, route: &RouteBuffer) -> rusqlite::Result<()> {
        if route.is_stale() {
            let cursor =
                self.sql
                    .query_row("SELECT cursor FROM routes WHERE id = ?1", [route.id], |row| row.get(0))?;
            route.reset(unsigned(cursor));
        }
        Ok(())
    }

    fn feed_retries(&self, route: &RouteBuffer) -> rusqlite::Result<()> {
        let now = self.shared.now();
        let Some((room, _)) = route.room() else { return Ok(()) };
        if !route.take_due(now) {
            return Ok(());
        }
        // Half of what is free, so that a wave of retries leaves room for news.
        let limit = room.div_ceil(2) + route.buffered_retries();
        let due = self.due(route, now, limit)?;
        let next = if due.len() >= limit { Some(now) } else { self.next_due(route, now)? };
        route.offer_retries(due, next);
        Ok(())
    }

    fn due(&self, route: &RouteBuffer, now: i64, limit: usize) -> rusqlite::Result<Vec<Ready>> {
        let sql = format!(
            "SELECT d.position, d.redrive, d.attempt, d.first_at, d.deaths, {EVENT}
             FROM deliveries d JOIN events e USING (position) JOIN bodies b USING (position)
             WHERE d.route = ?1 AND d.in_flight = 0 AND d.at <= ?2 ORDER BY d.at LIMIT ?3"
        );
        let mut statement = self.sql.prepare_cached(&sql)?;
        let mut rows = statement.query(params![route.id, now, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            let retry = Retry {
                redrive: row.get(1)?,
                attempt: row.get(2)?,
                first_at: row.get(3)?,
                deaths: row.get(4)?,
            };
            match event(row, 5)? {
                Ok(event) => due.push(Ready {
                    position: unsigned(row.get(0)?),
                    event: Arc::new(event),
                    retry: Some(retry),
                }),
                Err(damaged) => self.set_aside(unsigned(row.get(0)?), &damaged),
            }
        }
        Ok(due)
    }

    fn next_due(&self, route: &RouteBuffer, now: i64) -> rusqlite::Result<Option<i64>> {
        self.sql
            .prepare_cached("SELECT min(at) FROM deliveries WHERE route = ?1 AND in_flight = 0 AND at > ?2")?
            .query_row(params![route.id, now], |row| row.get(0))
    }

    /// Reads one chunk for those furthest behind; `false` when there is no more.
    fn feed_tail(&self, routes: &[Arc<RouteBuffer>]) -> rusqlite::Result<bool> {
        let last = self.shared.last.load(Ordering::Acquire);
        let lowest = routes
            .iter()
            .filter_map(|route| route.room())
            .map(|(_, scan)| scan)
            .filter(|scan| *scan < last)
            .min();
        let Some(lowest) = lowest else { return Ok(false) };
        let (events, end) = self.read(lowest, last)?;
        for route in routes {
            if route.room().is_some_and(|(_, scan)| scan >= lowest && scan < end) {
                route.offer(&events, end);
            }
        }
        Ok(true)
    }

    /// Events after `position` in order, and how far was looked.
    fn read(&self, position: u64, last: u64) -> rusqlite::Result<Tail> {
        let recent = lock(&self.shared.recent).after(position, CHUNK).unwrap_or_default();
        match recent.last() {
            Some((end, _)) => Ok((recent.clone(), *end)),
            None => self.read_file(position, last),
        }
    }

    fn read_file(&self, position: u64, last: u64) -> rusqlite::Result<Tail> {
        let sql = format!(
            "SELECT e.position, {EVENT} FROM events e JOIN bodies b USING (position)
             WHERE e.position > ?1 ORDER BY e.position LIMIT ?2"
        );
        let mut statement = self.sql.prepare_cached(&sql)?;
        let mut rows = statement.query(params![signed(position), CHUNK as i64])?;
        let mut events = Vec::with_capacity(CHUNK);
        let (mut count, mut newest) = (0, position);
        while let Some(row) = rows.next()? {
            count += 1;
            newest = unsigned(row.get(0)?);
            match event(row, 1)? {
                Ok(event) => events.push((newest, Arc::new(event))),
                Err(damaged) => self.set_aside(newest, &damaged),
            }
        }
        // The file may already hold more than `last` says, never less.
        Ok((events, if count < CHUNK { newest.max(last) } else { newest }))
    }

    fn set_aside(&self, position: u64, damaged: &Damaged) {
        tracing::error!(error = %damaged, position, "damaged event moved to the quarantine; others are not affected");
        self.shared.submit(SetAside { position });
    }

    fn sleep(&self, routes: &[Arc<RouteBuffer>], next_expiry: Option<Instant>) -> Duration {
        let now = self.shared.now();
        let until_due = routes
            .iter()
            .filter(|route| route.room().is_some())
            .filter_map(|route| route.next_due())
            .map(|at| Duration::from_nanos(u64::try_from(at.saturating_sub(now)).unwrap_or(0)))
            .min();
        let until_expiry = next_expiry.map(|at| at.saturating_duration_since(Instant::now()));
        [until_due, until_expiry].into_iter().flatten().min().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }
}
