//! Removes what every route has settled, and nothing else.

use std::time::Duration;

use queue::UNROUTED;
use rusqlite::{Connection, OptionalExtension, params};

use crate::options::Options;
use crate::rows::{signed, unsigned};
use crate::schema::set_meta;

/// Events removed in one transaction: a publish waits a few milliseconds for it.
const CHUNK: i64 = 256;

/// Removes one chunk of what may go; `true` if there may be more.
///
/// Bodies go by age, or by size when `over` the limit; ids stay for the
/// deduplication window. What a dead letter needs stays with it.
pub(crate) fn trim(sql: &mut Connection, options: &Options, now: i64, over: bool) -> rusqlite::Result<bool> {
    let floor = signed(settled_up_to(sql)?);
    let age = options.retention.age;
    let bodies = bodies_to_remove(sql, floor, if over { i64::MAX } else { before(now, age) })?;
    let kept = age.max(options.dedup_window);
    let ids = ids_to_remove(sql, floor, before(now, if over { options.dedup_window } else { kept }))?;
    if bodies.is_empty() && ids.is_empty() {
        return Ok(false);
    }
    let transaction = sql.transaction()?;
    for position in &bodies {
        remove_body(&transaction, *position)?;
    }
    for position in &ids {
        remove_id(&transaction, *position)?;
    }
    if let Some(newest) = ids.iter().max() {
        set_meta(&transaction, "removed_up_to", newest)?;
    }
    transaction.commit()?;
    Ok([bodies.len(), ids.len()].contains(&(CHUNK as usize)))
}

fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// The newest position that every route has finished with; routes that are no
/// longer in settings count until they are forgotten.
fn settled_up_to(sql: &Connection) -> rusqlite::Result<u64> {
    let cursor: Option<i64> = sql.query_row("SELECT min(cursor) FROM routes", [], |row| row.get(0))?;
    let oldest: Option<i64> =
        sql.query_row("SELECT min(position) FROM deliveries", [], |row| row.get(0)).optional()?.flatten();
    let cursor = unsigned(cursor.unwrap_or(0));
    Ok(oldest.map_or(cursor, |oldest| cursor.min(unsigned(oldest).saturating_sub(1))))
}

fn bodies_to_remove(sql: &Connection, floor: i64, older: i64) -> rusqlite::Result<Vec<i64>> {
    sql.prepare_cached(
        "SELECT b.position FROM bodies b CROSS JOIN events e USING (position)
         WHERE b.position <= ?1 AND e.received_at < ?2
           AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.position = b.position AND d.route <> ?3)
         ORDER BY b.position LIMIT ?4",
    )?
    .query_map(params![floor, older, UNROUTED, CHUNK], |row| row.get(0))?
    .collect()
}

fn ids_to_remove(sql: &Connection, floor: i64, older: i64) -> rusqlite::Result<Vec<i64>> {
    sql.prepare_cached(
        "SELECT e.position FROM events e
         WHERE e.position <= ?1 AND e.received_at < ?2
           AND NOT EXISTS (SELECT 1 FROM bodies b WHERE b.position = e.position)
         ORDER BY e.position LIMIT ?3",
    )?
    .query_map(params![floor, older, CHUNK], |row| row.get(0))?
    .collect()
}

fn remove_body(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM bodies WHERE position = ?1")?.execute([position])?;
    // What no route matched is kept as long as its event, not longer.
    sql.prepare_cached("DELETE FROM dead_letters WHERE position = ?1")?.execute([position]).map(drop)
}

fn remove_id(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM events WHERE position = ?1")?.execute([position])?;
    sql.prepare_cached("DELETE FROM attempts WHERE position = ?1")?.execute([position]).map(drop)
}
