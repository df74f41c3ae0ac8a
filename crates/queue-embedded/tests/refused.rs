//! The store of rejected webhooks stays within its bytes and its time.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use event_model::{Bytes, Clock, Headers, SystemClock, Timestamp};
use fluent_queue_embedded::{Embedded, Options, SqliteStores};
use queue::{Lifecycle, REFUSED_BYTES, REFUSED_FOR, RejectedStore, RejectedWebhook};

/// A webhook of a mebibyte, different for each number.
fn webhook(number: u64, at: Timestamp) -> RejectedWebhook {
    let mut body = vec![b' '; 1 << 20];
    body[..8].copy_from_slice(&number.to_be_bytes());
    let headers: Headers = [("fluent-signature", "c2ln")].into_iter().collect();
    RejectedWebhook::stored(
        0,
        Bytes::from(body),
        headers,
        at,
        "signature-mismatch".to_owned(),
        "ACME".to_owned(),
    )
}

fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_make_room_and_none_outlives_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    drop(Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap());
    let at: Timestamp = "2026-11-25T08:00:00Z".parse().unwrap();
    let hold = SqliteStores::open(&path, Some(nanos(at))).unwrap();
    for number in 0..70 {
        hold.capture(webhook(number, at)).await.unwrap();
    }
    let count = RejectedStore::count(&hold).await.unwrap();
    assert!(
        count.bytes <= REFUSED_BYTES && count.bytes > REFUSED_BYTES - (2 << 20),
        "{count:?}"
    );
    let (mut held, mut after) = (Vec::new(), 0);
    loop {
        // A page ends where its bytes do.
        let page = RejectedStore::list(&hold, after, 100).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.id;
        held.extend(page.iter().map(|webhook| webhook.id));
    }
    assert_eq!(
        (held.len() as u64, held[0]),
        (count.webhooks, 70 - count.webhooks + 1)
    );

    let later = at.checked_add(REFUSED_FOR).unwrap();
    let hold = SqliteStores::open(&path, Some(nanos(later) + 1)).unwrap();
    hold.capture(webhook(100, later)).await.unwrap();
    let count = RejectedStore::count(&hold).await.unwrap();
    assert_eq!(
        (count.webhooks, count.bytes),
        (1, webhook(100, later).bytes())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_queue_is_not_filled_by_what_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path().join("queue.db"));
    options.retention.bytes = 32 << 20;
    let queue = Embedded::open(options, Arc::new(SystemClock)).unwrap();
    for number in 0..10 {
        queue
            .stores()
            .refused()
            .capture(webhook(number, SystemClock.now()))
            .await
            .unwrap();
    }
    let count = queue.stores().refused().count().await.unwrap();
    assert!(count.bytes <= (32 << 20) / 10, "{count:?}");
    queue.close().await;
}
