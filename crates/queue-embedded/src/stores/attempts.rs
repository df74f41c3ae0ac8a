//! Ended attempts, read page by page, and replays of events.

use std::time::Duration;

use event_model::EventId;
use queue::{
    Attempt, AttemptPage, AttemptQuery, EndedAttempt, EventSummary, Outcome, PAGE_BYTES, Position,
    ReceivedPage, ReceivedQuery, ReplayOutcome, StoryStep,
};
use rusqlite::{Connection, Row, params};
use sqlite_file::rows::{
    EVENT, event, nanos, packed, position_at, signed, time, unknown, unsigned,
};

use crate::file::redrives::{hand_over, hand_over_as, known_route};

/// Number of rows read at once.
const PAGE: usize = 500;

/// Largest number of pages read for one request: its connection is shared with other readers.
const PAGES: usize = 20;

/// The end of an attempt, which is indexed.
const END: &str = "a.started_at + a.took";

/// Reads an attempt whose columns begin at `first`: route, redrive, attempt, started_at, took,
/// outcome, status, detail.
pub(crate) fn step(row: &Row<'_>, first: usize) -> rusqlite::Result<StoryStep> {
    let outcome = Outcome::from_name(row.get_ref(first + 5)?.as_str()?);
    let record = Attempt {
        started_at: time(row, first + 3)?,
        took: Duration::from_nanos(unsigned(row.get(first + 4)?)),
        outcome: outcome.ok_or_else(|| unknown(first + 5))?,
        status: row.get(first + 6)?,
        detail: row.get(first + 7)?,
    };
    Ok(StoryStep {
        route: row.get(first)?,
        redrive: row.get(first + 1)?,
        attempt: row.get(first + 2)?,
        record,
    })
}

pub(crate) fn list(sql: &Connection, query: &AttemptQuery) -> rusqlite::Result<AttemptPage> {
    let mut page = AttemptPage::default();
    let mut before = query.before.map_or(i64::MAX, signed);
    for _ in 0..PAGES {
        let found = ended_before(sql, query, before)?;
        let Some((last, _)) = found.last() else {
            return Ok(AttemptPage { next: None, ..page });
        };
        before = *last;
        let taken = found
            .into_iter()
            .filter_map(|(_, attempt)| attempt.filter(|it| query.matches(it)));
        page.attempts.extend(taken);
        page.next = Some(unsigned(before));
        if page.attempts.len() >= query.limit {
            break;
        }
    }
    Ok(page)
}

/// One page, filtered by what the columns can decide. Rows that ended in the same nanosecond as
/// the last one are all in it, since the next page begins before that time.
fn ended_before(
    sql: &Connection,
    query: &AttemptQuery,
    before: i64,
) -> rusqlite::Result<Vec<(i64, Option<EndedAttempt>)>> {
    let since = query.since.map_or(i64::MIN, nanos);
    let before = before.min(query.until.map_or(i64::MAX, nanos));
    let route = &query.route;
    let outcome = query.outcome.map(Outcome::as_str);
    let which = format!(
        "{END} < ?1 AND {END} >= ?2 AND (?3 IS NULL OR a.route = ?3) AND (?4 IS NULL OR a.outcome = ?4)"
    );
    let ends = format!("SELECT {END} FROM attempts a WHERE {which} ORDER BY {END} DESC LIMIT ?5");
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let ends: Vec<i64> = sql
        .prepare_cached(&ends)?
        .query_map(params![before, since, route, outcome, limit], |row| {
            row.get(0)
        })?
        .collect::<Result<_, _>>()?;
    let Some(oldest) = ends.last() else {
        return Ok(Vec::new());
    };
    let text = format!(
        "SELECT {END}, a.route, a.redrive, a.attempt, a.started_at, a.took, a.outcome, a.status, a.detail, {EVENT}
         FROM attempts a LEFT JOIN events e USING (position) LEFT JOIN bodies b USING (position)
         WHERE {which} AND (?5 IS NULL OR e.entity_ref = ?5 OR e.root_entity_ref = ?5) ORDER BY {END} DESC"
    );
    let mut found: Vec<_> = sql
        .prepare_cached(&text)?
        .query_map(
            params![before, oldest, route, outcome, query.reference],
            |row| Ok((row.get(0)?, ended(row)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    // A row for the end of the page, also if its last row was not asked for.
    found.push((*oldest, None));
    Ok(found)
}

/// Makes an ended attempt of a row; `None` if its event is gone or damaged. Without its body, an
/// event has no name.
fn ended(row: &Row<'_>) -> rusqlite::Result<Option<EndedAttempt>> {
    let Some(id) = row.get_ref(9)?.as_blob_or_null()? else {
        return Ok(None);
    };
    let Ok(id) = EventId::from_bytes(id) else {
        return Ok(None);
    };
    let about = match row.get_ref(15)?.as_blob_or_null()? {
        None => EventSummary::default(),
        Some(_) => match event(row, 9)? {
            Ok(event) => EventSummary::of(&event),
            Err(_) => return Ok(None),
        },
    };
    // A page begins before a time.
    let end: i64 = row.get(0)?;
    Ok(Some(EndedAttempt {
        id,
        about,
        step: step(row, 1)?,
        place: unsigned(end.saturating_add(1)),
    }))
}

pub(crate) fn received(sql: &Connection, query: &ReceivedQuery) -> rusqlite::Result<ReceivedPage> {
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut statement = sql.prepare_cached(&received_between())?;
    let bounds = params![
        packed(query.after),
        nanos(query.from),
        nanos(query.until),
        limit
    ];
    let mut rows = statement.query(bounds)?;
    let mut page = ReceivedPage::default();
    let mut count = 0;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let position = position_at(row, 0)?;
        (page.next, count) = (Some(position), count + 1);
        if let Ok(event) = event(row, 1)? {
            bytes += event.body().len();
            page.events.push((position, event));
        }
        if bytes >= PAGE_BYTES {
            return Ok(page);
        }
    }
    page.next = page.next.filter(|_| count == query.limit);
    Ok(page)
}

/// The query of [`received`]. By bodies: there may be ten million ids without one.
fn received_between() -> String {
    format!(
        "SELECT e.position, {EVENT} FROM bodies b CROSS JOIN events e USING (position)
         WHERE b.position > ?1 AND e.received_at >= ?2 AND e.received_at < ?3 ORDER BY b.position LIMIT ?4"
    )
}

/// What is replayed, and under which number; without one each event gets one of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayTerms {
    pub(crate) again: bool,
    pub(crate) number: Option<u32>,
}

/// Replays each event, and returns each result; `None` for a route without a position here.
pub(crate) fn replay(
    sql: &Connection,
    route: &str,
    positions: &[Position],
    terms: ReplayTerms,
    now: i64,
) -> rusqlite::Result<Option<Vec<ReplayOutcome>>> {
    let Some(id) = known_route(sql, route)? else {
        return Ok(None);
    };
    let one = |position: &Position| {
        let position = packed(*position);
        if let Some(number) = terms.number
            && was_handed_over(sql, id, route, position, number)?
        {
            return Ok(ReplayOutcome::HandedOver);
        }
        let result = with_again(stands(sql, id, route, position)?, terms.again);
        if result == ReplayOutcome::HandedOver {
            match terms.number {
                Some(number) => hand_over_as(sql, id, route, position, number, now)?,
                None => hand_over(sql, id, route, position, false, now)?,
            }
        }
        Ok(result)
    };
    positions
        .iter()
        .map(one)
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

/// The results that a replay of each event would have; `None` for a route without a position here.
pub(crate) fn preview_replay(
    sql: &Connection,
    route: &str,
    positions: &[Position],
    again: bool,
) -> rusqlite::Result<Option<Vec<ReplayOutcome>>> {
    let Some(id) = known_route(sql, route)? else {
        return Ok(None);
    };
    positions
        .iter()
        .map(|position| {
            Ok(with_again(
                stands(sql, id, route, packed(*position))?,
                again,
            ))
        })
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

/// The result of a replay for an event with this state; with `again`, an end is no obstacle.
fn with_again(stands: ReplayOutcome, again: bool) -> ReplayOutcome {
    match stands {
        ReplayOutcome::Done | ReplayOutcome::Dead if again => ReplayOutcome::HandedOver,
        stands => stands,
    }
}

/// True if the route has the event under this number or a later one, or had it.
fn was_handed_over(
    sql: &Connection,
    id: i64,
    route: &str,
    position: i64,
    number: u32,
) -> rusqlite::Result<bool> {
    sql.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM deliveries WHERE route = ?1 AND position = ?3 AND redrive >= ?4)
            OR EXISTS (SELECT 1 FROM attempts WHERE position = ?3 AND route = ?2 AND redrive >= ?4)
            OR EXISTS (SELECT 1 FROM dead_letters WHERE position = ?3 AND route = ?2 AND redrive >= ?4)",
    )?
    .query_row(params![id, route, position, number], |row| row.get(0))
}

/// State of an event on a route; `HandedOver` if nothing prevents a replay.
fn stands(
    sql: &Connection,
    id: i64,
    route: &str,
    position: i64,
) -> rusqlite::Result<ReplayOutcome> {
    sql.prepare_cached(
        "SELECT NOT EXISTS (SELECT 1 FROM bodies WHERE position = ?3),
            (SELECT cursor < ?3 FROM routes WHERE id = ?1)
             OR EXISTS (SELECT 1 FROM deliveries WHERE route = ?1 AND position = ?3),
            EXISTS (SELECT 1 FROM dead_letters WHERE position = ?3 AND route = ?2),
            EXISTS (SELECT 1 FROM attempts WHERE position = ?3 AND route = ?2 AND outcome = 'done')",
    )?
    .query_row(params![id, route, position], |row| {
        let is = |column| row.get::<_, bool>(column);
        Ok(match (is(0)?, is(1)?, is(2)?, is(3)?) {
            (true, ..) => ReplayOutcome::Gone,
            (_, true, ..) => ReplayOutcome::Ahead,
            (_, _, true, _) => ReplayOutcome::Dead,
            (.., true) => ReplayOutcome::Done,
            _ => ReplayOutcome::HandedOver,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::plan;

    #[test]
    fn what_was_received_is_searched_by_its_body() {
        assert_eq!(
            plan(&received_between())[0],
            "SEARCH b USING INTEGER PRIMARY KEY (rowid>?)"
        );
    }
}
