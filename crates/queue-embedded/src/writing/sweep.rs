//! Removes deliveries that will never be made: those of forgotten routes, and those whose events
//! are gone. They are removed a few at a time, so that publishes come in between; the next
//! process finds what a crash leaves.

use fail::fail_point;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

/// Number of rows in one transaction, for which a publish waits a few milliseconds.
const CHUNK: i64 = 1000;

/// Primary key of a delivery: route, position, redrive.
type Place = (i64, i64, i64);

/// Progress of the sweep.
#[derive(Debug)]
pub(crate) struct Sweeper {
    /// The key from which the one pass over all deliveries goes on; `None` once it is done.
    after: Option<Place>,
    /// Version of the file when forgotten routes were last looked for: only other connections
    /// forget routes.
    seen_version: i64,
}

impl Sweeper {
    pub(crate) fn new() -> Self {
        Self {
            after: Some((i64::MIN, 0, 0)),
            seen_version: -1,
        }
    }

    /// Sweeps one chunk; `true` if there may be more.
    pub(crate) fn sweep(&mut self, sql: &mut Connection) -> rusqlite::Result<bool> {
        if let Some(after) = self.after {
            self.after = remove_orphans(sql, after)?;
            return Ok(true);
        }
        let version = sql.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if version == self.seen_version {
            return Ok(false);
        }
        match forgotten(sql)? {
            Some(route) => remove_some(sql, route)?,
            None => self.seen_version = version,
        }
        Ok(version != self.seen_version)
    }
}

/// A forgotten route that still has deliveries. Needs one search for each route.
fn forgotten(sql: &Connection) -> rusqlite::Result<Option<i64>> {
    sql.prepare_cached(
        "WITH RECURSIVE held(route) AS (
            SELECT min(route) FROM deliveries
            UNION ALL SELECT (SELECT min(d.route) FROM deliveries d WHERE d.route > held.route)
            FROM held WHERE held.route IS NOT NULL
         )
         SELECT route FROM held
         WHERE route IS NOT NULL AND NOT EXISTS (SELECT 1 FROM routes WHERE id = route) LIMIT 1",
    )?
    .query_row([], |row| row.get(0))
    .optional()
}

fn remove_some(sql: &mut Connection, route: i64) -> rusqlite::Result<()> {
    let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: Option<(i64, i64)> = transaction
        .prepare_cached(
            "SELECT position, redrive FROM (
                SELECT position, redrive FROM deliveries WHERE route = ?1 ORDER BY position, redrive LIMIT ?2
             ) ORDER BY position DESC, redrive DESC LIMIT 1",
        )?
        .query_row([route, CHUNK], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((position, redrive)) = last {
        transaction
            .prepare_cached(
                "DELETE FROM deliveries WHERE route = ?1 AND (position, redrive) <= (?2, ?3)",
            )?
            .execute([route, position, redrive])?;
    }
    transaction.commit()?;
    fail_point!("sweep.after");
    Ok(())
}

/// Removes deliveries whose body is gone, which can't be made and would hold up retention.
fn remove_orphans(sql: &mut Connection, after: Place) -> rusqlite::Result<Option<Place>> {
    let rows: Vec<(Place, bool)> = sql
        .prepare_cached(
            "SELECT route, position, redrive,
                NOT EXISTS (SELECT 1 FROM bodies b WHERE b.position = deliveries.position)
             FROM deliveries WHERE (route, position, redrive) > (?1, ?2, ?3)
             ORDER BY route, position, redrive LIMIT ?4",
        )?
        .query_map(params![after.0, after.1, after.2, CHUNK], |row| {
            Ok((place(row)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let orphans: Vec<Place> = rows
        .iter()
        .filter(|(_, is_orphan)| *is_orphan)
        .map(|(place, _)| *place)
        .collect();
    if !orphans.is_empty() {
        let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for orphan in &orphans {
            transaction
                .prepare_cached(
                    "DELETE FROM deliveries WHERE route = ?1 AND position = ?2 AND redrive = ?3",
                )?
                .execute(params![orphan.0, orphan.1, orphan.2])?;
        }
        transaction.commit()?;
        tracing::error!(
            orphans = orphans.len(),
            "deliveries whose events are gone were removed"
        );
    }
    Ok(rows.last().map(|(place, _)| *place))
}

fn place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use event_model::SystemClock;
    use queue::conformance::event;
    use queue::{Intake, Lifecycle, Stores};

    use super::*;
    use crate::{Embedded, Options, SqliteStores};

    const MANY: i64 = 3 * CHUNK + 7;

    fn serve(path: &Path) -> Embedded {
        Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap()
    }

    fn count(sql: &Connection) -> i64 {
        sql.query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0))
            .unwrap()
    }

    /// A file with many deliveries of route `r`, whose events are there or are not.
    async fn file(path: &Path, are_there: bool) -> Connection {
        let queue = serve(path);
        queue.publish(event("E", "a")).await.unwrap();
        queue.close().await;
        drop(queue);
        let sql = Connection::open(path).unwrap();
        sql.busy_timeout(Duration::from_secs(20)).unwrap();
        sql.execute_batch(&format!(
            "INSERT INTO routes (name, cursor) VALUES ('r', {MANY} + 1);
             WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= {MANY})
             INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
             SELECT r.id, i, 0, 0, 1, 1, 4000000000000000000 FROM n, routes r",
        ))
        .unwrap();
        if are_there {
            sql.execute_batch("INSERT INTO bodies SELECT position, x'00' FROM deliveries")
                .unwrap();
        }
        assert_eq!(count(&sql), MANY);
        sql
    }

    async fn until_none(sql: &Connection) {
        let began = Instant::now();
        while count(sql) > 0 {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{} are left",
                count(sql)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sweeps as long as `goes_on`, and returns the number of rows that each transaction removed.
    fn sweep(sql: &Connection, goes_on: impl Fn(&[i64]) -> bool) -> Vec<i64> {
        let mut writer = Connection::open(sql.path().unwrap()).unwrap();
        let mut sweeper = Sweeper::new();
        let mut removed = Vec::new();
        let mut left = count(sql);
        while goes_on(&removed) && sweeper.sweep(&mut writer).unwrap() {
            // The sweeper has no lock between two transactions, so a publish can come in between.
            sql.execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
            let now = count(sql);
            removed.extend(Some(left - now).filter(|removed| *removed > 0));
            left = now;
        }
        removed
    }

    #[tokio::test]
    async fn what_a_forgotten_route_leaves_goes_in_chunks_and_also_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let sql = file(&path, true).await;
        assert_eq!(sweep(&sql, |_| true), [0; 0], "its route is there");
        SqliteStores::open(&path, None)
            .unwrap()
            .forget("r")
            .await
            .unwrap();
        assert_eq!(count(&sql), MANY, "who forgets does not wait for it");
        assert_eq!(sweep(&sql, |removed| removed.len() < 2), [CHUNK; 2]);
        // The state after a crash; and a new route is created that must not get the remaining
        // rows.
        sql.execute("INSERT INTO routes (name, cursor) VALUES ('r', 1)", [])
            .unwrap();
        let queue = serve(&path);
        until_none(&sql).await;
        let routes = queue.routes().await.unwrap();
        assert_eq!(
            routes.iter().map(|route| route.waiting).collect::<Vec<_>>(),
            [0]
        );
        queue.close().await;
    }

    #[tokio::test]
    async fn deliveries_without_events_go_in_chunks_while_the_queue_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let sql = file(&path, false).await;
        assert_eq!(sweep(&sql, |_| true), [CHUNK, CHUNK, CHUNK, 7]);
        drop(sql);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let sql = file(&path, false).await;
        let queue = serve(&path);
        queue.publish(event("E", "b")).await.unwrap();
        until_none(&sql).await;
        queue.close().await;
    }
}
