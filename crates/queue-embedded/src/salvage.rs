use std::path::Path;

use queue::{EventQueue, QueueError};
use rusqlite::{Connection, OpenFlags};

use crate::failure::reading;
use crate::rows::{EVENT, event, unsigned};

/// What was brought over from a file that was set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Unsettled events that were published again.
    pub events: u64,
    /// Of these, known to the new file already.
    pub known: u64,
    /// Rows that could not be read or did not match their digest.
    pub lost: u64,
}

/// Publishes into `queue` every event of `file` that some route had not
/// settled. Each goes to all routes that match it, so a route that had settled
/// it gets it again, under the same idempotency key.
pub async fn salvage(file: &Path, queue: &dyn EventQueue) -> Result<Salvaged, QueueError> {
    let sql = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(reading)?;
    let positions = unsettled(&sql).map_err(reading)?;
    let mut salvaged = Salvaged::default();
    for position in positions {
        match read(&sql, position) {
            Some(event) => {
                let receipt = queue.publish(event).await?;
                salvaged.events += 1;
                salvaged.known += u64::from(receipt.duplicate);
            }
            None => salvaged.lost += 1,
        }
    }
    Ok(salvaged)
}

/// Positions as the index of bodies knows them; stops at the first page that
/// can't be read, keeping what came before.
fn unsettled(sql: &Connection) -> rusqlite::Result<Vec<i64>> {
    let floor: i64 =
        sql.query_row("SELECT coalesce(min(cursor), 0) FROM routes", [], |row| row.get(0)).unwrap_or(0);
    let mut statement = sql.prepare(
        "SELECT position FROM bodies WHERE position > ?1
            OR position IN (SELECT position FROM deliveries)
            OR position IN (SELECT position FROM dead_letters)",
    )?;
    let positions = statement.query_map([floor], |row| row.get(0))?;
    Ok(positions.map_while(Result::ok).collect())
}

fn read(sql: &Connection, position: i64) -> Option<event_model::Event> {
    let text = format!("SELECT {EVENT} FROM events e JOIN bodies b USING (position) WHERE e.position = ?1");
    let row = sql.prepare_cached(&text).ok()?.query_row([position], |row| event(row, 0));
    let event = row.ok()?.ok();
    if event.is_none() {
        tracing::error!(position = unsigned(position), "row can't be salvaged");
    }
    event
}
