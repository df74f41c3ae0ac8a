//! A disk that hangs or fails, by fail points.

#![cfg(feature = "failpoints")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use event_model::{Event, EventId, StoredEvent, SystemClock};
use fluent_queue_spooled::Spool;
use queue::QueueError;
use queue::conformance::event;

/// Serializes the tests, since fail points are of the whole process.
static FAIL_POINTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_whose_fsync_failed_is_read_and_never_written_again() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool: Spool<()> = Spool::open(
        &path,
        1 << 30,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
    .unwrap();
    let row = spool.keep(event("E", "a"), ()).await.unwrap().row;
    fail::cfg("commit.fsync", "return").unwrap();
    assert!(matches!(
        spool.keep(event("E", "b"), ()).await,
        Err(QueueError::Failed(_))
    ));
    fail::cfg("commit.fsync", "off").unwrap();
    let bytes = || {
        ["spool.db", "spool.db-wal"].map(|name| std::fs::read(folder.path().join(name)).unwrap())
    };
    let before = bytes();
    assert!(spool.remove(vec![row]).await.is_err());
    assert!(spool.mark_unsendable(row).await.is_err());
    assert!(matches!(
        spool.keep(event("E", "c"), ()).await,
        Err(QueueError::Failed(_))
    ));
    assert_eq!(
        spool.unsent(0, 1, 0, 10).await.unwrap().len(),
        1,
        "what it holds is sent on"
    );
    spool.close().await;
    assert!(bytes() == before, "it was written to");
    drop(spool);
    // Pages that the disk did not confirm may be read back from memory: the next process must not
    // trust the file.
    let next: Spool<()> = Spool::open(
        &path,
        1 << 30,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
    .unwrap();
    assert!(
        next.damaged_file().is_some(),
        "word is left for the next start"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_disk_costs_bounded_memory_and_what_was_given_up_is_not_kept() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool: Spool<()> = Spool::open(
        &path,
        1 << 30,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
    .unwrap();
    spool.keep(event("E", "before"), ()).await.unwrap();
    let hangs = Arc::new(AtomicBool::new(true));
    let hanging = Arc::clone(&hangs);
    let (sender, in_hands) = std::sync::mpsc::channel();
    fail::cfg_callback("commit.before", move || {
        let _ = sender.send(());
        while hanging.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    })
    .unwrap();
    let in_hand = spool.keep(event("E", "in hand"), ());
    in_hands.recv_timeout(Duration::from_secs(60)).unwrap();
    let mut refused = 0;
    for number in 0..200 {
        let given_up =
            tokio::time::timeout(Duration::from_millis(5), spool.keep(large(number), ())).await;
        refused += usize::from(matches!(given_up, Ok(Err(QueueError::Unavailable { .. }))));
    }
    assert!(
        refused >= 200 - 64,
        "{refused}: what waits is bounded in bytes"
    );
    let began = Instant::now();
    while spool.has_room() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "somebody should see that nothing is written"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fail::remove("commit.before");
    hangs.store(false, Ordering::Relaxed);
    assert_eq!(in_hand.await.unwrap().row, 2);
    assert_eq!(
        spool.keep(event("E", "after"), ()).await.unwrap().row,
        3,
        "what was given up is not kept"
    );
    assert!(spool.has_room());
}

fn large(number: usize) -> Event {
    let small = event("E", "x");
    let body = String::from_utf8(small.body().to_vec()).unwrap();
    let more = format!(r#"{{"pad":"{number}{}","#, "x".repeat(1 << 20));
    let stored = StoredEvent {
        body: body.replacen('{', &more, 1).into(),
        ..small.stored().clone()
    };
    Event::restore(EventId::of(small.environment(), &stored.body), stored).unwrap()
}
