//! Conversion between rows and events, positions, times and numbers.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{Bytes, Event, EventId, Proof, RestoreError, StoredEvent, Timestamp};
use queue::Position;
use rusqlite::{Row, types::Type};

/// The columns that [`event`] reads, in its order.
pub const EVENT: &str = "e.id, e.key, e.algorithm, e.signature, e.received_at, e.trace, b.body";

/// Reads an event whose columns begin at `first`.
///
/// The bytes must still have the digest they were stored under. A row whose columns make no sense
/// counts as damaged, like one whose body has changed: it must not keep others from being read.
///
/// # Errors
/// If SQLite can't read the file.
pub fn event(row: &Row<'_>, first: usize) -> rusqlite::Result<Result<Event, RestoreError>> {
    let id = row
        .get_ref(first)?
        .as_blob()
        .ok()
        .and_then(|bytes| EventId::from_bytes(bytes).ok());
    let expected = id.unwrap_or_else(|| EventId::of(event_model::Environment::Sandbox, b""));
    match stored(row, first + 1) {
        Ok(stored) => Ok(Event::restore(expected, stored)),
        Err(rusqlite::Error::SqliteFailure(error, message)) => {
            Err(rusqlite::Error::SqliteFailure(error, message))
        }
        Err(_) => Ok(Err(RestoreError { expected })),
    }
}

fn stored(row: &Row<'_>, first: usize) -> rusqlite::Result<StoredEvent> {
    let trace = row.get_ref(first + 4)?.as_str_or_null()?;
    let (trace, trace_state) = trace.map(StoredEvent::trace_of_text).unwrap_or_default();
    Ok(StoredEvent {
        key: Arc::new(parsed(first, row.get_ref(first)?.as_str()?.parse())?),
        proof: proof(row, first + 1)?,
        signature: STANDARD.encode(row.get_ref(first + 2)?.as_blob()?),
        received_at: time(row, first + 3)?,
        trace,
        trace_state,
        body: Bytes::copy_from_slice(row.get_ref(first + 5)?.as_blob()?),
        refed: false,
    })
}

/// Reads the proof of an event.
///
/// # Errors
/// If the column is not a proof of this format.
pub fn proof(row: &Row<'_>, column: usize) -> rusqlite::Result<Proof> {
    let name = row.get_ref(column)?.as_str()?;
    Proof::from_name(name).ok_or_else(|| unknown(column))
}

/// Reads a time.
///
/// # Errors
/// If it is out of the range of times.
pub fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    from_nanos(row.get(column)?).ok_or_else(|| unknown(column))
}

/// The error of a value that this format does not have.
pub fn unknown(column: usize) -> rusqlite::Error {
    let why = "not a value of this format".into();
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why)
}

/// Returns a value that was parsed from a text, or wraps the error of the parser.
///
/// # Errors
/// If the text could not be parsed.
pub fn parsed<T, E>(column: usize, result: Result<T, E>) -> rusqlite::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    result.map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// Unix time in nanoseconds, which ends in the year 2262.
pub fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The inverse of [`nanos`]; `None` if there is no such time.
pub fn from_nanos(nanos: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanos.into()).ok()
}

/// The bytes of a signature that was verified before.
pub fn signature_bytes(signature: &str) -> Vec<u8> {
    STANDARD.decode(signature).unwrap_or_default()
}

/// The first 8 bytes of an id, as stored in the index.
pub fn prefix(id: &EventId) -> i64 {
    let bytes = id.as_bytes();
    i64::from_be_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ])
}

/// A position as it is stored in a column: packed. In shard 0, the only one in a file of events,
/// that is the rowid.
pub fn packed(position: Position) -> i64 {
    signed(position.packed())
}

/// The position in a column; `None` if it is not valid.
pub fn position(number: i64) -> Option<Position> {
    Position::from_packed(u64::try_from(number).ok()?).ok()
}

/// Reads the position of an event of this file.
///
/// # Errors
/// If the column is not a valid position.
pub fn position_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Position> {
    position(row.get(column)?).ok_or_else(|| unknown(column))
}

/// A number as SQLite's signed integer; rows and sizes never come near the sign.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`signed`].
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
