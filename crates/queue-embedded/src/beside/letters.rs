//! Dead letters: reading them, and sending them again.

use futures::future::BoxFuture;
use queue::{DeadLetter, DeadLetters, DeadQuery, DeadReason, QueueError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::beside::{Beside, writing};
use crate::file::failure::reading;
use crate::file::rows::{EVENT, event, signed, time, unknown, unsigned};

impl DeadLetters for Beside {
    fn list(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<DeadLetter>, QueueError>> {
        self.read(move |sql| list(sql, &query).map_err(reading))
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, QueueError>> {
        self.read(move |sql| {
            let query = DeadQuery { after: id.saturating_sub(1), limit: 1, ..DeadQuery::default() };
            let found = list(sql, &query).map_err(reading)?.pop().filter(|letter| letter.id == id);
            found.ok_or_else(|| not_found(id))
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueueError>> {
        self.read(|sql| count(sql).map_err(reading))
    }

    fn redrive<'a>(&'a self, id: u64, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, now| redrive(sql, id, &route, now))
    }

    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, _| {
            let gone =
                sql.execute("DELETE FROM dead_letters WHERE id = ?1", [signed(id)]).map_err(writing)?;
            if gone == 0 { Err(not_found(id)) } else { Ok(()) }
        })
    }
}

fn not_found(id: u64) -> QueueError {
    QueueError::NotFound(format!("dead letter {id}"))
}

fn list(sql: &Connection, query: &DeadQuery) -> rusqlite::Result<Vec<DeadLetter>> {
    let text = format!(
        "SELECT l.id, l.route, l.reason, l.detail, l.attempts, l.at, l.redrive, {EVENT}
         FROM dead_letters l JOIN events e USING (position) JOIN bodies b USING (position)
         WHERE l.id > ?1 AND (?2 IS NULL OR l.route = ?2) AND (?3 IS NULL OR l.route <> ?3)
           AND (?4 IS NULL OR e.entity_ref = ?4 OR e.root_entity_ref = ?4)
         ORDER BY l.id LIMIT ?5"
    );
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    sql.prepare(&text)?
        .query_map(
            params![signed(query.after), query.route, query.not_route, query.reference, limit],
            dead_letter,
        )?
        .filter_map(Result::transpose)
        .collect()
}

/// `None` for an event that no longer matches its digest; the tail reader
/// reports those.
fn dead_letter(row: &Row<'_>) -> rusqlite::Result<Option<DeadLetter>> {
    let Ok(event) = event(row, 7)? else { return Ok(None) };
    Ok(Some(DeadLetter {
        id: unsigned(row.get(0)?),
        route: row.get(1)?,
        event,
        reason: DeadReason::from_name(row.get_ref(2)?.as_str()?).ok_or_else(|| unknown(2))?,
        detail: row.get(3)?,
        attempts: row.get(4)?,
        at: time(row, 5)?,
        redrive: row.get(6)?,
    }))
}

fn count(sql: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    sql.prepare("SELECT route, count(*) FROM dead_letters GROUP BY route ORDER BY route")?
        .query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
        .collect()
}

fn redrive(sql: &Connection, id: u64, route: &str, now: i64) -> Result<(), QueueError> {
    let position: Option<i64> = sql
        .query_row(
            "SELECT position FROM dead_letters JOIN bodies USING (position) WHERE id = ?1",
            [signed(id)],
            |row| row.get(0),
        )
        .optional()
        .map_err(writing)?;
    let position = position.ok_or_else(|| not_found(id))?;
    let target: Option<i64> = sql
        .query_row("SELECT id FROM routes WHERE name = ?1", [route], |row| row.get(0))
        .optional()
        .map_err(writing)?;
    let target =
        target.ok_or_else(|| QueueError::NotFound(format!("route {route} that a dispatcher has served")))?;
    let number = next_redrive(sql, target, route, position).map_err(writing)?;
    sql.execute(
        "INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
         VALUES (?1, ?2, ?3, 0, 0, ?4, ?4)",
        params![target, position, number, now],
    )
    .map_err(writing)?;
    sql.execute("DELETE FROM dead_letters WHERE id = ?1", [signed(id)]).map_err(writing).map(drop)
}

/// The first number that this event has not had on this route.
fn next_redrive(sql: &Connection, id: i64, route: &str, position: i64) -> rusqlite::Result<i64> {
    sql.query_row(
        "SELECT 1 + max(
            coalesce((SELECT max(redrive) FROM attempts WHERE position = ?3 AND route = ?2), 0),
            coalesce((SELECT max(redrive) FROM deliveries WHERE position = ?3 AND route = ?1), 0),
            coalesce((SELECT max(redrive) FROM dead_letters WHERE position = ?3 AND route = ?2), 0))",
        params![id, route, position],
        |row| row.get(0),
    )
}
