//! A disk that hangs costs bounded memory, and what was given up is not stored later.

#![cfg(feature = "failpoints")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{Event, EventId, Stored, SystemClock};
use queue::conformance::event;
use queue::{EventQueue, QueueError};
use queue_embedded::{Embedded, Options};

fn large(number: usize) -> Event {
    let small = event("E", "x");
    let body = String::from_utf8(small.body().to_vec()).unwrap();
    let more = format!(r#"{{"pad":"{number}{}","#, "x".repeat(1 << 20));
    let stored = Stored { body: body.replacen('{', &more, 1).into(), ..small.stored().clone() };
    Event::restore(EventId::of(small.environment(), &stored.body), stored).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_disk_costs_bounded_memory_and_what_was_given_up_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Embedded::open(Options::new(folder.path().join("queue.db")), Arc::new(SystemClock)).unwrap();
    queue.publish(event("E", "before")).await.unwrap();
    fail::cfg("commit.before", "pause").unwrap();
    let mut in_hand = queue.publish(event("E", "in hand"));
    // Handed in, and in the writer's hands.
    assert!(futures::FutureExt::now_or_never(&mut in_hand).is_none());
    let mut refused = 0;
    for number in 0..200 {
        let given_up = tokio::time::timeout(Duration::from_millis(5), queue.publish(large(number))).await;
        refused += usize::from(matches!(given_up, Ok(Err(QueueError::Unavailable { .. }))));
    }
    assert!(refused >= 200 - 64, "{refused}: what waits is bounded in bytes");
    let began = Instant::now();
    while queue.has_room() {
        assert!(began.elapsed() < Duration::from_secs(10), "somebody should see that nothing is written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fail::cfg("commit.before", "off").unwrap();
    assert!(in_hand.await.is_ok());
    let after = queue.publish(event("E", "after")).await.unwrap();
    assert!(queue.has_room());
    assert_eq!(after.position.sequence(), 3, "those who gave up were told that it was not stored");
}
