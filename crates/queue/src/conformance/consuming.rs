use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::time::timeout;

use super::samples::{consumer, event, finish, nothing, one, publish, reference, route, settle, settlement};
use super::{Harness, LEASE, PATIENCE, Queue};
use crate::{
    Condition, Consumer, DeadQuery, DeadReason, Position, Presence, QueueError, Settlement, Start, Terms,
    Verdict,
};

pub(super) async fn a_published_event_is_delivered_whole(harness: &dyn Harness) {
    let queue = harness.open().await;
    let receipt = queue.intake().publish(event("E", "a")).await.expect("publish");
    let horizon = queue.upstream().horizon().await.expect("horizon");
    assert_eq!((receipt.duplicate, receipt.position, &receipt.epoch), (false, horizon.last, &horizon.epoch));

    let delivery = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!(*delivery.event, event("E", "a"));
    assert_eq!((delivery.attempt, delivery.redrive, delivery.deaths), (1, 0, 0));
    assert_eq!(delivery.position, receipt.position);
    settle(delivery, Verdict::Done).await;
}

pub(super) async fn an_id_is_stored_once(harness: &dyn Harness) {
    let queue = harness.open().await;
    let first = queue.intake().publish(event("E", "a")).await.expect("publish");
    let (second, third) =
        tokio::join!(queue.intake().publish(event("E", "a")), queue.intake().publish(event("E", "b")));
    let second = second.expect("publish again");
    assert_eq!((second.duplicate, second.position), (true, first.position));
    assert!(!third.expect("publish another").duplicate);
    assert_eq!(finish(&mut *consumer(&queue, "r").await, 2).await, ["a", "b"]);
}

pub(super) async fn a_group_keeps_its_order_and_is_held(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["b"]).await;
    let group = ["a", "b", "c"].map(|reference| event("E", reference));
    let published = queue.upstream().publish_many(&group).await;
    assert!(published.error.is_none(), "{published:?}");
    let receipts = published.receipts;
    assert_eq!(receipts.iter().map(|receipt| receipt.duplicate).collect::<Vec<_>>(), [false, true, false]);
    assert!(receipts[1].position < receipts[0].position && receipts[0].position < receipts[2].position);
    for (kept, receipt) in group.iter().zip(&receipts) {
        assert_eq!(
            queue.upstream().presence(receipt.position, kept.id()).await.expect("read back"),
            Presence::Present
        );
        let another = event("E", "z").id();
        assert_eq!(
            queue.upstream().presence(receipt.position, another).await.expect("read back"),
            Presence::Missing
        );
    }
    let newest = receipts[2].position;
    let beyond = Position::new(newest.shard(), newest.sequence() + 1).expect("a position");
    assert_eq!(queue.upstream().presence(beyond, group[0].id()).await.expect("read back"), Presence::Missing);
    let many: Vec<_> = (0..600).map(|number| event("M", &format!("{number:03}"))).collect();
    let published = queue.upstream().publish_many(&many).await;
    assert_eq!(published.receipts.len(), 600, "{:?}", published.error);
    let mut newest = std::collections::BTreeMap::new();
    for (event, receipt) in many.iter().zip(&published.receipts) {
        let before = newest.insert(event.bucket(), receipt.position);
        assert!(before < Some(receipt.position), "{event:?} overtook one of its entity");
    }
}

pub(super) async fn a_settled_delivery_is_over(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut consumer = consumer(&queue, "r").await;
    assert_eq!(finish(&mut *consumer, 1).await, ["a"]);
    tokio::time::sleep(LEASE).await;
    nothing(&mut *consumer, "it was settled").await;
}

pub(super) async fn routes_do_not_share_and_consumers_of_one_do(harness: &dyn Harness) {
    let queue = harness.open().await;
    let (mut one_r, mut two_r, mut s) =
        (consumer(&queue, "r").await, consumer(&queue, "r").await, consumer(&queue, "s").await);
    publish(&queue, &["a", "b", "c", "d"]).await;
    let (mut some, rest, all) =
        tokio::join!(finish(&mut *one_r, 2), finish(&mut *two_r, 2), finish(&mut *s, 4));
    some.extend(rest);
    some.sort();
    assert_eq!((some, all.clone()), (all, vec!["a".into(), "b".into(), "c".into(), "d".into()]));
}

pub(super) async fn a_filter_decides_who_gets_what(harness: &dyn Harness) {
    let queue = harness.open().await;
    let only = |name: &str| Terms { event: vec![name.to_owned()], ..Terms::default() };
    let mut orders =
        queue.source().subscribe(route("orders", only("E"), Start::Beginning)).await.expect("subscribe");
    let mut others =
        queue.source().subscribe(route("others", only("F"), Start::Beginning)).await.expect("subscribe");
    publish(&queue, &["a", "b"]).await;
    queue.intake().publish(event("F", "f")).await.expect("publish");
    assert_eq!(finish(&mut *orders, 2).await, ["a", "b"]);
    assert_eq!(finish(&mut *others, 1).await, ["f"]);
    nothing(&mut *orders, "the rest is not for it").await;
}

pub(super) async fn an_expression_decides_too_and_no_answer_is_delivered(harness: &dyn Harness) {
    let queue = harness.open().await;
    const WHEN: &str = "event.entityRef == 'yes' || (event.entityRef == 'unknown' && event.missing == 1)";
    let when = Some(Condition::parse(WHEN).expect("a condition"));
    let terms = Terms { when, ..Terms::default() };
    let mut r = queue.source().subscribe(route("r", terms, Start::Beginning)).await.expect("subscribe");
    publish(&queue, &["no", "yes", "no-2", "unknown", "no-3"]).await;
    assert_eq!(finish(&mut *r, 2).await, ["unknown", "yes"]);
    nothing(&mut *r, "it is false for the others").await;
}

pub(super) async fn no_more_than_the_permits_are_handed_out(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    publish(&queue, &["a", "b", "c", "d", "e"]).await;
    let mut seen = 0;
    while seen < 5 {
        let deliveries = consumer.next(2).await.expect("next");
        assert!((1..=2).contains(&deliveries.len()));
        seen += deliveries.len();
        for delivery in deliveries {
            settle(delivery, Verdict::Done).await;
        }
    }
}

pub(super) async fn a_dropped_ticket_comes_back_and_is_no_attempt(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut consumer = consumer(&queue, "r").await;
    for _ in 0..3 {
        let dropped = one(&mut *consumer).await;
        assert_eq!((reference(&dropped).as_str(), dropped.attempt, dropped.deaths), ("a", 1, 0));
        drop(dropped);
    }
    settle(one(&mut *consumer).await, Verdict::Again(Duration::ZERO)).await;
    drop(one(&mut *consumer).await);
    let second = one(&mut *consumer).await;
    assert_eq!((second.attempt, second.deaths), (2, 0), "the one that was settled counts");
    settle(second, Verdict::Done).await;
}

pub(super) async fn an_expired_lease_goes_to_somebody_else(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let (mut slow, mut other) = (consumer(&queue, "r").await, consumer(&queue, "r").await);
    let began = Instant::now();
    let held = one(&mut *slow).await;
    let again = one(&mut *other).await;
    assert!(began.elapsed() >= LEASE, "the lease was kept for {:?}", began.elapsed());
    assert_eq!(again.attempt, 2);
    let late = held.ticket.settle(settlement(Verdict::Done)).await.expect_err("too late");
    assert!(matches!(late.source, QueueError::LeaseLost), "{late:?}");
    drop(late);
    settle(again, Verdict::Done).await;
    nothing(&mut *slow, "it was settled").await;
}

pub(super) async fn progress_keeps_a_lease(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let (mut slow, mut other) = (consumer(&queue, "r").await, consumer(&queue, "r").await);
    let mut held = one(&mut *slow).await;
    let began = Instant::now();
    while began.elapsed() < LEASE * 3 {
        let next = timeout(LEASE / 3, other.next(1)).await;
        assert!(next.is_err(), "held, but handed out: {next:?}");
        held.ticket.progress().await.expect("progress");
    }
    let said = Instant::now();
    held.ticket.progress().await.expect("progress");
    let again = one(&mut *other).await;
    assert!(said.elapsed() >= LEASE, "it begins anew, whole: {:?}", said.elapsed());
    drop(held);
    settle(again, Verdict::Done).await;
}

pub(super) async fn a_retry_comes_no_sooner_than_asked(harness: &dyn Harness) {
    const WAIT: Duration = Duration::from_millis(900);
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut consumer = consumer(&queue, "r").await;
    let first = one(&mut *consumer).await;
    let first_at = first.first_attempt_at;
    let asked = Instant::now();
    settle(first, Verdict::Again(WAIT)).await;
    let again = one(&mut *consumer).await;
    assert!(asked.elapsed() >= WAIT, "came after {:?}", asked.elapsed());
    assert_eq!((again.attempt, again.first_attempt_at), (2, first_at));
    settle(again, Verdict::Done).await;
}

pub(super) async fn only_attempts_that_asked_the_destination_are_counted_as_such(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut before = consumer(&queue, "r").await;
    let again = |asked| Settlement { asked, ..settlement(Verdict::Again(Duration::ZERO)) };
    drop(one(&mut *before).await);
    for (asked, expected) in [(true, 0), (false, 1), (true, 1)] {
        let delivery = one(&mut *before).await;
        assert_eq!(delivery.asked, expected);
        delivery.ticket.settle(again(asked)).await.expect("settle");
    }
    let in_flight = one(&mut *before).await;
    assert_eq!((in_flight.attempt, in_flight.asked), (4, 2), "what was given back is no attempt");
    let queue = harness.crash(queue).await;
    drop(in_flight);
    let mut after = consumer(&queue, "r").await;
    let last = one(&mut *after).await;
    assert_eq!((last.attempt, last.deaths, last.asked), (5, 1, 2), "what died did not end");
    settle(last, Verdict::Dead(DeadReason::Exhausted)).await;
    let letters = queue.stores().dead_letters();
    let query = DeadQuery { limit: 1, ..DeadQuery::default() };
    let letter = letters.list(query).await.expect("list").remove(0);
    assert!(letters.redrive(&[letter.id], None).await.iter().all(Result::is_ok));
    let redriven = one(&mut *after).await;
    assert!(redriven.redrive > 0);
    assert_eq!((redriven.attempt, redriven.asked), (1, 0), "a redrive begins anew");
    settle(redriven, Verdict::Done).await;
}

pub(super) async fn waiting_retries_delay_nothing(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    for number in 0..400 {
        publish(&queue, &[&format!("w{number}")]).await;
        settle(one(&mut *consumer).await, Verdict::Again(Duration::from_hours(1))).await;
    }
    publish(&queue, &["a"]).await;
    assert_eq!(finish(&mut *consumer, 1).await, ["a"]);
    nothing(&mut *consumer, "the rest waits for an hour").await;
}

/// What fails and is due again at once must not keep from the route what is new.
pub(super) async fn due_retries_do_not_starve_what_is_new(harness: &dyn Harness) {
    const FAILING: usize = 2000;
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    publish_many(&queue, FAILING).await;
    let mut failed = BTreeSet::new();
    while failed.len() < FAILING {
        failed.extend(fail_some(&mut *consumer).await);
    }
    publish(&queue, &["new"]).await;
    let mut handed_out = 0;
    loop {
        let references = fail_some(&mut *consumer).await;
        handed_out += references.len();
        if references.contains("new") {
            break;
        }
        assert!(handed_out < FAILING, "it still waits behind what fails");
    }
}

/// Where something asks whether a destination is back, it is with what did not fail before.
pub(super) async fn a_probe_is_a_first_attempt_where_one_waits(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    publish_many(&queue, 300).await;
    let mut failed = BTreeSet::new();
    while failed.len() < 300 {
        failed.extend(fail_some(&mut *consumer).await);
    }
    for number in 0..3 {
        publish(&queue, &[&format!("new {number}")]).await;
        let mut probes = 0;
        loop {
            let mut probe =
                timeout(PATIENCE, consumer.next_to_probe()).await.expect("in time").expect("next");
            assert_eq!(probe.len(), 1);
            let probe = probe.remove(0);
            let is_new = probe.event.name() == "E";
            settle(probe, if is_new { Verdict::Done } else { Verdict::Again(Duration::ZERO) }).await;
            probes += 1;
            if is_new {
                break;
            }
            // The first may come before the queue has seen that there is a new one.
            assert!(probes < 10, "what failed is tried again and again");
        }
    }
    // Where nothing else waits, it is tried with what failed.
    let probe = timeout(PATIENCE, consumer.next_to_probe()).await.expect("in time").expect("next");
    assert!(probe[0].attempt > 1, "{probe:?}");
}

/// Events called `F`.
async fn publish_many(queue: &Queue, count: usize) {
    let events: Vec<_> = (0..count).map(|number| event("F", &number.to_string())).collect();
    for events in events.chunks(250) {
        let published = join_all(events.iter().map(|event| queue.intake().publish(event.clone()))).await;
        assert!(published.iter().all(Result::is_ok), "{published:?}");
    }
}

/// Has a few deliveries fail, to come again at once.
async fn fail_some(consumer: &mut dyn Consumer) -> BTreeSet<String> {
    let deliveries = timeout(PATIENCE, consumer.next(64)).await.expect("deliveries in time").expect("next");
    let references = deliveries.iter().map(reference).collect();
    join_all(deliveries.into_iter().map(|delivery| settle(delivery, Verdict::Again(Duration::ZERO)))).await;
    references
}

/// The first one's request may be on its way when it stops asking: its subscriber left, or
/// its breaker opened.
pub(super) async fn what_nobody_asks_for_any_more_goes_to_somebody_else(harness: &dyn Harness) {
    let queue = harness.open().await;
    let (mut first, mut second) = (consumer(&queue, "r").await, consumer(&queue, "r").await);
    assert!(timeout(LEASE / 3, first.next(4)).await.is_err(), "there is nothing");
    publish(&queue, &["a", "b"]).await;
    let began = Instant::now();
    for _ in 0..2 {
        let delivery = one(&mut *second).await;
        assert_eq!((delivery.attempt, delivery.deaths), (1, 0), "nobody attempted it");
        settle(delivery, Verdict::Done).await;
    }
    let took = began.elapsed();
    assert!(took < LEASE * 3, "the first kept them for {took:?}");
}

pub(super) async fn a_cancelled_next_loses_nothing(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    let mut expected = Vec::new();
    for number in 0..50_u64 {
        let reference = format!("c{number:02}");
        publish(&queue, &[&reference]).await;
        expected.push(reference);
        let _ = timeout(Duration::from_micros(number * 20), consumer.next(4)).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < expected.len() {
        let delivery = one(&mut *consumer).await;
        seen.insert(reference(&delivery));
        settle(delivery, Verdict::Done).await;
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}
