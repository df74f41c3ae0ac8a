//! Retention: removes events that every route has settled, and nothing else.

use std::time::Duration;

use queue::UNROUTED;
use rusqlite::{Connection, TransactionBehavior, params};
use sqlite_file::rows::{signed, unsigned};
use sqlite_file::{meta, set_meta};

use crate::file::refs;
use crate::file::schema::{COMPLETE_SINCE, last_position};
use crate::options::{ID_BYTES, IDS_SHARE, Options};
use crate::writing::queue_time::QueueTime;

/// Number of rows examined in one pass, for which a publish waits a few milliseconds.
const CHUNK: usize = 256;

/// Time for which Fluent may send an event again: younger ids stay, whatever space they take.
const SENT_AGAIN: Duration = Duration::from_hours(27);

/// The key of `meta` with the position up to which only ids of settled events are left.
const IDS_ALONE: &str = "ids_alone_up_to";

/// The key of `meta` with the position up to which ids were removed early.
const WENT_EARLY: &str = "ids_went_early_up_to";

/// The key of `meta` with the position up to which the pass over bodies has come. The trigger
/// `delivery_freed` reads it.
const BODIES_EXAMINED: &str = "bodies_examined_up_to";

/// Whether a route still needs the event of `b`: it has failed there, or waits for an attempt. Of
/// each there may be many, among events that are settled, so each is passed over by itself.
const IS_NEEDED: &str =
    "(EXISTS (SELECT 1 FROM dead_letters l WHERE l.position = b.position AND l.route <> ?4)
        OR EXISTS (SELECT 1 FROM deliveries d WHERE d.position = b.position))";

/// Position that each pass has reached in this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trimmer {
    bodies_after: i64,
    ids_after: i64,
}

/// Positions up to which this pass may remove something: every route has read them.
#[derive(Debug)]
struct Limits {
    bodies: i64,
    ids: i64,
    /// The clock's time: an event that is stamped with a later time is not believed.
    now: i64,
}

impl Trimmer {
    /// Removes one chunk of what may go; `true` if there may be more.
    ///
    /// Bodies are removed by age, or by size if `over` the limit; ids stay for the dedup window.
    /// What a dead letter or a delivery needs stays with it. If that does not make room, everything
    /// but the ids of settled events is removed, and then the oldest ids of events that Fluent no
    /// longer sends.
    pub(crate) fn trim(
        &mut self,
        sql: &mut Connection,
        options: &Options,
        time: QueueTime,
        now: i64,
        over: bool,
    ) -> rusqlite::Result<bool> {
        // Takes the write lock first: a redrive must not come between examining and removing.
        let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // What a transaction that fails has passed is not passed.
        let mut passed = *self;
        let more = passed.trim_chunk(&transaction, options, time, now, over)?;
        transaction.commit()?;
        *self = passed;
        Ok(more)
    }

    fn trim_chunk(
        &mut self,
        sql: &Connection,
        options: &Options,
        time: QueueTime,
        now: i64,
        over: bool,
    ) -> rusqlite::Result<bool> {
        let age = options.retention.age;
        let window = options.dedup_window;
        time.mark(sql, signed(last_position(sql)?), age.min(window), now)?;
        let floor = signed(read_up_to(sql)?);
        let of_age = |age| {
            time.position_of_age(sql, age)
                .map(|position| position.min(floor))
        };
        let limits = Limits {
            bodies: if over { floor } else { of_age(age)? },
            ids: of_age(if over { window } else { age.max(window) })?,
            now,
        };
        let mut more = self.trim_freed(sql, &limits)?;
        more |= self.trim_bodies(sql, &limits)?;
        more |= self.trim_ids(sql, &limits)?;
        if over && !more {
            more = leave_ids_alone(sql, floor)?;
        }
        if over && !more && self.ids_held(sql)? * ID_BYTES > options.retention.bytes / IDS_SHARE {
            more = self.trim_ids_early(sql, of_age(window.min(SENT_AGAIN))?)?;
        }
        Ok(more)
    }

    fn trim_bodies(&mut self, sql: &Connection, limits: &Limits) -> rusqlite::Result<bool> {
        let rows = pass(sql, &bodies(), self.bodies_after, limits.bodies)?;
        remove_bodies(sql, &rows, limits.now)?;
        if let Some(last) = rows.last() {
            self.bodies_after = last.position;
            set_meta(sql, BODIES_EXAMINED, last.position)?;
        }
        Ok(rows.len() == CHUNK)
    }

    fn trim_ids(&mut self, sql: &Connection, limits: &Limits) -> rusqlite::Result<bool> {
        let rows = ids(sql, self.ids_after, limits.ids)?;
        rows.iter()
            .filter(|row| !row.is_needed)
            .try_for_each(|row| remove_id(sql, row.position))?;
        let is_full = rows.len() == CHUNK;
        // Also if nothing is left, as after a process before this one.
        let passed = if is_full {
            rows[CHUNK - 1].position
        } else {
            limits.ids
        };
        self.ids_after = self.ids_after.max(passed);
        QueueTime::forget_up_to(sql, self.ids_after)?;
        Ok(is_full)
    }

    /// Removes events that were passed over because of a dead letter or a delivery that is gone now.
    fn trim_freed(&mut self, sql: &Connection, limits: &Limits) -> rusqlite::Result<bool> {
        // Events that no pass has reached yet were not passed over.
        sql.prepare_cached("DELETE FROM freed WHERE position > ?1")?
            .execute([self.bodies_after])?;
        let rows = pass(sql, &freed(), 0, limits.bodies)?;
        remove_bodies(sql, &rows, limits.now)?;
        let ids_alone: i64 = meta(sql, IDS_ALONE)?.unwrap_or(0);
        for row in &rows {
            if !row.is_needed {
                if row.position <= ids_alone {
                    leave_id_alone(sql, row.position)?;
                }
                self.free_id(sql, row.position, limits)?;
            }
            // What needs the event again frees it again when it ends.
            sql.prepare_cached("DELETE FROM freed WHERE position = ?1")?
                .execute([row.position])?;
        }
        Ok(rows.len() == CHUNK || trim_freed_ids(sql, limits)?)
    }

    /// Removes the id of an event that was passed over, or notes that it has to go later. If its
    /// pass is still to come, that does it.
    fn free_id(&self, sql: &Connection, position: i64, limits: &Limits) -> rusqlite::Result<()> {
        if position > self.ids_after {
            return Ok(());
        }
        if position <= limits.ids {
            return remove_id(sql, position);
        }
        sql.prepare_cached("INSERT OR IGNORE INTO freed_ids VALUES (?1)")?
            .execute([position])
            .map(drop)
    }

    /// Removes the oldest ids early, if ids are what fills the file. If unsettled events fill it,
    /// the queue is full.
    fn trim_ids_early(&self, sql: &Connection, up_to: i64) -> rusqlite::Result<bool> {
        let rows = ids(sql, self.ids_removed_up_to(sql)?, up_to)?;
        let Some(last) = rows.last() else {
            return Ok(false);
        };
        rows.iter()
            .filter(|row| !row.is_needed)
            .try_for_each(|row| remove_id(sql, row.position))?;
        set_meta(sql, WENT_EARLY, last.position)?;
        Ok(true)
    }

    /// Position up to which ids are removed, except those of dead letters.
    fn ids_removed_up_to(&self, sql: &Connection) -> rusqlite::Result<i64> {
        let first: Option<i64> = sql
            .prepare_cached("SELECT min(position) FROM events")?
            .query_row([], |row| row.get(0))?;
        let before_first = first.map_or(0, |first| first - 1);
        Ok(self
            .ids_after
            .max(before_first)
            .max(meta(sql, WENT_EARLY)?.unwrap_or(0)))
    }

    /// Number of ids whose events are gone, except those that were passed over for the sake of an
    /// event that went later.
    pub(crate) fn ids_held(&self, sql: &Connection) -> rusqlite::Result<u64> {
        sql.prepare_cached(
            "SELECT coalesce((SELECT sum(last - first + 1) FROM gaps WHERE first > ?1), 0)
                + max(0, coalesce((SELECT last FROM gaps WHERE first <= ?1 ORDER BY first DESC LIMIT 1), 0) - ?1)",
        )?
        .query_row([self.ids_removed_up_to(sql)?], |row| row.get(0))
        .map(unsigned)
    }
}

/// Time for which ids are known, if it is shorter than the window because room was needed.
pub(crate) fn ids_known_for(
    sql: &Connection,
    time: QueueTime,
    window: Duration,
) -> rusqlite::Result<Option<Duration>> {
    let Some(went) = meta::<i64>(sql, WENT_EARLY)? else {
        return Ok(None);
    };
    let age = time.age_of(sql, went)?;
    Ok(Some(age).filter(|age| *age < window))
}

#[derive(Debug)]
struct EventRow {
    position: i64,
    received_at: i64,
    is_needed: bool,
}

fn pass(sql: &Connection, text: &str, after: i64, up_to: i64) -> rusqlite::Result<Vec<EventRow>> {
    sql.prepare_cached(text)?
        .query_map(params![after, up_to, CHUNK as i64, UNROUTED], |row| {
            Ok(EventRow {
                position: row.get(0)?,
                received_at: row.get(1)?,
                is_needed: row.get(2)?,
            })
        })?
        .collect()
}

/// The query of [`pass`] over bodies.
fn bodies() -> String {
    format!(
        "SELECT b.position, e.received_at, {IS_NEEDED}
         FROM bodies b CROSS JOIN events e USING (position)
         WHERE b.position > ?1 AND b.position <= ?2 ORDER BY b.position LIMIT ?3"
    )
}

/// The query of [`pass`] over what was passed over before.
fn freed() -> String {
    format!(
        "SELECT b.position, coalesce(e.received_at, 0), {IS_NEEDED}
         FROM freed b LEFT JOIN events e USING (position)
         WHERE b.position > ?1 AND b.position <= ?2 ORDER BY b.position LIMIT ?3"
    )
}

fn ids(sql: &Connection, after: i64, up_to: i64) -> rusqlite::Result<Vec<EventRow>> {
    pass(
        sql,
        "SELECT e.position, e.received_at,
            ?4 <> '' AND EXISTS (SELECT 1 FROM bodies b WHERE b.position = e.position)
         FROM events e WHERE e.position > ?1 AND e.position <= ?2 ORDER BY e.position LIMIT ?3",
        after,
        up_to,
    )
}

/// The newest position that every route has read: up to there an event is settled, unless it has a
/// delivery or a dead letter. Routes that are no longer in settings count until they are forgotten.
pub(crate) fn read_up_to(sql: &Connection) -> rusqlite::Result<u64> {
    sql.prepare_cached("SELECT coalesce(min(cursor), 0) FROM routes")?
        .query_row([], |row| row.get(0))
        .map(unsigned)
}

fn remove_bodies(sql: &Connection, rows: &[EventRow], now: i64) -> rusqlite::Result<()> {
    let mut newest = None;
    for row in rows.iter().filter(|row| !row.is_needed) {
        remove_body(sql, row.position)?;
        // An event that is stamped with a future time does not tell when events came.
        newest = newest.max(Some(row.received_at).filter(|at| *at <= now));
    }
    if let Some(newest) = newest {
        let known: Option<i64> = meta(sql, COMPLETE_SINCE)?;
        if known.is_none_or(|known| known <= newest) {
            set_meta(sql, COMPLETE_SINCE, newest + 1)?;
        }
    }
    Ok(())
}

fn remove_body(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM bodies WHERE position = ?1")?
        .execute([position])?;
    // A dead letter of `unrouted` is stored as long as its event, not longer.
    sql.prepare_cached("DELETE FROM dead_letters WHERE position = ?1")?
        .execute([position])
        .map(drop)
}

/// Removes everything but the ids of a chunk of events whose bodies are gone.
fn leave_ids_alone(sql: &Connection, floor: i64) -> rusqlite::Result<bool> {
    let rows = ids(sql, meta(sql, IDS_ALONE)?.unwrap_or(0), floor)?;
    let Some(last) = rows.last() else {
        return Ok(false);
    };
    rows.iter()
        .filter(|row| !row.is_needed)
        .try_for_each(|row| leave_id_alone(sql, row.position))?;
    set_meta(sql, IDS_ALONE, last.position)?;
    Ok(rows.len() == CHUNK)
}

/// Removes everything of an event but its id.
fn leave_id_alone(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    remove_history(sql, position)?;
    sql.prepare_cached(
        "UPDATE events SET key = '', signature = x'', trace = NULL, entity_ref = NULL, root_entity_ref = NULL
         WHERE position = ?1",
    )?
    .execute([position])
    .map(drop)
}

/// Removes ids of [`Trimmer::free_id`] that have their age.
fn trim_freed_ids(sql: &Connection, limits: &Limits) -> rusqlite::Result<bool> {
    let positions: Vec<i64> = sql
        .prepare_cached("SELECT position FROM freed_ids WHERE position <= ?1 LIMIT ?2")?
        .query_map(params![limits.ids, CHUNK as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for position in &positions {
        remove_id(sql, *position)?;
        sql.prepare_cached("DELETE FROM freed_ids WHERE position = ?1")?
            .execute([position])?;
    }
    Ok(positions.len() == CHUNK)
}

fn remove_id(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM events WHERE position = ?1")?
        .execute([position])?;
    remove_history(sql, position)?;
    note_removed(sql, position)
}

fn remove_history(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    refs::remove(sql, position)?;
    sql.prepare_cached("DELETE FROM attempts WHERE position = ?1")?
        .execute([position])
        .map(drop)
}

/// Records that there was an event at this position, so that the position is never assigned
/// again.
pub(crate) fn note_removed(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    let known: Option<i64> = meta(sql, "removed_up_to")?;
    // The id of a redriven dead letter is removed later than its neighbours.
    set_meta(sql, "removed_up_to", known.unwrap_or(0).max(position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::plan;

    /// A million deliveries may wait.
    #[test]
    fn a_pass_searches_for_what_needs_an_event_and_scans_nothing() {
        for query in [bodies(), freed()] {
            let plan = plan(&query).join("\n");
            assert!(
                plan.contains("SEARCH d USING COVERING INDEX deliveries_by_position (position=?)"),
                "{plan}"
            );
            assert!(!plan.contains("SCAN"), "{plan}");
        }
    }
}
