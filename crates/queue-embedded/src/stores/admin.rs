//! The stores' entry points for operators: health, routes, pauses, replays, beside the process
//! that serves the file.

use std::sync::Arc;

use event_model::{Event, EventId};
use futures::future::BoxFuture;
use queue::{
    DeadLetters, FactAccess, FactStore, History, Pause, Position, Quarantine, QueueError,
    RejectedStore, ReplayOutcome, RouteState, StoreUsage, Stores, StoresHealth,
};
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::rows::{prefix, unsigned};
use sqlite_file::{beyond_a_checkpoint, reading};

use crate::file::needed::needed;
use crate::file::redrives::take_number;
use crate::file::routes::{ask_again, set_pause};
use crate::stores::attempts::ReplayTerms;
use crate::stores::connections::{SqliteStores, Stamp, writing};
use crate::stores::{attempts, quarantined, routes, same_ids};

/// Approximate bytes of events that may not be removed yet: their share of all bodies, by number. A
/// sum would have to read all bodies. It is too high where routes wait for the same events, and
/// never more than the whole file.
fn needed_bytes(sql: &Connection) -> rusqlite::Result<u64> {
    let of_pages =
        |pragma: &str| sql.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let used = (of_pages("page_count")? - of_pages("freelist_count")?) * of_pages("page_size")?;
    let all = sql.query_row("SELECT bodies FROM body_count", [], |row| row.get(0))?;
    let all = unsigned(all);
    let needed = needed(sql)?;
    let some = (needed.unread + needed.deliveries + needed.letters).min(all);
    let share = u128::from(unsigned(used)) * u128::from(some) / u128::from(all.max(1));
    Ok(u64::try_from(share).unwrap_or(u64::MAX))
}

impl FactAccess for SqliteStores {
    fn facts(&self) -> &dyn FactStore {
        self
    }
}

impl Stores for SqliteStores {
    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn quarantine(&self) -> &dyn Quarantine {
        self
    }

    fn history(&self) -> &dyn History {
        self
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        let path = Arc::clone(&self.path);
        let stamps = self.stamps();
        self.read_apart(move |sql| {
            let stamp = stamps(sql).map_err(reading)?;
            let usage = vec![StoreUsage {
                name: "the queue".to_owned(),
                used: needed_bytes(sql).map_err(reading)? + beyond_a_checkpoint(&path),
                limit: None,
                has_settled: false,
            }];
            Ok(StoresHealth {
                servers: Vec::new(),
                usage,
                same_ids_known_for: same_ids::known_for(sql, stamp.age).map_err(reading)?,
            })
        })
    }

    fn publish_if_new(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        self.write(move |sql, _| quarantined::publish_once(sql, &event))
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.read_apart(|sql| routes::states(sql).map_err(reading))
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, _| forget(sql, &route))
    }

    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        let route = route.to_owned();
        let pause = pause.cloned();
        self.write(move |sql, _| {
            let is_there = set_pause(sql, &route, pause.as_ref()).map_err(writing)?;
            if is_there {
                Ok(())
            } else {
                Err(no_route(&route))
            }
        })
    }

    fn retry_now<'a>(
        &'a self,
        route: &'a str,
        event: EventId,
    ) -> BoxFuture<'a, Result<u64, QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, Stamp { now, .. }| {
            let id = id_of(sql, &route)?;
            let made_due = sql.execute(
                "UPDATE deliveries SET at = ?3 WHERE route = ?1 AND in_flight = 0 AND at > ?3
                 AND position IN (SELECT position FROM events WHERE prefix = ?4 AND id = ?2)",
                params![id, event.as_bytes(), now, prefix(&event)],
            );
            made_due.map(|count| count as u64).map_err(writing)
        })
    }

    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, Stamp { now, .. }| {
            let is_there = ask_again(sql, &route, now).map_err(writing)?;
            if is_there {
                Ok(())
            } else {
                Err(no_route(&route))
            }
        })
    }

    fn refused(&self) -> &dyn RejectedStore {
        self
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.replay_numbered(route, events, again, None)
    }

    fn preview_replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        let route = route.to_owned();
        let positions: Vec<_> = events.iter().map(|(position, _)| *position).collect();
        self.read(move |sql| {
            let found = attempts::preview_replay(sql, &route, &positions, again);
            found.map_err(reading)?.ok_or_else(|| no_route(&route))
        })
    }

    fn number_replay<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<u32, QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, _| {
            id_of(sql, &route)?;
            take_number(sql).map_err(writing)
        })
    }

    fn replay_as<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
        number: u32,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.replay_numbered(route, events, again, Some(number))
    }
}

impl SqliteStores {
    fn replay_numbered(
        &self,
        route: &str,
        events: &[(Position, Event)],
        again: bool,
        number: Option<u32>,
    ) -> BoxFuture<'static, Result<Vec<ReplayOutcome>, QueueError>> {
        let route = route.to_owned();
        let positions: Vec<_> = events.iter().map(|(position, _)| *position).collect();
        let terms = ReplayTerms { again, number };
        self.write(move |sql, Stamp { now, .. }| {
            let replayed = attempts::replay(sql, &route, &positions, terms, now);
            replayed.map_err(writing)?.ok_or_else(|| no_route(&route))
        })
    }
}

fn no_route(route: &str) -> QueueError {
    QueueError::NotFound(format!("route {route}"))
}

fn id_of(sql: &Connection, route: &str) -> Result<i64, QueueError> {
    let id: Option<i64> = sql
        .query_row("SELECT id FROM routes WHERE name = ?1", [route], |row| {
            row.get(0)
        })
        .optional()
        .map_err(writing)?;
    id.ok_or_else(|| no_route(route))
}

/// Gives up a route's position. Its deliveries are removed in chunks by the process that serves
/// the file.
fn forget(sql: &Connection, route: &str) -> Result<(), QueueError> {
    let gone = sql
        .execute("DELETE FROM routes WHERE name = ?1", [route])
        .map_err(writing)?;
    if gone == 1 {
        Ok(())
    } else {
        Err(no_route(route))
    }
}
