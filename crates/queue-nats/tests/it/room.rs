//! Without room, or without a server that stores, the settlement waits, and the effect does not
//! come twice.

use std::time::Duration;

use async_nats::jetstream::Context;
use bytes::Bytes;
use fluent_queue_nats::cluster::Cluster;
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    DeadQuery, DeadReason, Disposition, Intake, Lifecycle, QueueError, Route, Source, StartPosition,
};
use tokio::time::{Instant, sleep, timeout};

use crate::joining::{names, open, route, set, settlement, world};

const IN_TIME: Duration = Duration::from_secs(60);

/// Thirty looks at how full the streams are, which nobody says.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);

async fn raw(servers: &Servers) -> Context {
    async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap())
}

/// Publishes to subjects below `subject` until the stream takes no more, or has `most` bytes.
async fn fill(jetstream: &Context, stream: &str, subject: &str, most: u64) {
    let large = Bytes::from(vec![b'x'; 400_000]);
    let small = Bytes::from(vec![b'x'; 500]);
    for body in [large, small] {
        for number in 0..2_000 {
            let subject = format!("{subject}.{}.{number}", body.len());
            let Ok(sent) = jetstream.publish(subject, body.clone()).await else {
                return;
            };
            if sent.await.is_err() {
                break;
            }
            let stream = jetstream.get_stream(stream).await.unwrap();
            if stream.cached_info().state.bytes > most {
                return;
            }
        }
    }
}

/// A delivery that is settled while there is no room is attempted once, blocks its route, and is
/// settled when there is room.
async fn waits_for_room(stream: &'static str, filling: &'static str, disposition: Disposition) {
    let (servers, mut options) = world().await;
    options.layout.bytes = 4 << 20;
    options.janitor_every = Duration::from_millis(100);
    Cluster::connect(&options)
        .await
        .unwrap()
        .init()
        .await
        .unwrap();
    let queue = open(&options).await;
    let brief = Route {
        lease: Duration::from_secs(3),
        start: StartPosition::Beginning,
        ..route(&[])
    };
    let mut consumer = queue.subscribe(brief).await.unwrap();
    let jetstream = raw(&servers).await;
    fill(&jetstream, stream, filling, 4 << 20).await;
    // Until it is noticed.
    sleep(NOTICED_WITHIN).await;
    queue.publish(event("FIRST", "a")).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(4))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    #[expect(clippy::disallowed_methods, reason = "it is awaited")]
    let settling = tokio::spawn(delivery.ticket.settle(settlement(disposition)));
    sleep(NOTICED_WITHIN).await;
    queue.publish(event("SECOND", "b")).await.unwrap();
    // Three leases.
    let came = timeout(Duration::from_secs(9), consumer.next(4)).await;
    assert!(came.is_err(), "{stream} is full: {came:?}");
    assert!(!settling.is_finished());

    jetstream
        .get_stream(stream)
        .await
        .unwrap()
        .purge()
        .filter(format!("{filling}.>"))
        .await
        .unwrap();
    timeout(IN_TIME, settling)
        .await
        .expect("settled in time")
        .unwrap()
        .unwrap();
    assert_eq!(
        names(&mut *consumer, 1).await,
        set(&["SECOND"]),
        "{stream} has room"
    );
    match disposition {
        Disposition::Dead(_) => {
            let query = DeadQuery {
                limit: 10,
                ..DeadQuery::default()
            };
            assert_eq!(
                queue
                    .stores()
                    .dead_letters()
                    .list(query)
                    .await
                    .unwrap()
                    .len(),
                1
            );
        }
        _ => {
            let states = queue.stores().routes().await.unwrap();
            assert_eq!(states[0].waiting, 1, "{states:?}");
        }
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_it_a_settlement_waits_and_its_route_asks_for_no_more() {
    tokio::join!(
        waits_for_room(
            "FLUENT_DEAD",
            "fluent.dead.junk",
            Disposition::Dead(DeadReason::Permanent)
        ),
        waits_for_room(
            "FLUENT_RETRIES",
            "fluent.retries.waiting.r",
            Disposition::Again(Duration::from_hours(1))
        )
    );
}

/// Without room among the retries a delivery goes back to the server itself, which sends it to
/// another process at once: what became of the attempt must be known by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_without_room_is_no_death_and_nobody_is_blamed() {
    let (servers, mut options) = world().await;
    options.layout.bytes = 4 << 20;
    options.janitor_every = Duration::from_millis(100);
    Cluster::connect(&options)
        .await
        .unwrap()
        .init()
        .await
        .unwrap();
    let one = open(&options).await;
    let other = open(&options).await;
    let long = Route {
        lease: IN_TIME * 10,
        start: StartPosition::Beginning,
        ..route(&[])
    };
    let mut consumers = [
        one.subscribe(long.clone()).await.unwrap(),
        other.subscribe(long).await.unwrap(),
    ];
    fill(
        &raw(&servers).await,
        "FLUENT_RETRIES",
        "fluent.retries.waiting.r",
        4 << 20,
    )
    .await;
    // Until it is noticed.
    sleep(NOTICED_WITHIN).await;
    one.publish(event("E", "a")).await.unwrap();
    for turn in 0..6 {
        let next = timeout(IN_TIME, consumers[turn % 2].next(1))
            .await
            .expect("it is given back")
            .unwrap();
        let mut delivery = next.into_iter().next().unwrap();
        assert_eq!((delivery.attempt, delivery.deaths), (1, 0), "turn {turn}");
        if turn > 2 {
            delivery.ticket.mark_exclusive().await.unwrap();
        }
    }
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_sends_again_is_refused_where_too_much_waits() {
    let (servers, mut options) = world().await;
    options.layout.bytes = 4 << 20;
    options.janitor_every = Duration::from_millis(100);
    Cluster::connect(&options)
        .await
        .unwrap()
        .init()
        .await
        .unwrap();
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    delivery
        .ticket
        .settle(settlement(Disposition::Dead(DeadReason::Permanent)))
        .await
        .unwrap();
    fill(
        &raw(&servers).await,
        "FLUENT_RETRIES",
        "fluent.retries.waiting.r",
        4 << 20,
    )
    .await;
    sleep(NOTICED_WITHIN).await;
    let letters = queue.stores().dead_letters();
    let letter = letters
        .list(DeadQuery {
            limit: 1,
            ..DeadQuery::default()
        })
        .await
        .unwrap()
        .remove(0);
    let answers = letters.redrive(&[letter.id], None).await;
    assert!(
        matches!(answers[..], [Err(QueueError::Full)]),
        "{answers:?}"
    );
    assert_eq!(
        letters
            .list(DeadQuery {
                limit: 9,
                ..DeadQuery::default()
            })
            .await
            .unwrap()
            .len(),
        1
    );
    queue.close().await;
}

/// Unrouted events make room, the oldest first, when they take that of dead letters; no dead
/// letter does.
#[tokio::test(flavor = "multi_thread")]
async fn unrouted_events_make_room_for_dead_letters() {
    const BYTES: u64 = 4 << 20;
    let (servers, mut options) = world().await;
    options.layout.bytes = BYTES;
    options.janitor_every = Duration::from_millis(100);
    Cluster::connect(&options)
        .await
        .unwrap()
        .init()
        .await
        .unwrap();
    let jetstream = raw(&servers).await;
    let body = Bytes::from(vec![b'x'; 50_000]);
    for number in 0..60 {
        let subject = if number < 4 {
            "fluent.dead.other"
        } else {
            "fluent.dead.unrouted"
        };
        jetstream
            .publish(subject, body.clone())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let queue = open(&options).await;
    let _joined = queue.subscribe(route(&[])).await.unwrap();
    let began = Instant::now();
    loop {
        let stream = jetstream.get_stream("FLUENT_DEAD").await.unwrap();
        let state = stream.cached_info().state.clone();
        if state.bytes <= BYTES / 2 {
            assert_eq!(state.first_sequence, 1, "dead letters stay");
            assert!(
                state.messages > 4,
                "and the newest of the others: {}",
                state.messages
            );
            break;
        }
        assert!(began.elapsed() < IN_TIME, "{} bytes", state.bytes);
        sleep(Duration::from_millis(100)).await;
    }
    queue.close().await;
}

/// The first settlement waits for the history for a while, and those after it do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_written_delays_deliveries_once() {
    const EVENTS: usize = 12;
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue
        .subscribe(Route {
            lease: Duration::from_secs(30),
            ..route(&[])
        })
        .await
        .unwrap();
    raw(&servers)
        .await
        .delete_stream("FLUENT_ATTEMPTS")
        .await
        .unwrap();
    let mut took = Vec::new();
    for number in 0..EVENTS {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
        let delivery = timeout(IN_TIME, consumer.next(1))
            .await
            .unwrap()
            .unwrap()
            .remove(0);
        let began = Instant::now();
        delivery
            .ticket
            .settle(settlement(Disposition::Done))
            .await
            .unwrap();
        took.push(began.elapsed());
    }
    let delayed = took
        .iter()
        .filter(|took| **took >= Duration::from_secs(1))
        .count();
    assert!(
        delayed <= EVENTS / 2,
        "not the first alone, whatever this machine does: {took:?}"
    );

    // The missing line is written as soon as it can be.
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let began = Instant::now();
    loop {
        let page = queue.stores().history().attempts(queue::AttemptQuery {
            limit: 100,
            ..Default::default()
        });
        if page.await.unwrap().attempts.len() == EVENTS {
            break;
        }
        assert!(began.elapsed() < IN_TIME, "attempts are missing");
        sleep(Duration::from_millis(100)).await;
    }
    queue.close().await;
}

/// Settling may take longer than a lease, which is extended meanwhile: otherwise the effect would
/// come twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_waits_for_the_history_keeps_its_lease() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue
        .subscribe(Route {
            lease: Duration::from_secs(4),
            ..route(&[])
        })
        .await
        .unwrap();
    raw(&servers)
        .await
        .delete_stream("FLUENT_ATTEMPTS")
        .await
        .unwrap();
    queue.publish(event("E", "1")).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    let settling = delivery.ticket.settle(settlement(Disposition::Done));
    tokio::select! {
        settled = settling => settled.unwrap(),
        again = consumer.next(1) => panic!("it came again: {again:?}"),
    }
    queue.publish(event("NEXT", "2")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["NEXT"]));
    queue.close().await;
}

/// In another epoch of the stream, the same sequence is another message.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_settled_into_another_life_of_the_stream() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue
        .subscribe(Route {
            lease: IN_TIME,
            ..route(&[])
        })
        .await
        .unwrap();
    queue.publish(event("BEFORE", "a")).await.unwrap();
    let held = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    raw(&servers)
        .await
        .delete_stream("FLUENT_EVENTS")
        .await
        .unwrap();
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    queue.publish(event("AFTER", "a")).await.unwrap();
    let after = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    assert_eq!(
        (after.event.name(), after.position),
        ("AFTER", held.position)
    );
    let late = held
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .expect_err("its stream is gone");
    assert!(matches!(late.source, QueueError::LeaseLost), "{late:?}");
    drop(late);
    let letter = after
        .ticket
        .settle(settlement(Disposition::Dead(DeadReason::Permanent)))
        .await;
    letter.expect("it is still to be settled");
    queue.close().await;
}

/// Without the list of consumers nobody knows which events are settled; unrouted ones are old all
/// the same.
#[tokio::test(flavor = "multi_thread")]
async fn unrouted_events_grow_old_without_the_list_of_consumers() {
    let (servers, _, mut options, _folder) =
        crate::deaths::denied("$JS.API.CONSUMER.LIST.FLUENT_EVENTS").await;
    options.janitor_every = Duration::from_millis(100);
    options.retention_age = Duration::from_millis(1);
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "x".into());
    let client = admin.connect(servers.urls()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let placed = jetstream
        .publish("fluent.dead.unrouted", "{}".into())
        .await
        .unwrap();
    placed.await.unwrap();
    let queue = open(&options).await;
    let _joined = queue.subscribe(route(&[])).await.unwrap();
    let began = Instant::now();
    loop {
        let stream = jetstream.get_stream("FLUENT_DEAD").await.unwrap();
        if stream.cached_info().state.messages == 0 {
            break;
        }
        assert!(began.elapsed() < IN_TIME, "it stays");
        sleep(Duration::from_millis(100)).await;
    }
    queue.close().await;
}
