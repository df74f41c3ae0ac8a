//! Salvage: publishing what a quarantined queue file still has.

use std::path::Path;

use event_model::{Event, RestoreError};
use queue::{Intake, QueueError};
use rusqlite::{Connection, OptionalExtension};
use sqlite_file::quarantine::ReadableBodies;
use sqlite_file::rows::{EVENT, event};
use sqlite_file::{connect, reading};

/// Result of a salvage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Unsettled events that were published again.
    pub events: u64,
    /// Those of them that the new file had already.
    pub known: u64,
    /// Bodies that were copied from the old file's quarantine.
    pub quarantined: u64,
    /// Rows that could not be read, or did not match their digest.
    pub lost: u64,
}

/// Publishes into `intake` every event of `file` that some route had not
/// settled. Each goes to all routes that match it, so a route that had settled
/// it gets it again, under the same idempotency key. The file and its log stay
/// as they are.
pub async fn salvage(file: &Path, intake: &dyn Intake) -> Result<SalvageReport, QueueError> {
    let old = DamagedQueue::open(file)?;
    let mut salvaged = SalvageReport::default();
    let mut from = 1;
    while let Some(position) = old.next(from) {
        from = position + 1;
        match old.event(position) {
            Ok(None) => {}
            Ok(Some(event)) => {
                let receipt = intake.publish(event).await?;
                salvaged.events += 1;
                salvaged.known += u64::from(receipt.duplicate);
            }
            Err(error) => {
                if salvaged.lost == 0 {
                    tracing::error!(%error, position, "an event can't be salvaged; others like it are only counted");
                }
                salvaged.lost += 1;
            }
        }
    }
    let mut bodies = ReadableBodies::begin(&old.sql);
    while let Some(body) = bodies.next(&old.sql) {
        intake.quarantine(body).await?;
        salvaged.quarantined += 1;
    }
    salvaged.lost += bodies.unreadable;
    Ok(salvaged)
}

/// A damaged queue file, read row by row: a damaged page costs only what is on it.
#[derive(Debug)]
struct DamagedQueue {
    sql: Connection,
    unsettled: UnsettledPositions,
    /// The newest position in any part of the file that can be read.
    newest: i64,
}

impl DamagedQueue {
    /// Opens the file without changing it.
    fn open(path: &Path) -> Result<Self, QueueError> {
        let sql = connect(path).map_err(reading)?;
        let unsettled = UnsettledPositions::read(&sql).unwrap_or_else(|error| {
            tracing::error!(%error, "what was settled can't be read: every event is published again");
            UnsettledPositions::default()
        });
        let newest = newest(&sql);
        Ok(Self {
            sql,
            unsettled,
            newest,
        })
    }

    /// The next position, from `from` on, at which there may be an unsettled event.
    fn next(&self, from: i64) -> Option<i64> {
        if let Some(open) = self.unsettled.next_open(from) {
            return Some(open);
        }
        let from = from.max(self.unsettled.read_up_to + 1);
        // Positions whose bodies can't be found are tried one by one.
        let next = next_body(&self.sql, from).unwrap_or(Some(from));
        next.filter(|next| *next <= self.newest)
    }

    /// The event at a position; `None` if there is none.
    fn event(&self, position: i64) -> Result<Option<Event>, UnreadableRow> {
        let text = format!(
            "SELECT {EVENT} FROM events e JOIN bodies b USING (position) WHERE e.position = ?1"
        );
        let row = self
            .sql
            .prepare_cached(&text)?
            .query_row([position], |row| event(row, 0))
            .optional()?;
        Ok(row.transpose()?)
    }
}

/// Positions of events that some route has not settled. By default all.
#[derive(Debug, Default)]
struct UnsettledPositions {
    /// Position up to which every route has read.
    read_up_to: i64,
    /// Positions, in order, up to there with a delivery or a dead letter.
    open: Vec<i64>,
}

impl UnsettledPositions {
    /// Reads them once, apart from the events: where a page of these tables is damaged, the events
    /// may be whole.
    fn read(sql: &Connection) -> rusqlite::Result<Self> {
        let read_up_to =
            sql.query_row("SELECT coalesce(min(cursor), 0) FROM routes", [], |row| {
                row.get(0)
            })?;
        let mut open = positions(sql, "deliveries", read_up_to)?;
        open.extend(positions(sql, "dead_letters", read_up_to)?);
        open.sort_unstable();
        open.dedup();
        Ok(Self { read_up_to, open })
    }

    fn next_open(&self, from: i64) -> Option<i64> {
        let index = self.open.partition_point(|position| *position < from);
        self.open.get(index).copied()
    }
}

/// Positions in a table up to this one, by its index; where that is damaged, by the table, which
/// alone has the other column.
fn positions(sql: &Connection, table: &str, up_to: i64) -> rusqlite::Result<Vec<i64>> {
    let read = |text: &str| {
        let mut statement = sql.prepare(text)?;
        let found = statement.query_map([up_to], |row| row.get(0))?;
        found.collect::<rusqlite::Result<_>>()
    };
    read(&format!(
        "SELECT DISTINCT position FROM {table} WHERE position <= ?1"
    ))
    .or_else(|_| {
        read(&format!(
            "SELECT position, at FROM {table} WHERE +position <= ?1"
        ))
    })
}

fn next_body(sql: &Connection, from: i64) -> rusqlite::Result<Option<i64>> {
    sql.prepare_cached("SELECT min(position) FROM bodies WHERE position >= ?1")?
        .query_row([from], |row| row.get(0))
}

/// The newest position in any part of the file that can still be read.
fn newest(sql: &Connection) -> i64 {
    let ask = |text| {
        sql.query_row(text, [], |row| row.get::<_, Option<i64>>(0))
            .ok()
            .flatten()
            .unwrap_or(0)
    };
    [
        "SELECT max(position) FROM bodies",
        "SELECT max(position) FROM events",
        "SELECT max(cursor) FROM routes",
    ]
    .into_iter()
    .map(ask)
    .max()
    .unwrap_or(0)
}

/// Reason why a row can't be salvaged.
#[derive(Debug, thiserror::Error)]
enum UnreadableRow {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Damaged(#[from] RestoreError),
}
