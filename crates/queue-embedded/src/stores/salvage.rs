//! Salvage: publishing what a quarantined queue file still has.

use std::path::Path;

use event_model::{Event, RestoreError};
use queue::{Intake, QueueError};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use sqlite_file::rows::{EVENT, event};
use sqlite_file::{quarantine, reading};

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
/// it gets it again, under the same idempotency key.
pub async fn salvage(file: &Path, intake: &dyn Intake) -> Result<SalvageReport, QueueError> {
    let sql =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(reading)?;
    let mut salvaged = SalvageReport::default();
    for position in 1..=newest(&sql) {
        match unsettled(&sql, position) {
            Ok(None) => {}
            Ok(Some(event)) => {
                let receipt = intake.publish(event).await?;
                salvaged.events += 1;
                salvaged.known += u64::from(receipt.duplicate);
            }
            Err(error) => {
                tracing::error!(%error, position, "row can't be salvaged");
                salvaged.lost += 1;
            }
        }
    }
    for body in quarantine::list(&sql, 0, usize::MAX).unwrap_or_default() {
        intake.quarantine(body).await?;
        salvaged.quarantined += 1;
    }
    Ok(salvaged)
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
enum Unreadable {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Damaged(#[from] RestoreError),
}

/// Reads one event by its position, so that a damaged page costs only what is on it. `None` if
/// there is no event, or every route is finished with it.
fn unsettled(sql: &Connection, position: i64) -> Result<Option<Event>, Unreadable> {
    let text = format!(
        "SELECT {EVENT} FROM events e JOIN bodies b USING (position) WHERE e.position = ?1
           AND (?1 > (SELECT coalesce(min(cursor), 0) FROM routes)
                OR EXISTS (SELECT 1 FROM deliveries d WHERE d.position = ?1)
                OR EXISTS (SELECT 1 FROM dead_letters l WHERE l.position = ?1))"
    );
    let row = sql
        .prepare_cached(&text)?
        .query_row([position], |row| event(row, 0))
        .optional()?;
    Ok(row.transpose()?)
}
