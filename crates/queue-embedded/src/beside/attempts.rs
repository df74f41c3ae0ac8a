//! Attempts that have ended, and events to be replayed.

use queue::{About, AttemptPage, AttemptQuery, EndedAttempt, ReceivedPage, ReceivedQuery, Replayed};
use rusqlite::{Connection, Row, params};

use crate::beside::history::step;
use crate::beside::letters::{hand_over, known_route};
use crate::file::rows::{EVENT, event, nanos, signed, unsigned};

/// Rows read at once.
const PAGE: usize = 500;

/// What an attempt's end is looked up by.
const END: &str = "a.started_at + a.took";

pub(crate) fn list(sql: &Connection, query: &AttemptQuery) -> rusqlite::Result<AttemptPage> {
    let (mut page, mut before) = (AttemptPage::default(), query.before.map_or(i64::MAX, signed));
    loop {
        let found = ended_before(sql, query, before)?;
        let Some((last, _)) = found.last() else { return Ok(page) };
        before = *last;
        let taken = found.into_iter().filter_map(|(_, attempt)| attempt.filter(|it| query.takes(it)));
        page.attempts.extend(taken);
        if page.attempts.len() >= query.limit {
            page.next = Some(unsigned(before));
            return Ok(page);
        }
    }
}

/// One page of what the file itself can tell apart. What ended in the same nanosecond
/// as its last row is in it too: a page goes on before that.
fn ended_before(
    sql: &Connection,
    query: &AttemptQuery,
    before: i64,
) -> rusqlite::Result<Vec<(i64, Option<EndedAttempt>)>> {
    let since = query.since.map_or(i64::MIN, nanos);
    let before = before.min(query.until.map_or(i64::MAX, nanos));
    let ends =
        format!("SELECT {END} FROM attempts a WHERE {END} < ?1 AND {END} >= ?2 ORDER BY {END} DESC LIMIT ?3");
    let limit = i64::try_from(query.limit.clamp(1, PAGE)).unwrap_or(i64::MAX);
    let ends: Vec<i64> = sql
        .prepare_cached(&ends)?
        .query_map(params![before, since, limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let Some(oldest) = ends.last() else { return Ok(Vec::new()) };
    let text = format!(
        "SELECT {END}, a.route, a.redrive, a.attempt, a.started_at, a.took, a.outcome, a.status, a.detail, {EVENT}
         FROM attempts a LEFT JOIN events e USING (position) LEFT JOIN bodies b USING (position)
         WHERE {END} < ?1 AND {END} >= ?2 ORDER BY {END} DESC"
    );
    sql.prepare_cached(&text)?
        .query_map(params![before, oldest], |row| Ok((row.get(0)?, ended(row)?)))?
        .collect()
}

/// `None` where the event is gone or damaged.
fn ended(row: &Row<'_>) -> rusqlite::Result<Option<EndedAttempt>> {
    if row.get_ref(9)?.as_blob_or_null()?.is_none() || row.get_ref(15)?.as_blob_or_null()?.is_none() {
        return Ok(None);
    }
    let Ok(event) = event(row, 9)? else { return Ok(None) };
    Ok(Some(EndedAttempt { id: event.id(), about: About::of(&event), step: step(row, 1)? }))
}

pub(crate) fn received(sql: &Connection, query: &ReceivedQuery) -> rusqlite::Result<ReceivedPage> {
    let text = format!(
        "SELECT e.position, {EVENT} FROM events e JOIN bodies b USING (position)
         WHERE e.position > ?1 AND e.received_at >= ?2 AND e.received_at < ?3 ORDER BY e.position LIMIT ?4"
    );
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut statement = sql.prepare_cached(&text)?;
    let bounds = params![signed(query.after), nanos(query.from), nanos(query.until), limit];
    let mut rows = statement.query(bounds)?;
    let (mut page, mut count) = (ReceivedPage::default(), 0);
    while let Some(row) = rows.next()? {
        let position = unsigned(row.get(0)?);
        (page.next, count) = (Some(position), count + 1);
        if let Ok(event) = event(row, 1)? {
            page.events.push((position, event));
        }
    }
    page.next = page.next.filter(|_| count == query.limit);
    Ok(page)
}

/// What becomes of each; `None` for a route that has no position here.
pub(crate) fn replay(
    sql: &Connection,
    route: &str,
    positions: &[u64],
    again: bool,
    now: i64,
) -> rusqlite::Result<Option<Vec<Replayed>>> {
    let Some(id) = known_route(sql, route)? else { return Ok(None) };
    let one = |position: &u64| {
        let position = signed(*position);
        let (is_ahead, is_done) = stands(sql, id, route, position)?;
        Ok(match (is_ahead, is_done && !again) {
            (true, _) => Replayed::Ahead,
            (_, true) => Replayed::Done,
            _ => {
                hand_over(sql, id, route, position, now)?;
                Replayed::HandedOver
            }
        })
    };
    positions.iter().map(one).collect::<rusqlite::Result<_>>().map(Some)
}

/// Whether an event is still to come to a route, and whether that is done with it.
fn stands(sql: &Connection, id: i64, route: &str, position: i64) -> rusqlite::Result<(bool, bool)> {
    sql.prepare_cached(
        "SELECT (SELECT cursor < ?3 FROM routes WHERE id = ?1)
             OR EXISTS (SELECT 1 FROM deliveries WHERE route = ?1 AND position = ?3),
            EXISTS (SELECT 1 FROM attempts WHERE position = ?3 AND route = ?2 AND outcome = 'done')",
    )?
    .query_row(params![id, route, position], |row| Ok((row.get(0)?, row.get(1)?)))
}
