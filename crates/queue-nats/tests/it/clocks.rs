//! The servers' clock, and not ours, decides how long messages wait and are kept.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Clock, SystemClock, Timestamp};
use fluent_queue_nats::JetStream;
use queue::conformance::event;
use queue::same_id::Claim;
use queue::{Disposition, Intake, Lifecycle, Pause, Route, Source, StartPosition, Upstream};
use tokio::time::{Instant, sleep, timeout};

use crate::joining::{route, settlement, world};
use crate::proxy::Proxy;

const IN_TIME: Duration = Duration::from_secs(60);

/// A clock that is wrong by so many seconds.
#[derive(Clone, Copy, Debug)]
struct Wrong(i64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        let seconds = SystemClock.now().as_second() + self.0;
        Timestamp::from_second(seconds).unwrap()
    }
}

const DAY: i64 = 24 * 60 * 60;

async fn a_wait_lasts_as_long_as_it_is_to(wrong: i64) {
    const WAIT: Duration = Duration::from_secs(3);
    let (_servers, options) = world().await;
    let queue: Arc<JetStream> = Arc::new(
        JetStream::open(options, Arc::new(Wrong(wrong)))
            .await
            .unwrap(),
    );
    let everything = Route {
        start: StartPosition::Beginning,
        lease: IN_TIME,
        ..route(&[])
    };
    let mut consumer = queue.subscribe(everything).await.unwrap();
    queue.publish(event("E", "x")).await.unwrap();
    let first = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    let asked = Instant::now();
    first
        .ticket
        .settle(settlement(Disposition::Again(WAIT)))
        .await
        .unwrap();
    let again = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    let waited = asked.elapsed();
    assert!(
        waited >= WAIT,
        "a clock {wrong} s ahead: it came after {waited:?}"
    );
    again
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    // Measured while this machine stands still, it is off by as much.
    let measured = async {
        while (queue.health().await.clock_ahead_ms.unwrap() / 1000 - wrong).abs() > 2 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(IN_TIME, measured)
        .await
        .expect("it is said how wrong the clock is");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_by_the_servers_clock() {
    tokio::join!(
        a_wait_lasts_as_long_as_it_is_to(-60),
        a_wait_lasts_as_long_as_it_is_to(-DAY * 365),
        a_wait_lasts_as_long_as_it_is_to(60),
        a_wait_lasts_as_long_as_it_is_to(DAY * 365)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_removes_nothing_before_its_time() {
    let (_servers, mut options) = world().await;
    options.janitor_every = Duration::from_millis(100);
    let queue: Arc<JetStream> = Arc::new(
        JetStream::open(options, Arc::new(Wrong(DAY * 30)))
            .await
            .unwrap(),
    );
    let mut consumer = queue
        .subscribe(Route {
            start: StartPosition::Beginning,
            ..route(&[])
        })
        .await
        .unwrap();
    let receipt = queue.publish(event("E", "x")).await.unwrap();
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
    // Ten rounds of retention.
    sleep(Duration::from_secs(1)).await;
    let held = queue
        .presence(receipt.position, event("E", "x").id())
        .await
        .unwrap();
    assert_eq!(
        held,
        queue::Presence::Present,
        "it is kept for seven days of the servers'"
    );
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_when_our_clock_says_so() {
    let (_servers, options) = world().await;
    let clock = Wrong(-3600);
    let until = clock.now().checked_add(Duration::from_secs(4)).unwrap();
    let queue: Arc<JetStream> = Arc::new(JetStream::open(options, Arc::new(clock)).await.unwrap());
    let mut consumer = queue
        .subscribe(Route {
            start: StartPosition::Beginning,
            ..route(&[])
        })
        .await
        .unwrap();
    queue
        .stores()
        .set_paused(
            "r",
            Some(&Pause {
                until: Some(until),
                ..Pause::default()
            }),
        )
        .await
        .unwrap();
    queue.publish(event("E", "x")).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    // Both are cut off to seconds.
    assert!(
        clock.now() >= until.checked_sub(Duration::from_secs(1)).unwrap(),
        "it ended early"
    );
    delivery
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    queue.close().await;
}

/// What one dispatcher says of the first attempt another reads by its own clock.
async fn a_first_attempt_is_as_long_ago_for_everybody(wrong: i64, others: i64) {
    let (_servers, options) = world().await;
    let everything = Route {
        start: StartPosition::Beginning,
        lease: Duration::from_secs(3),
        ..route(&[])
    };
    let mut disposition = Disposition::Again(Duration::ZERO);
    for (attempt, is) in [(1, wrong), (2, others), (3, wrong)] {
        let clock = Wrong(is);
        let queue: Arc<JetStream> = Arc::new(
            JetStream::open(options.clone(), Arc::new(clock))
                .await
                .unwrap(),
        );
        let mut consumer = queue.subscribe(everything.clone()).await.unwrap();
        if attempt == 1 {
            queue.publish(event("E", "x")).await.unwrap();
        }
        let next = timeout(IN_TIME, consumer.next(1)).await;
        let delivery = next.unwrap().unwrap().remove(0);
        let tried = clock.now().as_second() - delivery.first_attempt_at.as_second();
        assert_eq!(delivery.attempt, attempt);
        assert!(
            (-5..60).contains(&tried),
            "{tried} s at attempt {attempt} of clocks {wrong} s and {others} s ahead"
        );
        if attempt == 3 {
            disposition = Disposition::Done;
        }
        delivery
            .ticket
            .settle(settlement(disposition))
            .await
            .unwrap();
        drop(consumer);
        queue.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_since_the_first_attempt_goes_by_one_clock() {
    tokio::join!(
        a_first_attempt_is_as_long_ago_for_everybody(-4 * DAY, 0),
        a_first_attempt_is_as_long_ago_for_everybody(0, 4 * DAY),
        a_first_attempt_is_as_long_ago_for_everybody(4 * DAY, -4 * DAY)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_an_id_lasts_as_long_for_everybody() {
    let (_servers, options) = world().await;
    let open = async |wrong: i64| {
        JetStream::open(options.clone(), Arc::new(Wrong(wrong)))
            .await
            .unwrap()
    };
    let minute = |wrong: i64| {
        let now = Wrong(wrong).now();
        (now, now.checked_add(Duration::from_secs(60)).unwrap())
    };
    for (ours, others) in [(0, -DAY / 24), (0, DAY / 24), (DAY * 4, 0)] {
        let here = open(ours).await;
        let there = open(others).await;
        for queue in [&here, &there] {
            queue.horizon().await.unwrap();
        }
        let first = event("E", &format!("{ours} {others}"));
        let key = first.fluent_key();
        let second = event("E", "other");
        let granted = here.claim_same_id(key, "r", first.id(), minute(ours)).await;
        let Claim::Granted(granted) = granted.unwrap() else {
            panic!("nobody has it")
        };
        let refused = there
            .claim_same_id(key, "r", second.id(), minute(others))
            .await;
        let Claim::Attempted { other, until } = refused.unwrap() else {
            panic!("both attempt it, with clocks {ours} and {others} s ahead")
        };
        assert_eq!(other, first.id());
        let left = until.as_second() - Wrong(others).now().as_second();
        assert!((0..=65).contains(&left), "{left} s are left");
        here.release_same_id(key, "r", first.id(), granted)
            .await
            .unwrap();
        let released = there
            .claim_same_id(key, "r", second.id(), minute(others))
            .await;
        assert!(matches!(released.unwrap(), Claim::Granted(_)), "it is free");
        for queue in [here, there] {
            queue.close().await;
        }
    }
}

/// Has the leader of the stream of retries say a time that is ten hours ahead.
fn put_retries_ahead(said: &mut [u8]) {
    let find = |in_what: &[u8], what: &[u8]| {
        in_what
            .windows(what.len())
            .position(|window| window == what)
    };
    let Some(retries) = find(said, br#""name":"FLUENT_RETRIES""#) else {
        return;
    };
    let time = br#""ts":""#;
    let Some(at) = find(&said[retries..], time) else {
        return;
    };
    let from = retries + at + time.len();
    let end = said[from..].iter().position(|byte| *byte == b'"').unwrap();
    let told = str::from_utf8(&said[from..from + end]).unwrap();
    let told: Timestamp = told.parse().unwrap();
    let ahead = told.checked_add(RETRIES_AHEAD).unwrap().to_string();
    // The seconds and their fraction stay.
    said[from..from + "2026-01-01T00:00".len()]
        .copy_from_slice(&ahead.as_bytes()[.."2026-01-01T00:00".len()]);
}

const RETRIES_AHEAD: Duration = Duration::from_hours(10);

/// Retries come by the clock of the server that leads their stream, which need not be the one
/// that leads the events.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_by_the_clock_of_the_server_that_leads_the_retries() {
    let (servers, mut options) = world().await;
    let proxy = Proxy::changing(servers.servers[0].port(), put_retries_ahead).await;
    (options.servers, options.discover_servers) = (vec![proxy.url()], false);
    let queue = JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    let mut consumer = queue
        .subscribe(Route {
            start: StartPosition::Beginning,
            ..route(&[])
        })
        .await
        .unwrap();
    queue.publish(event("E", "x")).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    let wait = Duration::from_hours(1);
    let settled = delivery.ticket.settle(settlement(Disposition::Again(wait)));
    let expected = SystemClock.now().checked_add(wait + RETRIES_AHEAD).unwrap();
    settled.await.unwrap();

    let client = async_nats::connect(servers.urls()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let retries = jetstream.get_stream("FLUENT_RETRIES").await.unwrap();
    let waiting = retries.get_raw_message(1).await.unwrap();
    let at = waiting.headers.get("Nats-Schedule").unwrap().as_str();
    let at: Timestamp = at.strip_prefix("@at ").unwrap().parse().unwrap();
    let off = at.as_second() - expected.as_second();
    assert!(
        (-5..60).contains(&off),
        "it is due at {at}, not at {expected}"
    );
    let ahead = queue.health().await.clock_ahead_ms.unwrap() / 1000;
    let expected = -i64::try_from(RETRIES_AHEAD.as_secs()).unwrap();
    assert!((ahead - expected).abs() < 60, "{ahead} s are no alarm");
    queue.close().await;
}
