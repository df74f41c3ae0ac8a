//! Removes what every route has settled, and nothing else.

use std::time::{Duration, Instant};

use queue::UNROUTED;
use rusqlite::{Connection, TransactionBehavior, params};

use crate::file::refs;
use crate::file::rows::{signed, unsigned};
use crate::file::schema::{COMPLETE_SINCE, meta, set_meta};
use crate::options::Options;

/// Rows looked at in one pass: a publish waits a few milliseconds for it.
const CHUNK: usize = 256;

/// How often to look again at what dead letters kept: they may be gone.
const FROM_THE_START: Duration = Duration::from_mins(10);

/// How far each pass has come. Positions rise with time, so a pass ends at the
/// first row that is too young, and the next begins there.
#[derive(Debug)]
pub(crate) struct Trimmer {
    bodies_after: i64,
    ids_after: i64,
    began: Instant,
}

/// What may go in this pass.
struct Limits {
    /// Every route has finished with everything up to here.
    floor: i64,
    /// Bodies of events that arrived before this.
    bodies_before: i64,
    /// Ids of events that arrived before this.
    ids_before: i64,
}

impl Trimmer {
    pub(crate) fn new(now: Instant) -> Self {
        Self { bodies_after: 0, ids_after: 0, began: now }
    }

    /// Removes one chunk of what may go; `true` if there may be more.
    ///
    /// Bodies go by age, or by size when `over` the limit; ids stay for the
    /// deduplication window. What a dead letter needs stays with it.
    pub(crate) fn trim(
        &mut self,
        sql: &mut Connection,
        options: &Options,
        now: i64,
        over: bool,
    ) -> rusqlite::Result<bool> {
        if self.began.elapsed() >= FROM_THE_START {
            *self = Self::new(Instant::now());
        }
        let (age, window) = (options.retention.age, options.dedup_window);
        // The write lock first: a redrive must not come between looking and removing.
        let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let limits = Limits {
            floor: signed(settled_up_to(&transaction)?),
            bodies_before: if over { i64::MAX } else { before(now, age) },
            ids_before: before(now, if over { window } else { age.max(window) }),
        };
        let bodies = self.trim_bodies(&transaction, &limits)?;
        let ids = self.trim_ids(&transaction, &limits)?;
        transaction.prepare_cached("DELETE FROM gaps WHERE position <= ?1")?.execute([limits.floor])?;
        transaction.commit()?;
        Ok(bodies || ids)
    }

    fn trim_bodies(&mut self, sql: &Connection, limits: &Limits) -> rusqlite::Result<bool> {
        let rows = pass(
            sql,
            "SELECT b.position, e.received_at,
                EXISTS (SELECT 1 FROM dead_letters d WHERE d.position = b.position AND d.route <> ?4)
             FROM bodies b CROSS JOIN events e USING (position)
             WHERE b.position > ?1 AND b.position <= ?2 ORDER BY b.position LIMIT ?3",
            self.bodies_after,
            limits.floor,
        )?;
        let mut removed = None;
        let old = rows.iter().take_while(|row| row.received_at < limits.bodies_before);
        for row in old.clone() {
            if !row.is_needed {
                remove_body(sql, row.position)?;
                removed = removed.max(Some(row.received_at));
            }
            self.bodies_after = row.position;
        }
        if let Some(removed) = removed {
            let known: Option<i64> = meta(sql, COMPLETE_SINCE)?;
            set_meta(sql, COMPLETE_SINCE, known.max(Some(removed + 1)))?;
        }
        Ok(old.count() == CHUNK)
    }

    fn trim_ids(&mut self, sql: &Connection, limits: &Limits) -> rusqlite::Result<bool> {
        let rows = pass(
            sql,
            "SELECT e.position, e.received_at,
                ?4 <> '' AND EXISTS (SELECT 1 FROM bodies b WHERE b.position = e.position)
             FROM events e WHERE e.position > ?1 AND e.position <= ?2 ORDER BY e.position LIMIT ?3",
            self.ids_after,
            limits.floor,
        )?;
        for row in &rows {
            if row.received_at >= limits.ids_before {
                return Ok(false);
            }
            if !row.is_needed {
                remove_id(sql, row.position)?;
            }
            self.ids_after = row.position;
        }
        Ok(rows.len() == CHUNK)
    }
}

struct Seen {
    position: i64,
    received_at: i64,
    is_needed: bool,
}

fn pass(sql: &Connection, text: &str, after: i64, floor: i64) -> rusqlite::Result<Vec<Seen>> {
    sql.prepare_cached(text)?
        .query_map(params![after, floor, CHUNK as i64, UNROUTED], |row| {
            Ok(Seen { position: row.get(0)?, received_at: row.get(1)?, is_needed: row.get(2)? })
        })?
        .collect()
}

fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// The newest position that every route has finished with; routes that are no
/// longer in settings count until they are forgotten.
pub(crate) fn settled_up_to(sql: &Connection) -> rusqlite::Result<u64> {
    let (cursor, oldest): (Option<i64>, Option<i64>) = sql
        .prepare_cached(
            "SELECT min(r.cursor), min((SELECT min(d.position) FROM deliveries d WHERE d.route = r.id)) FROM routes r",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let cursor = unsigned(cursor.unwrap_or(0));
    Ok(oldest.map_or(cursor, |oldest| cursor.min(unsigned(oldest).saturating_sub(1))))
}

fn remove_body(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM bodies WHERE position = ?1")?.execute([position])?;
    // What no route matched is kept as long as its event, not longer.
    sql.prepare_cached("DELETE FROM dead_letters WHERE position = ?1")?.execute([position]).map(drop)
}

fn remove_id(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM events WHERE position = ?1")?.execute([position])?;
    refs::remove(sql, position)?;
    sql.prepare_cached("DELETE FROM attempts WHERE position = ?1")?.execute([position])?;
    note_removed(sql, position)
}

/// Remembers that there was an event at this position, which is never given again.
pub(crate) fn note_removed(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    let known: Option<i64> = meta(sql, "removed_up_to")?;
    // A redriven dead letter's id goes later than its neighbours' did.
    set_meta(sql, "removed_up_to", known.unwrap_or(0).max(position))
}
