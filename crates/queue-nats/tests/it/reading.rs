//! Reading streams through while others change them: every answer comes, and in time.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use event_model::SystemClock;
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    AcceptedQuery, AttemptQuery, DeadQuery, DeadReason, Disposition, Intake, Lifecycle, Source,
    Upstream,
};
use tokio::time::timeout;

use crate::joining::{route, settlement, world};

/// Longer than any of these takes on a busy machine.
const IN_TIME: Duration = Duration::from_secs(60);

async fn raw(servers: &Servers) -> Context {
    async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap())
}

/// Removes messages of `stream` from both ends, again and again, while `reading` runs.
async fn while_removing<T>(
    servers: &Servers,
    stream: &str,
    count: u64,
    reading: impl Future<Output = T>,
) -> T {
    let stream = raw(servers).await.get_stream(stream).await.unwrap();
    let removing = async {
        for number in 1..count / 3 {
            let _ = stream.delete_message(count - number).await;
            let _ = stream.delete_message(number).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        read = timeout(IN_TIME, reading) => read.expect("an answer in time"),
        () = removing => unreachable!("it never ends"),
    }
}

async fn filled() -> (Servers, Arc<JetStream>, u64) {
    const COUNT: u64 = 3_000;
    let (servers, options) = world().await;
    let queue = Arc::new(
        JetStream::open(options, Arc::new(SystemClock))
            .await
            .unwrap(),
    );
    let events: Vec<_> = (0..COUNT)
        .map(|number| event("E", &number.to_string()))
        .collect();
    assert!(queue.publish_many(&events).await.error.is_none());
    let mut consumer = queue
        .subscribe(queue::Route {
            start: queue::StartPosition::Beginning,
            ..route(&[])
        })
        .await
        .unwrap();
    let mut settled = 0;
    while settled < COUNT {
        let deliveries = consumer.next(512).await.unwrap();
        let settling = deliveries.into_iter().map(|delivery| async {
            delivery
                .ticket
                .settle(settlement(Disposition::Dead(DeadReason::Permanent)))
                .await
                .unwrap();
        });
        settled += futures::future::join_all(settling).await.len() as u64;
    }
    (servers, queue, COUNT)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_while_somebody_discards_them() {
    let (servers, queue, count) = filled().await;
    let query = DeadQuery {
        limit: 10_000,
        ..DeadQuery::default()
    };
    let list = async { queue.stores().dead_letters().list(query).await.unwrap() };
    let letters = while_removing(&servers, "FLUENT_DEAD", count, list).await;
    assert!(
        letters.len() as u64 > count / 3,
        "those that nobody discards: {}",
        letters.len()
    );
    assert!(letters.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_while_events_and_attempts_are_removed() {
    let (servers, queue, count) = filled().await;
    let history = queue.stores().history();
    let find = async { history.find("no-such-order", 10).await.unwrap() };
    assert!(
        while_removing(&servers, "FLUENT_EVENTS", count, find)
            .await
            .is_empty()
    );
    let query = AttemptQuery {
        limit: 10_000,
        ..AttemptQuery::default()
    };
    let attempts = async { history.attempts(query).await.unwrap() };
    while_removing(&servers, "FLUENT_ATTEMPTS", 10, attempts).await;
    // All of it at once, as retention does.
    let stream = raw(&servers)
        .await
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap();
    let (found, purged) = tokio::join!(
        timeout(IN_TIME, history.find("no-such-order", 10)),
        stream.purge().into_future()
    );
    purged.unwrap();
    assert!(found.expect("an answer in time").unwrap().is_empty());
}

/// A stream that is removed in the middle is an error, and is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_while_it_is_read_is_an_error_in_time() {
    let (servers, queue, _) = filled().await;
    let query = DeadQuery {
        limit: 10_000,
        ..DeadQuery::default()
    };
    let jetstream = raw(&servers).await;
    let (listed, deleted) = tokio::join!(
        timeout(IN_TIME, queue.stores().dead_letters().list(query.clone())),
        jetstream.delete_stream("FLUENT_DEAD")
    );
    deleted.unwrap();
    drop(listed.expect("an answer in time"));
    let after = timeout(IN_TIME, queue.stores().dead_letters().list(query))
        .await
        .expect("an answer in time");
    assert!(after.is_err());
}

/// A server that is behind, since it hung, may be the one that is asked for a part of the stream:
/// what is confirmed is read all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_is_read_also_from_a_server_that_is_behind() {
    const ROUNDS: usize = 6;
    let servers = Servers::start(3, &nats_server::Options::default()).unwrap();
    let mut options = Options::new(servers.urls());
    (options.layout.bytes, options.layout.replicas) = (512 << 20, 3);
    let cluster = Cluster::connect(&options).await.unwrap();
    assert!(cluster.init().await.unwrap().is_good());
    let queue = JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    for round in 0..ROUNDS {
        let leader = servers.leader("FLUENT_EVENTS").unwrap();
        let follower = &servers.servers[(leader + 1) % 3];
        follower.freeze();
        let many: Vec<_> = (0..3_000)
            .map(|number| event("E", &format!("{round}-{number}")))
            .collect();
        for some in many.chunks(500) {
            // Again, if a server with a connection of ours hangs.
            while queue.publish_many(some).await.error.is_some() {}
        }
        let name = format!("LAST{round}");
        while queue.publish(event(&name, "x")).await.is_err() {}
        follower.thaw();
        let reading = (0..24).map(|_| async {
            let query = AcceptedQuery {
                event: Some(name.clone()),
                limit: 1,
                examined: 100,
                ..AcceptedQuery::default()
            };
            loop {
                // A server that hung may not answer at first.
                if let Ok(page) = queue.stores().history().accepted(query.clone()).await {
                    return page.events.len();
                }
            }
        });
        let read = timeout(IN_TIME, futures::future::join_all(reading)).await;
        let read = read.expect("answers in time");
        assert!(read.iter().all(|found| *found == 1), "{round}: {read:?}");
    }
    queue.close().await;
}
