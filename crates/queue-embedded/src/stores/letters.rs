//! Dead letters of a queue file: reading and redriving them.

use futures::future::BoxFuture;
use queue::{DeadLetter, DeadLetters, DeadPage, DeadQuery, DeadReason, PAGE_BYTES, QueueError};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sqlite_file::reading;
use sqlite_file::rows::{EVENT, event, nanos, signed, time, unknown, unsigned};

use crate::file::redrives::{hand_over, known_route};
use crate::stores::connections::{SqliteStores, Stamp, writing};

impl DeadLetters for SqliteStores {
    fn list(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<DeadLetter>, QueueError>> {
        self.read(move |sql| list(sql, &query).map_err(reading))
    }

    fn page(
        &self,
        query: DeadQuery,
        examined: usize,
    ) -> BoxFuture<'_, Result<DeadPage, QueueError>> {
        self.read(move |sql| examine(sql, query, examined).map_err(reading))
    }

    fn last_id(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.read(|sql| last_id(sql).map_err(reading))
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, QueueError>> {
        self.read(move |sql| {
            let query = DeadQuery {
                after: id.saturating_sub(1),
                limit: 1,
                ..DeadQuery::default()
            };
            let found = list(sql, &query)
                .map_err(reading)?
                .pop()
                .filter(|letter| letter.id == id);
            found.ok_or_else(|| not_found(id))
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueueError>> {
        self.read_apart(|sql| count(sql).map_err(reading))
    }

    fn redrive<'a>(
        &'a self,
        ids: &'a [u64],
        to: Option<&'a str>,
    ) -> BoxFuture<'a, Vec<Result<(), QueueError>>> {
        let to = to.map(str::to_owned);
        self.each(ids, move |sql, id, now| {
            redrive(sql, id, to.as_deref(), now)
        })
    }

    fn discard<'a>(&'a self, ids: &'a [u64]) -> BoxFuture<'a, Vec<Result<(), QueueError>>> {
        self.each(ids, |sql, id, _| {
            let gone = sql
                .execute("DELETE FROM dead_letters WHERE id = ?1", [signed(id)])
                .map_err(writing)?;
            if gone == 0 {
                Err(not_found(id))
            } else {
                Ok(())
            }
        })
    }
}

impl SqliteStores {
    /// Changes each letter, all in one transaction. A letter that does not exist gets an error of
    /// its own, and the others are changed.
    fn each<'a>(
        &'a self,
        ids: &'a [u64],
        change: impl Fn(&Connection, u64, i64) -> Result<(), QueueError> + Send + 'static,
    ) -> BoxFuture<'a, Vec<Result<(), QueueError>>> {
        let asked = ids.to_vec();
        let changed = self.write(move |sql, Stamp { now, .. }| {
            let one = |id| match change(sql, id, now) {
                Err(error) if !matches!(error, QueueError::NotFound(_)) => Err(error),
                answer => Ok(answer),
            };
            asked.into_iter().map(one).collect::<Result<Vec<_>, _>>()
        });
        Box::pin(async move {
            // Nothing was changed, so each gets the same error.
            changed
                .await
                .unwrap_or_else(|error| ids.iter().map(|_| Err(error.duplicate())).collect())
        })
    }
}

fn not_found(id: u64) -> QueueError {
    QueueError::NotFound(format!("dead letter {id}"))
}

/// Number of rows read at once, of which some may not match the query.
const PAGE: usize = 1000;

fn list(sql: &Connection, query: &DeadQuery) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    let mut after = query.after;
    let mut bytes = 0;
    while letters.len() < query.limit && bytes < PAGE_BYTES {
        let Some(last) = page(sql, query, after, &mut letters, &mut bytes)? else {
            break;
        };
        after = last;
    }
    Ok(letters)
}

/// Lists letters among the next `examined` ones.
fn examine(sql: &Connection, mut query: DeadQuery, examined: usize) -> rusqlite::Result<DeadPage> {
    let limit = i64::try_from(examined).unwrap_or(i64::MAX);
    let (count, last): (i64, Option<i64>) = sql
        .prepare_cached(
            "SELECT count(*), max(id) FROM
                (SELECT id FROM dead_letters WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)",
        )?
        .query_row(
            params![signed(query.after), signed(query.up_to), limit],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
    let Some(last) = last.map(unsigned) else {
        return Ok(DeadPage::default());
    };
    query.up_to = last;
    let letters = list(sql, &query)?;
    let bytes: usize = letters.iter().map(|it| it.event.body().len()).sum();
    let is_full = letters.len() >= query.limit || bytes >= PAGE_BYTES;
    let next = match letters.last() {
        Some(letter) if is_full => Some(letter.id),
        _ => (count == limit).then_some(last),
    };
    Ok(DeadPage { letters, next })
}

/// The highest id that was ever given: of an `AUTOINCREMENT`, SQLite remembers it.
fn last_id(sql: &Connection) -> rusqlite::Result<u64> {
    let last = sql
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(last.map_or(0, unsigned))
}

/// Reads one page, filtered by what the columns can decide, and the rest by the body. Returns the
/// id to go on from.
fn page(
    sql: &Connection,
    query: &DeadQuery,
    after: u64,
    letters: &mut Vec<DeadLetter>,
    bytes: &mut usize,
) -> rusqlite::Result<Option<u64>> {
    let text = format!(
        "SELECT l.id, l.route, l.reason, l.detail, l.attempts, l.at, l.redrive, {EVENT}
         FROM dead_letters l JOIN events e USING (position) JOIN bodies b USING (position)
         WHERE l.id > ?1 AND l.id <= ?2 AND (?3 IS NULL OR l.route = ?3) AND (?4 IS NULL OR l.route <> ?4)
           AND (?5 IS NULL OR e.entity_ref = ?5 OR e.root_entity_ref = ?5)
           AND (?6 IS NULL OR l.reason = ?6) AND l.at >= ?7 AND l.at < ?8
         ORDER BY l.id LIMIT ?9"
    );
    let mut statement = sql.prepare_cached(&text)?;
    let mut rows = statement.query(params![
        signed(after),
        signed(query.up_to),
        query.route,
        query.not_route,
        query.reference,
        query.reason.map(DeadReason::as_str),
        query.since.map_or(i64::MIN, nanos),
        query.until.map_or(i64::MAX, nanos),
        i64::try_from(PAGE).unwrap_or(i64::MAX),
    ])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        last = Some(unsigned(row.get(0)?));
        if let Some(letter) = dead_letter(row)?.filter(|letter| query.matches(letter)) {
            *bytes += letter.event.body().len();
            letters.push(letter);
        }
        if letters.len() >= query.limit || *bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(last)
}

/// Makes a dead letter of a row; `None` for an event that no longer matches its digest, which the
/// tail reader reports.
fn dead_letter(row: &Row<'_>) -> rusqlite::Result<Option<DeadLetter>> {
    let Ok(event) = event(row, 7)? else {
        return Ok(None);
    };
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
    sql.prepare("SELECT route, dead FROM dead_counts WHERE dead > 0 ORDER BY route")?
        .query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
        .collect()
}

fn redrive(sql: &Connection, id: u64, to: Option<&str>, now: i64) -> Result<(), QueueError> {
    let found: Option<(i64, String, String)> = sql
        .prepare_cached(
            "SELECT position, route, reason FROM dead_letters JOIN bodies USING (position) WHERE id = ?1",
        )
        .and_then(|mut query| {
            query.query_row([signed(id)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(writing)?;
    let (position, own, reason) = found.ok_or_else(|| not_found(id))?;
    let route = to.unwrap_or(&own);
    let target = known_route(sql, route).map_err(writing)?;
    let target = target.ok_or_else(|| {
        QueueError::NotFound(format!("route {route} that a dispatcher has served"))
    })?;
    // A person who names another route wants the event there, whatever that route matches.
    let asks_match = reason == DeadReason::Undecided.as_str() && route == own;
    hand_over(sql, target, route, position, asks_match, now).map_err(writing)?;
    sql.execute("DELETE FROM dead_letters WHERE id = ?1", [signed(id)])
        .map_err(writing)
        .map(drop)
}
