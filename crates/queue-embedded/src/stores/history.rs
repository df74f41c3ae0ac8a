//! The history of events and attempts in a queue file.

use event_model::{Event, Timestamp};
use futures::future::BoxFuture;
use queue::{
    AcceptedPage, AcceptedQuery, AttemptPage, AttemptQuery, DeadReason, EventStory, History,
    PAGE_BYTES, Position, QueueError, ReceivedPage, ReceivedQuery, SAME_IDS_SHOWN, SameIdEvent,
    StoryPage, StoryState, StoryStep,
};
use rusqlite::{Connection, Row, params};
use sqlite_file::rows::{self, EVENT, event, from_nanos, time, unknown, unsigned};
use sqlite_file::{digest, meta, prefixes, reading};

use crate::file::schema::COMPLETE_SINCE;
use crate::stores::attempts::{self, step};
use crate::stores::connections::SqliteStores;

impl History for SqliteStores {
    fn find_before<'a>(
        &'a self,
        reference: &'a str,
        before: Option<Position>,
        limit: usize,
    ) -> BoxFuture<'a, Result<StoryPage, QueueError>> {
        let reference = reference.to_owned();
        self.read(move |sql| find(sql, &reference, before, limit).map_err(reading))
    }

    fn event_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Event>, QueueError>> {
        self.read(move |sql| at(sql, position).map_err(reading))
    }

    fn event<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Event>, QueueError>> {
        let reference = reference.to_owned();
        self.read(move |sql| newest(sql, &reference).map_err(reading))
    }

    fn accepted(&self, query: AcceptedQuery) -> BoxFuture<'_, Result<AcceptedPage, QueueError>> {
        self.read(move |sql| accepted(sql, &query).map_err(reading))
    }

    fn attempts(&self, query: AttemptQuery) -> BoxFuture<'_, Result<AttemptPage, QueueError>> {
        self.read(move |sql| attempts::list(sql, &query).map_err(reading))
    }

    fn received(&self, query: ReceivedQuery) -> BoxFuture<'_, Result<ReceivedPage, QueueError>> {
        self.read_apart(move |sql| attempts::received(sql, &query).map_err(reading))
    }

    fn complete_since(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        self.read(|sql| {
            let since = meta::<i64>(sql, COMPLETE_SINCE).map_err(reading)?;
            let why = "the service must be started with this version first";
            since
                .and_then(from_nanos)
                .ok_or_else(|| QueueError::unavailable("asking since when all is kept", why))
        })
    }
}

/// Reads so many events from the end on, and takes those that match.
fn accepted(sql: &Connection, query: &AcceptedQuery) -> rusqlite::Result<AcceptedPage> {
    let before = query.before.map_or(i64::MAX, rows::signed);
    let limit = i64::try_from(query.examined).unwrap_or(i64::MAX);
    let mut statement = sql.prepare_cached(&accepted_before())?;
    let mut found = statement.query(params![before, limit, rows::signed(query.after)])?;
    let mut page = AcceptedPage::default();
    let mut bytes = 0;
    let mut looked_at = 0;
    while let Some(row) = found.next()? {
        let place = unsigned(row.get(0)?);
        looked_at += 1;
        page.next = Some(place);
        match event(row, 1)? {
            Ok(event) if query.matches(&event) => {
                bytes += event.body().len();
                page.events.push((place, event));
            }
            Ok(_) => {}
            Err(_) => page.unreadable += 1,
        }
        if page.events.len() >= query.limit || bytes >= PAGE_BYTES {
            return Ok(page);
        }
    }
    page.next = page.next.filter(|_| looked_at == query.examined);
    Ok(page)
}

/// The query of [`accepted`]. By bodies: there may be ten million ids without one.
fn accepted_before() -> String {
    format!(
        "SELECT e.position, {EVENT} FROM bodies b CROSS JOIN events e USING (position)
         WHERE b.position < ?1 AND b.position > ?3 ORDER BY b.position DESC LIMIT ?2"
    )
}

fn at(sql: &Connection, position: Position) -> rusqlite::Result<Option<Event>> {
    let text = format!(
        "SELECT {EVENT} FROM events e JOIN bodies b USING (position) WHERE e.position = ?1"
    );
    let mut statement = sql.prepare_cached(&text)?;
    let mut rows = statement.query([rows::signed(position.packed())])?;
    match rows.next()? {
        Some(row) => Ok(event(row, 0)?.ok()),
        None => Ok(None),
    }
}

fn find(
    sql: &Connection,
    reference: &str,
    before: Option<Position>,
    limit: usize,
) -> rusqlite::Result<StoryPage> {
    let found = find_events(sql, reference, before, limit)?;
    let told = found
        .events
        .iter()
        .map(|(position, event)| story(sql, *position, event));
    let mut stories: Vec<_> = told.collect::<rusqlite::Result<_>>()?;
    for story in stories.iter_mut().take(SAME_IDS_SHOWN) {
        story.same_id = same_id(sql, story)?;
    }
    Ok(StoryPage {
        stories,
        next: found.next,
        unreadable: found.unreadable,
    })
}

/// Events read at once to find one that can be read.
const READ_TOGETHER: usize = 8;

/// The newest event that `reference` names, of those that can be read.
fn newest(sql: &Connection, reference: &str) -> rusqlite::Result<Option<Event>> {
    let mut before = None;
    loop {
        let found = find_events(sql, reference, before, READ_TOGETHER)?;
        if let Some((_, event)) = found.events.into_iter().next() {
            return Ok(Some(event));
        }
        let Some(next) = found.next else {
            return Ok(None);
        };
        before = Some(next);
    }
}

/// Events that a reference names, of a part of the file.
#[derive(Default)]
struct Named {
    /// The newest first, with their positions.
    events: Vec<(i64, Event)>,
    /// The position before which more may follow.
    next: Option<Position>,
    unreadable: u64,
}

/// Other events with the key of this one.
fn same_id(sql: &Connection, story: &EventStory) -> rusqlite::Result<Vec<SameIdEvent>> {
    // One more, since the event itself is among them.
    let found = find_events(sql, &story.fluent_event_id, None, SAME_IDS_SHOWN + 1)?;
    let events = found.events.iter().map(|(_, event)| event);
    let others = events.filter(|it| it.fluent_key() == story.fluent_key && it.id() != story.id);
    Ok(others.map(SameIdEvent::of).collect())
}

/// The newest events that `reference` names, with their positions, of those before one.
fn find_events(
    sql: &Connection,
    reference: &str,
    before: Option<Position>,
    limit: usize,
) -> rusqlite::Result<Named> {
    let range = prefixes(reference);
    let from = range.map(|(from, _)| from);
    let to = range.map(|(_, to)| to);
    let text = format!(
        "SELECT e.position, {EVENT} FROM (
            SELECT e.position FROM (
                SELECT position, max(fluent) AS fluent FROM (
                    SELECT position, coalesce(fluent = ?4, 0) AS fluent FROM refs
                    WHERE entity = ?4 OR root = ?4 OR fluent = ?4
                    UNION ALL SELECT position, 0 FROM events WHERE prefix BETWEEN ?2 AND ?3
                ) GROUP BY position
            ) found CROSS JOIN events e USING (position)
            WHERE (e.entity_ref = ?1 OR e.root_entity_ref = ?1 OR e.prefix BETWEEN ?2 AND ?3 OR found.fluent)
              AND EXISTS (SELECT 1 FROM bodies b WHERE b.position = e.position)
              AND e.position < ?6
            ORDER BY e.position DESC LIMIT ?5
         ) newest CROSS JOIN events e USING (position) JOIN bodies b USING (position)
         ORDER BY e.position DESC"
    );
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = sql.prepare(&text)?;
    let before = before.map_or(i64::MAX, |before| rows::signed(before.packed()));
    let mut rows = statement.query(params![
        reference,
        from,
        to,
        digest(reference),
        most,
        before
    ])?;
    let mut found = Named::default();
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        let position = row.get(0)?;
        looked_at += 1;
        found.next = rows::position(position);
        match event(row, 1)? {
            Ok(event) => found.events.push((position, event)),
            Err(_) => found.unreadable += 1,
        }
    }
    found.next = found.next.filter(|_| looked_at == limit);
    Ok(found)
}

fn story(sql: &Connection, position: i64, event: &Event) -> rusqlite::Result<EventStory> {
    Ok(EventStory {
        id: event.id(),
        position: rows::position(position).ok_or_else(|| unknown(0))?,
        name: event.name().to_owned(),
        fluent_event_id: event.fields().fluent_event_id.clone().unwrap_or_default(),
        fluent_key: event.fluent_key(),
        entity: queue::entity(event),
        source: event.source(),
        received_at: event.received_at(),
        origin: event.origin(),
        trace_id: event.trace().map(|trace| trace.trace_id()),
        // Attempts are stored as long as their event.
        history_since: None,
        // An attempt is recorded in the transaction that settles its delivery.
        gaps: Vec::new(),
        steps: steps(sql, position)?,
        states: states(sql, position)?,
        same_id: Vec::new(),
    })
}

fn steps(sql: &Connection, position: i64) -> rusqlite::Result<Vec<StoryStep>> {
    sql.prepare_cached(
        "SELECT route, redrive, attempt, started_at, took, outcome, status, detail
         FROM attempts WHERE position = ?1 ORDER BY started_at",
    )?
    .query_map([position], |row| step(row, 0))?
    .collect()
}

/// State of an event on each route, by its row in `deliveries`, a dead letter, a last attempt
/// that was done, or its absence.
fn states(sql: &Connection, position: i64) -> rusqlite::Result<Vec<StoryState>> {
    sql.prepare_cached(
        "SELECT r.name, d.in_flight, d.at, l.id, l.reason,
            EXISTS (SELECT 1 FROM attempts a WHERE a.position = ?1 AND a.route = r.name AND a.outcome = 'done'),
            r.cursor < ?1
         FROM routes r
         LEFT JOIN deliveries d ON d.route = r.id AND d.position = ?1
         LEFT JOIN dead_letters l ON l.route = r.name AND l.position = ?1
         ORDER BY r.id",
    )?
    .query_map([position], state)?
    .filter_map(Result::transpose)
    .collect()
}

fn state(row: &Row<'_>) -> rusqlite::Result<Option<StoryState>> {
    let route: String = row.get(0)?;
    let in_flight: Option<bool> = row.get(1)?;
    let letter: Option<i64> = row.get(3)?;
    Ok(match (in_flight, letter) {
        (Some(true), _) => Some(StoryState::InFlight { route }),
        (Some(false), _) => Some(StoryState::Waiting {
            route,
            due: time(row, 2)?,
        }),
        (None, Some(letter)) => {
            let reason =
                DeadReason::from_name(row.get_ref(4)?.as_str()?).ok_or_else(|| unknown(4))?;
            Some(StoryState::Dead {
                route,
                letter: unsigned(letter),
                reason,
            })
        }
        (None, None) if row.get(5)? => Some(StoryState::Done { route }),
        (None, None) if row.get(6)? => Some(StoryState::NotReached { route }),
        // The route has examined the event and does not match it.
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::plan;

    #[test]
    fn accepted_events_are_searched_by_their_bodies() {
        assert_eq!(
            plan(&accepted_before())[0],
            "SEARCH b USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
        );
    }
}
