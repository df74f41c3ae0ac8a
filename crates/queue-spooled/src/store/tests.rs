//! Tests of a spool's store by itself.

use std::path::Path;
use std::sync::Arc;

use event_model::{SystemClock, Timestamp};
use queue::conformance::event;
use rusqlite::Connection;
use sqlite_file::Owner;

use super::*;

fn open(path: &Path) -> Spool<()> {
    Spool::open(
        path,
        u64::MAX,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
    .unwrap()
}

#[tokio::test]
async fn a_spool_of_another_format_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool = open(&path);
    spool.keep(event("E", "a"), ()).await.unwrap();
    spool.close().await;
    drop(spool);
    let format = |format| {
        let sql = Connection::open(&path).unwrap();
        sql.execute("UPDATE meta SET value = ?1 WHERE key = 'format'", [format])
            .unwrap();
    };
    format(2);
    let refused =
        Spool::<()>::open(&path, 1, Arc::new(SystemClock), Box::new(|_, _, ()| {})).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("has format 2, and this program works with 3 alone: let the version"),
        "{said}"
    );
    format(3);
    let spool = open(&path);
    assert_eq!(
        (spool.damaged_file(), spool.state().await.unwrap().unsent),
        (None, 1)
    );
}

#[tokio::test]
async fn what_is_acknowledged_twice_is_one_row_and_what_is_set_aside_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder.path().join("spool.db"));
    for name in ["twice", "aside"] {
        spool.keep(event("E", name), ()).await.unwrap();
    }
    spool.mark_unsendable(2).await.unwrap();
    let position = |sequence| Position::new(0, sequence).unwrap();
    let at = |row, sequence| AcknowledgedRow {
        row,
        epoch: "e".to_owned(),
        position: position(sequence),
    };
    spool.acknowledged(vec![at(1, 7), at(2, 8)]);
    spool.acknowledged(vec![at(1, 9)]);
    let unconfirmed = spool
        .unconfirmed(Timestamp::MAX, (i64::MIN, 0), 9)
        .await
        .unwrap();
    assert_eq!(
        unconfirmed
            .iter()
            .map(|row| row.at.clone())
            .collect::<Vec<_>>(),
        [at(1, 9)]
    );
    assert_eq!(
        spool.acknowledged_in("e".to_owned()).await.unwrap(),
        (position(9), false)
    );
    assert_eq!(
        spool.acknowledged_in("another".to_owned()).await.unwrap(),
        (Position::START, true)
    );
    assert_eq!(spool.state().await.unwrap().set_aside, 1);
    // A row is good again once its event is stored again.
    assert!(
        spool
            .keep(event("E", "aside"), ())
            .await
            .is_ok_and(|kept| !kept.is_duplicate)
    );
    assert_eq!(spool.state().await.unwrap().set_aside, 0);
}

/// Number of bytes that this thread reads from files during `work`.
fn read_of(work: impl FnOnce()) -> u64 {
    let so_far = || -> u64 {
        let told = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        told.lines()
            .find_map(|line| line.strip_prefix("rchar: "))
            .unwrap()
            .parse()
            .unwrap()
    };
    let before = so_far();
    work();
    so_far() - before
}

#[tokio::test]
async fn opening_a_spool_reads_no_more_than_its_check_does_which_large_ones_are_spared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let open = || {
        Spool::<()>::open(
            &path,
            1 << 30,
            Arc::new(SystemClock),
            Box::new(|_, _, ()| {}),
        )
        .unwrap()
    };
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
        let sql = sqlite_file::connect(&path).unwrap();
        sql.query_row("PRAGMA quick_check(1)", [], |_| Ok(()))
            .unwrap();
    });
    let mut opened = None;
    let read = read_of(|| opened = Some(open()));
    assert!(read < check + check / 10, "{read}, and its check {check}");
    let spool = opened.unwrap();
    assert!(spool.bytes() > 20_000_000);
    spool.close().await;
}

/// Otherwise a reader that does not end would fill the disk while the spool has room.
#[tokio::test]
async fn the_log_that_a_reader_holds_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    open(&path).close().await;
    let mut sql = sqlite_file::connect(&path).unwrap();
    let reader = Connection::open(&path).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM spooled")
        .unwrap();
    for _ in 0..3 {
        sql.execute_batch("CREATE TABLE large AS SELECT randomblob(10000000); DROP TABLE large")
            .unwrap();
    }
    let level = Arc::new(Level::new(0, 1 << 30));
    let status = Arc::new(FileStatus::new(&path, &MESSAGES));
    let time = SpoolTime::go_on(&sql, Arc::new(SystemClock)).unwrap();
    let mut owner = SpoolOwner::new(Arc::clone(&level), status, Arc::new(time));
    let later = std::time::Instant::now() + std::time::Duration::from_secs(9);
    owner
        .housekeep(&mut sql, &mut sqlite_file::Log::default(), later)
        .unwrap();
    assert!(level.bytes() > 10_000_000, "{}", level.bytes());
}

#[tokio::test]
async fn a_backup_is_the_same_spool_as_it_was_at_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool = open(&path);
    spool.keep(event("E", "a"), ()).await.unwrap();
    let copy = folder.path().join("copy.db");
    let state = backup(&path, &copy).unwrap();
    spool.keep(event("E", "b"), ()).await.unwrap();
    assert_eq!(state.unsent, 1);
    let restored = open(&copy);
    assert_eq!(restored.id(), spool.id());
    assert_eq!(restored.state().await.unwrap().unsent, 1);
    assert_eq!(spool.state().await.unwrap().unsent, 2);
}
