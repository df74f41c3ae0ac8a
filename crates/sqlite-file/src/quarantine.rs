//! The table of genuine bodies that are not events, which every file has.

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{Algorithm, Bytes, Environment, EventId, KeyId, KeyName, Proof};
use queue::Quarantined;
use rusqlite::{Connection, Row, params};

use crate::rows::{nanos, proof, signature_bytes, signed, time, unsigned};

/// SQL that creates the table.
pub const TABLE: &str = "
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL,
    algorithm TEXT NOT NULL,
    key TEXT NOT NULL,
    signature BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL
);
";

/// Whether a body is stored already.
///
/// # Errors
/// If SQLite reports an error.
pub fn contains_body(sql: &Connection, body: &Quarantined) -> rusqlite::Result<bool> {
    let digest = EventId::of(body.key.environment(), &body.body);
    sql.prepare_cached("SELECT EXISTS (SELECT 1 FROM quarantine WHERE digest = ?1)")?
        .query_row([digest.as_bytes()], |row| row.get(0))
}

/// Stores a body, unless it is stored already.
///
/// # Errors
/// If SQLite reports an error.
pub fn keep(sql: &Connection, body: &Quarantined) -> rusqlite::Result<()> {
    let digest = EventId::of(body.key.environment(), &body.body);
    sql.prepare_cached(
        "INSERT OR IGNORE INTO quarantine (digest, body, algorithm, key, signature, received_at, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        digest.as_bytes(),
        &body.body[..],
        body.proof.as_str(),
        body.key.to_text(),
        signature_bytes(&body.signature),
        nanos(body.received_at),
        body.reason,
    ])
    .map(drop)
}

/// Bodies with a higher id than `after`, in order.
///
/// # Errors
/// If SQLite reports an error.
pub fn list(sql: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<Quarantined>> {
    sql.prepare(
        "SELECT id, body, algorithm, key, signature, received_at, reason
         FROM quarantine WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?
    .query_map(
        params![signed(after), i64::try_from(limit).unwrap_or(i64::MAX)],
        quarantined,
    )?
    .collect()
}

/// All bodies that can be read in a damaged file, and the number of rows that can't be.
pub fn list_readable(sql: &Connection) -> (Vec<Quarantined>, u64) {
    // The file itself remembers the highest id, also where the last page is damaged.
    let newest = sql
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'quarantine'",
            [],
            |row| row.get(0),
        )
        .map_or(0, unsigned);
    let mut bodies = Vec::new();
    let mut unreadable = 0;
    let mut after = 0;
    loop {
        // One by one, so that a damaged page costs only what is on it.
        match list(sql, after, 1).map(|mut found| found.pop()) {
            Ok(Some(body)) => {
                after = body.id;
                bodies.push(body);
            }
            Err(_) if after < newest => {
                after += 1;
                unreadable += 1;
            }
            Ok(None) | Err(_) => return (bodies, unreadable),
        }
    }
}

fn quarantined(row: &Row<'_>) -> rusqlite::Result<Quarantined> {
    Ok(Quarantined {
        id: unsigned(row.get(0)?),
        body: Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
        // Columns of a damaged row may make no sense here either.
        proof: proof(row, 2).unwrap_or(Proof::Signed(Algorithm::Sha512)),
        key: row
            .get_ref(3)?
            .as_str()?
            .parse()
            .unwrap_or_else(|_| KeyId::any_named(KeyName::new("unknown", Environment::Sandbox))),
        signature: STANDARD.encode(row.get_ref(4)?.as_blob()?),
        received_at: time(row, 5).unwrap_or_default(),
        reason: row.get(6)?,
    })
}

/// Bytes of bodies in the quarantine.
///
/// # Errors
/// If SQLite reports an error.
pub fn bytes(sql: &Connection) -> rusqlite::Result<u64> {
    sql.query_row(
        "SELECT coalesce(sum(length(body)), 0) FROM quarantine",
        [],
        |row| row.get(0),
    )
    .map(unsigned)
}
