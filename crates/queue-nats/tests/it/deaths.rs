//! Only an attempt that began can have crashed a process.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use fluent_queue_nats::{Identity, JetStream, Options, cluster::Cluster};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{Consumer, Disposition, Intake, Lifecycle, Route, Source, StartPosition};
use tokio::time::{Instant, sleep, timeout};

use crate::joining::{open, route, settlement, world};
use crate::proxy::Proxy;

const IN_TIME: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_match_kills_nobody() {
    let (_servers, options) = world().await;
    let mut asking = tokio::task::JoinSet::new();
    let mut before = Vec::new();
    for _ in 0..8 {
        let queue = open(&options).await;
        let mut consumer = queue
            .subscribe(Route {
                lease: IN_TIME,
                ..route(&["OLD"])
            })
            .await
            .unwrap();
        asking.spawn(async move { while consumer.next(16).await.is_ok() {} });
        before.push(queue);
    }
    let after = open(&options).await;
    let mut consumer = after
        .subscribe(Route {
            lease: IN_TIME,
            ..route(&[])
        })
        .await
        .unwrap();
    for number in 0..60 {
        after
            .publish(event(&format!("W{number}"), "w"))
            .await
            .unwrap();
    }
    let mut seen = BTreeMap::new();
    while seen.values().sum::<u32>() < 60 {
        let deliveries = timeout(IN_TIME, consumer.next(16)).await.unwrap().unwrap();
        for delivery in deliveries {
            *seen.entry((delivery.attempt, delivery.deaths)).or_insert(0) += 1;
            delivery
                .ticket
                .settle(settlement(Disposition::Done))
                .await
                .unwrap();
        }
    }
    assert_eq!(
        seen,
        BTreeMap::from([((1, 0), 60)]),
        "by attempt and deaths"
    );
    for queue in before {
        queue.close().await;
    }
}

/// A server whose `d` may not publish to what `denied` names; requests are publishes, too.
pub(crate) async fn denied(denied: &str) -> (Servers, Options, Options, tempfile::TempDir) {
    let more = format!(
        "authorization {{ users: [ {{user: admin, password: x}}, \
         {{user: d, password: x, permissions: {{publish: {{deny: [\"{denied}\"]}}}}}} ] }}"
    );
    let servers = Servers::start(
        1,
        &nats_server::Options {
            more,
            ..nats_server::Options::default()
        },
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "x").unwrap();
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    options.identity = Identity::Password("admin".into(), secret.clone());
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let less = Options {
        identity: Identity::Password("d".into(), secret),
        ..options.clone()
    };
    (servers, options, less, folder)
}

async fn marks_that_cannot_be_read_kill_nobody(stream: &str) {
    let (_servers, options, less, _folder) =
        denied(&format!("$JS.API.STREAM.MSG.GET.{stream}")).await;
    let admin = open(&options).await;
    let other = open(&less).await;
    let brief = Route {
        lease: Duration::from_secs(3),
        start: StartPosition::Beginning,
        ..route(&[])
    };
    let mut consumer = other.subscribe(brief.clone()).await.unwrap();
    admin.publish(event("E", "x")).await.unwrap();
    std::mem::forget(consumer.next(1).await.unwrap());
    // It comes again and again, and nobody can say what became of its first attempt.
    assert!(
        timeout(Duration::from_secs(10), consumer.next(1))
            .await
            .is_err(),
        "not on a guess"
    );
    drop(consumer);
    other.close().await;
    let mut consumer = admin.subscribe(brief).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    assert_eq!(
        (delivery.attempt, delivery.deaths),
        (2, 1),
        "one attempt began, and was not heard of again"
    );
    delivery
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    admin.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_up_waits_and_is_no_death() {
    tokio::join!(
        marks_that_cannot_be_read_kill_nobody("FLUENT_INFLIGHT"),
        marks_that_cannot_be_read_kill_nobody("FLUENT_ATTEMPTS")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_up_delays_nothing_that_is_new() {
    let (servers, _, less, _folder) = denied("$JS.API.STREAM.MSG.GET.FLUENT_INFLIGHT").await;
    let queue = open(&less).await;
    let route = Route {
        lease: Duration::from_secs(3),
        ..route(&[])
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    for number in 0..16 {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
    }
    let mut taken = 0;
    while taken < 16 {
        let deliveries = consumer.next(16).await.unwrap();
        taken += deliveries.len();
        std::mem::forget(deliveries);
    }
    // As many as anybody asks for. Until they have come again, and are being looked up.
    let client = async_nats::ConnectOptions::with_user_and_password("admin".into(), "x".into())
        .connect(servers.urls())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut raw: PullConsumer = jetstream
        .get_consumer_from_stream("r", "FLUENT_EVENTS")
        .await
        .unwrap();
    let came_again = async {
        loop {
            let more = timeout(Duration::from_millis(500), consumer.next(16)).await;
            assert!(more.is_err(), "{more:?}");
            if raw.info().await.unwrap().num_redelivered >= 16 {
                break;
            }
        }
    };
    timeout(IN_TIME, came_again)
        .await
        .expect("their leases end");
    let began = Instant::now();
    queue.publish(event("NEW", "x")).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(16))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    assert_eq!(delivery.event.name(), "NEW");
    // One after the other they are looked up, in vain, for three times as long.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "after {:?}",
        began.elapsed()
    );
    queue.close().await;
}

/// A single server loses what is in memory with its restart.
#[tokio::test(flavor = "multi_thread")]
async fn marks_are_written_and_a_dispatcher_starts_after_the_only_server_restarted() {
    let (mut servers, options) = world().await;
    let queue = open(&options).await;
    let brief = Route {
        lease: Duration::from_secs(2),
        ..route(&[])
    };
    let mut consumer = queue.subscribe(brief.clone()).await.unwrap();
    servers.kill_all();
    servers.start_all().unwrap();
    timeout(IN_TIME, async {
        while queue.publish(event("E", "x")).await.is_err() {}
    })
    .await
    .unwrap();
    let held = timeout(IN_TIME, consumer.next(1)).await.unwrap().unwrap();
    assert_eq!((held[0].attempt, held[0].deaths), (1, 0));
    std::mem::forget((held, consumer, queue));
    let after = open(&options).await;
    let mut consumer = after.subscribe(brief).await.unwrap();
    let again = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    assert_eq!(
        (again.attempt, again.deaths),
        (2, 1),
        "the mark was written"
    );
    again
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    after.close().await;
}

/// Delivers one event; returns how long that took.
async fn deliver_one(queue: &JetStream, consumer: &mut dyn Consumer, number: u32) -> Duration {
    let began = Instant::now();
    queue
        .publish(event("E", &number.to_string()))
        .await
        .unwrap();
    let next = timeout(IN_TIME, consumer.next(1)).await;
    let delivery = next.unwrap().unwrap().remove(0);
    let settled = delivery.ticket.settle(settlement(Disposition::Done));
    settled.await.unwrap();
    began.elapsed()
}

/// The stream of markers that somebody has deleted is made again with the next of them.
#[tokio::test(flavor = "multi_thread")]
async fn marks_are_written_again_after_their_stream_was_deleted() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    jetstream.delete_stream("FLUENT_INFLIGHT").await.unwrap();
    deliver_one(&queue, &mut *consumer, 0).await;
    let mut marks = jetstream.get_stream("FLUENT_INFLIGHT").await.unwrap();
    assert_eq!(marks.info().await.unwrap().state.messages, 1);
    queue.close().await;
}

/// Where marks have no answer, the first deliveries wait for it, and those after them do not.
#[tokio::test(flavor = "multi_thread")]
async fn marks_that_cannot_be_written_delay_deliveries_once_and_stop_none() {
    /// As long as somebody waits for a mark.
    const WAITED: Duration = Duration::from_secs(2);
    let (_servers, _, less, _folder) = denied("fluent.inflight.>").await;
    let queue = open(&less).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let first = deliver_one(&queue, &mut *consumer, 0).await;
    assert!(first >= WAITED, "its mark was not waited for: {first:?}");
    let mut delayed = 0;
    for number in 1..20 {
        delayed += usize::from(deliver_one(&queue, &mut *consumer, number).await >= WAITED);
    }
    assert!(
        delayed <= 9,
        "{delayed} of 19: not the first alone, whatever this machine does"
    );
    queue.close().await;
}

/// Somebody whose deliveries can't be written back stops, and another goes on.
async fn a_stop_without_the_retries_is_no_death(is_alone: bool) {
    let (_servers, options, less, _folder) = denied("fluent.retries.>").await;
    let admin = open(&options).await;
    let other = open(&less).await;
    let brief = Route {
        lease: Duration::from_secs(3),
        ..route(&[])
    };
    let mut consumer = other.subscribe(brief.clone()).await.unwrap();
    admin.publish(event("E", "x")).await.unwrap();
    let mut held = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    if is_alone {
        held.ticket.mark_exclusive().await.unwrap();
    }
    drop((held, consumer));
    other.close().await;
    let mut consumer = admin.subscribe(brief).await.unwrap();
    let again = timeout(IN_TIME, consumer.next(1))
        .await
        .expect("it is no dead letter")
        .unwrap()
        .remove(0);
    assert_eq!((again.attempt, again.deaths), (1, 0), "alone: {is_alone}");
    again
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    admin.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_cannot_write_back_goes_to_others_and_is_no_death() {
    tokio::join!(
        a_stop_without_the_retries_is_no_death(false),
        a_stop_without_the_retries_is_no_death(true)
    );
}

/// Its attempt has ended: the process that waits to say so may be killed for any reason.
async fn a_kill_while_a_settlement_waits_is_no_death(is_alone: bool) {
    let (servers, options, mut less, _folder) = denied("fluent.retries.>").await;
    let proxy = Proxy::start(servers.servers[0].port()).await;
    less.servers = vec![proxy.url()];
    less.discover_servers = false;
    let admin = open(&options).await;
    let other = open(&less).await;
    let brief = Route {
        lease: Duration::from_secs(3),
        ..route(&[])
    };
    let mut consumer = other.subscribe(brief.clone()).await.unwrap();
    admin.publish(event("E", "x")).await.unwrap();
    let mut held = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    if is_alone {
        held.ticket.mark_exclusive().await.unwrap();
    }
    let again = settlement(Disposition::Again(Duration::ZERO));
    let killed = async {
        sleep(Duration::from_secs(10)).await;
        proxy.cut().await;
    };
    tokio::select! {
        settled = held.ticket.settle(again) => panic!("there is no room: {settled:?}"),
        () = killed => {}
    }
    let mut consumer = admin.subscribe(brief).await.unwrap();
    let again = timeout(IN_TIME, consumer.next(1))
        .await
        .expect("it is no dead letter")
        .unwrap()
        .remove(0);
    assert_eq!((again.attempt, again.deaths), (2, 0), "alone: {is_alone}");
    again
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    admin.close().await;
    std::mem::forget((consumer, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_an_attempt_has_ended_is_not_its_death() {
    tokio::join!(
        a_kill_while_a_settlement_waits_is_no_death(false),
        a_kill_while_a_settlement_waits_is_no_death(true)
    );
}

/// How far a route is is noted beside the deliveries, which do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_floor_that_cannot_be_noted_delays_nothing() {
    let (_servers, options, less, _folder) = denied("fluent.marks.>").await;
    let admin = open(&options).await;
    let queue = open(&less).await;
    let brief = Route {
        lease: Duration::from_secs(3),
        ..route(&[])
    };
    let mut consumer = queue.subscribe(brief).await.unwrap();
    // Several ticks, after each of which the floor has moved.
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(8) {
        number += 1;
        let published = Instant::now();
        admin
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
        let delivery = timeout(IN_TIME, consumer.next(1))
            .await
            .unwrap()
            .unwrap()
            .remove(0);
        delivery
            .ticket
            .settle(settlement(Disposition::Done))
            .await
            .unwrap();
        let took = published.elapsed();
        assert!(
            took < Duration::from_secs(2),
            "number {number} took {took:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
    for queue in [queue, admin] {
        queue.close().await;
    }
}
