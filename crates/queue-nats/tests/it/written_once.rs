//! What a settlement has written it does not write again, however long the acknowledgement takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fluent_queue_nats::Options;
use queue::conformance::event;
use queue::{DeadReason, Disposition, Intake, Lifecycle, Source};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::deaths::denied;
use crate::joining::{open, route, settlement};
use crate::proxy::Proxy;

const IN_TIME: Duration = Duration::from_secs(60);

/// Number of acknowledgements without an answer that are waited for.
const TRIED: usize = 3;

/// What is said by each.
const ACKNOWLEDGED: &[u8] = b"\r\n+ACK\r\n";

/// Settles while nothing can be acknowledged, and the server forgets ids at once. Returns how many
/// messages the settlement has written, also by the time that its process has stopped.
async fn written(stream: &str, disposition: Disposition) -> u64 {
    let (servers, options, less, _folder) = denied("$JS.ACK.>").await;
    let admin = open(&options).await;
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let proxy = Proxy::hearing(servers.servers[0].port(), move |said| {
        let acknowledged = said
            .windows(ACKNOWLEDGED.len())
            .filter(|part| *part == ACKNOWLEDGED)
            .count();
        counted.fetch_add(acknowledged, Ordering::AcqRel);
    })
    .await;
    let queue = open(&Options {
        servers: vec![proxy.url()],
        discover_servers: false,
        ..less
    })
    .await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let client = async_nats::ConnectOptions::with_user_and_password("admin".into(), "x".into())
        .connect(servers.urls())
        .await
        .unwrap();
    let raw = async_nats::jetstream::new(client);
    let mut found = raw.get_stream(stream).await.unwrap();
    let mut config = found.cached_info().config.clone();
    config.duplicate_window = Duration::from_millis(100);
    raw.update_stream(config).await.unwrap();
    admin.publish(event("E", "x")).await.unwrap();
    let next = timeout(IN_TIME, consumer.next(1)).await.unwrap().unwrap();
    let delivery = next.into_iter().next().unwrap();
    let mut settling = JoinSet::new();
    settling.spawn(delivery.ticket.settle(settlement(disposition)));
    let began = Instant::now();
    while tried.load(Ordering::Acquire) < TRIED {
        assert!(began.elapsed() < IN_TIME, "{tried:?} tries");
        assert!(settling.try_join_next().is_none(), "it was acknowledged");
        sleep(Duration::from_millis(50)).await;
    }
    queue.close().await;
    drop(timeout(IN_TIME, settling.join_next()).await.unwrap());
    let written = found.info().await.unwrap().state.messages;
    admin.close().await;
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_cannot_be_acknowledged_is_written_once() {
    let (letters, schedules) = tokio::join!(
        written("FLUENT_DEAD", Disposition::Dead(DeadReason::Permanent)),
        // A schedule replaces another of the same delivery; what is due at once does not.
        written(
            "FLUENT_RETRIES",
            Disposition::Again(Duration::from_millis(1))
        )
    );
    assert_eq!((letters, schedules), (1, 1));
}
