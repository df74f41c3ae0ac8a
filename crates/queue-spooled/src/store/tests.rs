//! The store of a spool by itself.

use std::path::Path;
use std::sync::Arc;

use event_model::{Event, SystemClock, Timestamp};
use queue::conformance::event;
use rusqlite::{Connection, params};
use sqlite_file::rows::{nanos, signature_bytes};

use super::*;

/// The tables of the first format, which had what became of a row beside its body.
const FIRST_FORMAT: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('format', 1), ('epoch', 'e');
CREATE TABLE spooled (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, key TEXT NOT NULL,
    algorithm TEXT NOT NULL, signature BLOB NOT NULL, received_at INTEGER NOT NULL, trace TEXT,
    bucket INTEGER NOT NULL, state INTEGER NOT NULL, epoch TEXT, position INTEGER,
    acknowledged_at INTEGER, body BLOB NOT NULL
);
CREATE INDEX spooled_unsent ON spooled (row) WHERE state = 0;
CREATE INDEX spooled_unconfirmed ON spooled (acknowledged_at, row) WHERE state = 1;
CREATE INDEX spooled_positions ON spooled (epoch, position) WHERE state = 1;
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, body BLOB NOT NULL,
    algorithm TEXT NOT NULL, key TEXT NOT NULL, signature BLOB NOT NULL,
    received_at INTEGER NOT NULL, reason TEXT NOT NULL
);";

fn open(path: &Path) -> Spool<()> {
    Spool::open(path, u64::MAX, Arc::new(SystemClock), Box::new(|_, _, ()| {})).unwrap()
}

fn insert_in_first_format(sql: &Connection, event: &Event, state: i64) {
    let stored = event.stored();
    sql.execute(
        "INSERT INTO spooled (id, key, algorithm, signature, received_at, bucket, state, epoch, position, acknowledged_at, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'e', 7, 1, ?8)",
        params![
            event.id().as_bytes(),
            stored.key.to_text(),
            stored.proof.as_str(),
            signature_bytes(&stored.signature),
            nanos(stored.received_at),
            event.bucket(),
            state,
            &stored.body[..],
        ],
    )
    .unwrap();
}

#[tokio::test]
async fn a_spool_of_the_first_format_is_taken_over_with_all_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(FIRST_FORMAT).unwrap();
    for (state, name) in ["unsent", "acknowledged", "aside"].into_iter().enumerate() {
        insert_in_first_format(&sql, &event("E", name), i64::try_from(state).unwrap());
    }
    drop(sql);

    let spool = open(&path);
    let state = spool.state().await.unwrap();
    assert_eq!((state.unsent, state.unconfirmed, state.set_aside), (1, 1, 1));
    let unsent = spool.unsent(0, 1, 0, 9).await.unwrap();
    assert_eq!(
        unsent.iter().map(|(row, event)| (*row, event.id())).collect::<Vec<_>>(),
        [(1, event("E", "unsent").id())]
    );
    let unconfirmed = spool.unconfirmed(Timestamp::MAX, (i64::MIN, 0), 9).await.unwrap();
    assert_eq!(
        unconfirmed[0].at,
        Acknowledged { row: 2, epoch: "e".to_owned(), position: Position::new(0, 7).unwrap() }
    );
    // And it goes on as a file of today.
    assert!(spool.keep(event("E", "new"), ()).await.is_ok_and(|kept| !kept.is_duplicate));
    spool.close().await;
    drop(spool);
    assert_eq!(open(&path).state().await.unwrap().unsent, 2);
}

#[tokio::test]
async fn what_is_acknowledged_twice_is_one_row_and_what_is_set_aside_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder.path().join("spool.db"));
    for name in ["twice", "aside"] {
        spool.keep(event("E", name), ()).await.unwrap();
    }
    spool.put_aside(2).await.unwrap();
    let position = |sequence| Position::new(0, sequence).unwrap();
    let at = |row, sequence| Acknowledged { row, epoch: "e".to_owned(), position: position(sequence) };
    spool.acknowledged(vec![at(1, 7), at(2, 8)]);
    spool.acknowledged(vec![at(1, 9)]);
    let unconfirmed = spool.unconfirmed(Timestamp::MAX, (i64::MIN, 0), 9).await.unwrap();
    assert_eq!(unconfirmed.iter().map(|row| row.at.clone()).collect::<Vec<_>>(), [at(1, 9)]);
    assert_eq!(spool.acknowledged_in("e".to_owned()).await.unwrap(), (position(9), false));
    assert_eq!(spool.acknowledged_in("another".to_owned()).await.unwrap(), (Position::START, true));
    assert_eq!(spool.state().await.unwrap().set_aside, 1);
    // Given once more, it is good again.
    assert!(spool.keep(event("E", "aside"), ()).await.is_ok_and(|kept| !kept.is_duplicate));
    assert_eq!(spool.state().await.unwrap().set_aside, 0);
}

/// Bytes of files that this thread reads for it.
fn read_of(work: impl FnOnce()) -> u64 {
    let so_far = || -> u64 {
        let told = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        told.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    };
    let before = so_far();
    work();
    so_far() - before
}

#[tokio::test]
async fn opening_a_spool_reads_no_more_than_its_check_does_which_large_ones_are_spared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let open = || Spool::<()>::open(&path, 1 << 30, Arc::new(SystemClock), Box::new(|_, _, ()| {})).unwrap();
    open().close().await;
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(
        "PRAGMA synchronous = OFF; BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO spooled SELECT i, randomblob(32), 'k', 'SHA512withRSA', x'00', 1, NULL, 0, randomblob(1000) FROM n;
         INSERT INTO unsent SELECT row, 0 FROM spooled; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
    drop(sql);
    let check = read_of(|| {
        let sql = sqlite_file::connect(&path, false).unwrap();
        sql.query_row("PRAGMA quick_check(1)", [], |_| Ok(())).unwrap();
    });
    let mut opened = None;
    let read = read_of(|| opened = Some(open()));
    assert!(read < check + check / 10, "{read}, and its check {check}");
    let spool = opened.unwrap();
    assert!(spool.bytes() > 20_000_000);
    spool.close().await;
}
