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

/// Bodies with a higher id than `after`, in order: `limit` at most, and no more once they have
/// `most_bytes`. None if there is no further one.
///
/// # Errors
/// If SQLite reports an error.
pub fn list(
    sql: &Connection,
    after: u64,
    limit: usize,
    most_bytes: usize,
) -> rusqlite::Result<Vec<Quarantined>> {
    let mut statement = sql.prepare_cached(
        "SELECT id, body, algorithm, key, signature, received_at, reason
         FROM quarantine WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut bytes = 0;
    let mut bodies = Vec::new();
    for body in statement.query_map(params![signed(after), limit], quarantined)? {
        let body = body?;
        bytes += body.body.len();
        bodies.push(body);
        if bytes >= most_bytes {
            break;
        }
    }
    Ok(bodies)
}

/// The bodies of a damaged file, read one by one: a damaged page costs only what is on it, and
/// all bodies together may be more than memory has room for.
#[derive(Debug)]
pub struct ReadableBodies {
    after: u64,
    newest: u64,
    /// The number of rows so far that could not be read.
    pub unreadable: u64,
}

impl ReadableBodies {
    /// Begins with the first body.
    pub fn begin(sql: &Connection) -> Self {
        // The file itself remembers the highest id, also where the last page is damaged.
        let newest = sql.query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'quarantine'",
            [],
            |row| row.get(0),
        );
        Self {
            after: 0,
            newest: newest.map_or(0, unsigned),
            unreadable: 0,
        }
    }

    /// Reads the next body that can be read.
    pub fn next(&mut self, sql: &Connection) -> Option<Quarantined> {
        loop {
            match list(sql, self.after, 1, 0).map(|mut found| found.pop()) {
                Ok(Some(body)) => {
                    self.after = body.id;
                    return Some(body);
                }
                Err(_) if self.after < self.newest => {
                    self.after += 1;
                    self.unreadable += 1;
                }
                Ok(None) | Err(_) => return None,
            }
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

#[cfg(test)]
mod tests {
    use event_model::Timestamp;

    use super::*;

    fn body(number: u8) -> Quarantined {
        Quarantined {
            id: 0,
            body: vec![number; 1000].into(),
            proof: Proof::Signed(Algorithm::Sha512),
            key: KeyId::any_named(KeyName::new("sydney", Environment::Sandbox)),
            signature: "AAAA".to_owned(),
            received_at: Timestamp::UNIX_EPOCH,
            reason: "no name".to_owned(),
        }
    }

    #[test]
    fn a_page_ends_where_its_bytes_do_and_is_never_empty_before_the_end() {
        let sql = Connection::open_in_memory().unwrap();
        sql.execute_batch(TABLE).unwrap();
        (1..=10).for_each(|number| keep(&sql, &body(number)).unwrap());
        let page = |after, bytes| -> Vec<u64> {
            let bodies = list(&sql, after, 256, bytes).unwrap();
            bodies.iter().map(|body| body.id).collect()
        };
        assert_eq!(page(0, 2500), [1, 2, 3]);
        assert_eq!(page(3, 0), [4]);
        assert_eq!(page(8, 1 << 20), [9, 10]);
        assert!(page(10, 2500).is_empty());
        let mut readable = ReadableBodies::begin(&sql);
        let read: Vec<u64> = std::iter::from_fn(|| readable.next(&sql))
            .map(|body| body.id)
            .collect();
        assert_eq!((read.len(), readable.unreadable), (10, 0));
    }
}
