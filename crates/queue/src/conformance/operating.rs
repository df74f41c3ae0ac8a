//! What people see, and repeat.

use std::time::Duration;

use event_model::{Bytes, Headers, Timestamp};

use super::samples::{
    admit, consumer, event, finish, nothing, one, publish, reference, route, settle, settlement,
};
use super::{Harness, LEASE};
use crate::{
    AttemptQuery, DeadQuery, DeadReason, Outcome, Position, Presence, ReceivedQuery, RefusedWebhook,
    Replayed, Start, Terms, Verdict,
};

pub(super) async fn dead_letters_are_found_by_what_people_know(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    for (name, reference) in [("E", "a"), ("F", "b"), ("E", "c")] {
        queue.intake().publish(event(name, reference)).await.expect("publish");
        let reason = if reference == "c" { DeadReason::Exhausted } else { DeadReason::Permanent };
        settle(one(&mut *r).await, Verdict::Dead(reason)).await;
    }
    let find = async |query: DeadQuery| {
        let letters =
            queue.stores().dead_letters().list(DeadQuery { limit: 10, ..query }).await.expect("list");
        letters
            .iter()
            .map(|letter| letter.event.fields().entity_ref.clone().unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    let all = queue.stores().dead_letters().list(DeadQuery { limit: 10, ..DeadQuery::default() }).await;
    let all = all.expect("list");
    assert_eq!(all.len(), 3);
    assert_eq!(find(DeadQuery { event: text("E"), ..DeadQuery::default() }).await, ["a", "c"]);
    assert_eq!(find(DeadQuery { account: text("ACME"), ..DeadQuery::default() }).await, ["a", "b", "c"]);
    assert_eq!(find(DeadQuery { account: text("OTHER"), ..DeadQuery::default() }).await, [""; 0]);
    assert_eq!(find(DeadQuery { reason: Some(DeadReason::Exhausted), ..DeadQuery::default() }).await, ["c"]);
    assert_eq!(find(DeadQuery { reference: text("b"), ..DeadQuery::default() }).await, ["b"]);
    assert_eq!(find(DeadQuery { up_to: all[1].id, ..DeadQuery::default() }).await, ["a", "b"]);
    let since = Some(Timestamp::MAX);
    assert_eq!(find(DeadQuery { since, ..DeadQuery::default() }).await, [""; 0]);
    assert_eq!(find(DeadQuery { until: since, after: all[0].id, ..DeadQuery::default() }).await, ["b", "c"]);

    let ids: Vec<u64> = all.iter().map(|letter| letter.id).collect();
    let answers = queue.stores().dead_letters().discard(&ids[..2]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(find(DeadQuery::default()).await, ["c"]);
}

pub(super) async fn attempts_are_listed_newest_first_and_page_by_page(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    // Two end at the same time: pages must not lose one of them.
    for (name, reference, second, verdict) in [
        ("E", "a", 0, Verdict::Done),
        ("E", "b", 1, Verdict::Done),
        ("E", "c", 1, Verdict::Done),
        ("F", "d", 2, Verdict::Dead(DeadReason::Permanent)),
    ] {
        queue.intake().publish(event(name, reference)).await.expect("publish");
        let mut settlement = settlement(verdict);
        settlement.attempt.started_at += Duration::from_secs(second);
        one(&mut *r).await.ticket.settle(settlement).await.expect("settle");
    }

    let history = queue.stores().history();
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let query = AttemptQuery { before, limit: 2, ..AttemptQuery::default() };
        let page = history.attempts(query).await.expect("attempts");
        found.extend(page.attempts.iter().map(|attempt| attempt.about.entity.clone().unwrap_or_default()));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 4);
    found[1..3].sort();
    assert_eq!(found, ["ORDER/d", "ORDER/b", "ORDER/c", "ORDER/a"]);
    let find = async |query: AttemptQuery| {
        let page = history.attempts(AttemptQuery { limit: 10, ..query }).await.expect("attempts");
        page.attempts.into_iter().map(|attempt| attempt.about.name).collect::<Vec<_>>()
    };
    assert_eq!(find(AttemptQuery { event: Some("F".to_owned()), ..AttemptQuery::default() }).await, ["F"]);
    let outcome = Some(Outcome::Done);
    assert_eq!(find(AttemptQuery { outcome, ..AttemptQuery::default() }).await, ["E", "E", "E"]);
    let reference = Some("d".to_owned());
    assert_eq!(find(AttemptQuery { reference, ..AttemptQuery::default() }).await, ["F"]);
    assert_eq!(find(AttemptQuery { route: Some("s".to_owned()), ..AttemptQuery::default() }).await, [""; 0]);
    let since = Timestamp::from_second(1_790_000_010).ok();
    assert_eq!(find(AttemptQuery { since, ..AttemptQuery::default() }).await, [""; 0]);
    assert_eq!(find(AttemptQuery { until: since, ..AttemptQuery::default() }).await.len(), 4);
}

pub(super) async fn what_was_received_is_replayed_to_one_route(harness: &dyn Harness) {
    let queue = harness.open().await;
    let (mut r, mut s) = (consumer(&queue, "r").await, consumer(&queue, "s").await);
    publish(&queue, &["a", "b", "c"]).await;
    finish(&mut *r, 2).await;
    settle(one(&mut *r).await, Verdict::Again(Duration::from_mins(10))).await;
    finish(&mut *s, 3).await;
    let mut late =
        queue.source().subscribe(route("late", Terms::default(), Start::Now)).await.expect("subscribe");

    let (stores, at) = (queue.stores(), event("E", "a").received_at());
    let received = async |from: Timestamp, until: Timestamp| {
        let mut events = Vec::new();
        let mut after = Some(Position::START);
        while let Some(behind) = after {
            let query = ReceivedQuery { from, until, after: behind, limit: 2 };
            let page = stores.history().received(query).await.expect("received");
            events.extend(page.events);
            after = page.next;
        }
        events
    };
    let later = at.checked_add(Duration::from_secs(1)).expect("a time");
    assert!(received(later, Timestamp::MAX).await.is_empty(), "received before that");
    let events = received(Timestamp::UNIX_EPOCH, later).await;
    assert_eq!(events.len(), 3);
    let first = ReceivedQuery { from: Timestamp::UNIX_EPOCH, until: later, after: Position::START, limit: 2 };
    let rest = ReceivedQuery { after: events[1].0, ..first };
    let mut keys = Vec::new();
    for (query, next) in [(first, Some(events[1].0)), (rest, None)] {
        let page = stores.history().received_keys(query).await.expect("keys");
        assert_eq!(page.next, next);
        keys.extend(page.keys);
    }
    let expected = events.iter().map(|(position, event)| (*position, event.fluent_key()));
    assert_eq!(keys, expected.collect::<Vec<_>>());
    assert!(stores.replay("nowhere", &events, false).await.is_err());
    let replayed = stores.replay("r", &events, false).await.expect("replay");
    assert_eq!(replayed, [Replayed::Done, Replayed::Done, Replayed::Ahead]);
    nothing(&mut *r, "it is done with two, and the third comes by itself").await;

    let replayed = stores.replay("late", &events[..1], false).await.expect("replay");
    assert_eq!(replayed, [Replayed::HandedOver]);
    let delivery = one(&mut *late).await;
    assert_eq!((reference(&delivery).as_str(), delivery.attempt), ("a", 1));
    assert_ne!(delivery.redrive, 0);
    settle(delivery, Verdict::Done).await;

    let replayed = stores.replay("r", &events, true).await.expect("replay");
    assert_eq!(replayed, [Replayed::HandedOver, Replayed::HandedOver, Replayed::Ahead]);
    assert_eq!(finish(&mut *r, 2).await, ["a", "b"]);
    nothing(&mut *s, "it was replayed to others").await;
}

pub(super) async fn a_shard_that_is_not_there_has_no_events(harness: &dyn Harness) {
    let queue = harness.open().await;
    let _r = consumer(&queue, "r").await;
    publish(&queue, &["a", "b"]).await;
    let stores = queue.stores();
    let from = |after| ReceivedQuery { from: Timestamp::UNIX_EPOCH, until: Timestamp::MAX, after, limit: 10 };
    let elsewhere = Position::new(Position::MAX_SHARD, 0).expect("a position");
    let page = stores.history().received(from(elsewhere)).await.expect("received");
    assert_eq!((page.events.len(), page.next), (0, None));

    let page = stores.history().received(from(Position::START)).await.expect("received");
    let (position, event) = page.events.into_iter().next().expect("an event");
    let elsewhere = Position::new(Position::MAX_SHARD, position.sequence()).expect("a position");
    assert_eq!(queue.upstream().presence(elsewhere, event.id()).await.expect("read back"), Presence::Missing);
    let replayed = stores.replay("r", &[(elsewhere, event)], true).await.expect("replay");
    assert_eq!(replayed, [Replayed::Gone]);
}

pub(super) async fn the_number_of_a_redrive_is_never_given_twice(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    publish(&queue, &["a"]).await;
    settle(one(&mut *r).await, Verdict::Dead(DeadReason::Permanent)).await;
    let stores = queue.stores();
    let redrive = async || {
        let query = DeadQuery { limit: 1, ..DeadQuery::default() };
        let letter = stores.dead_letters().list(query).await.expect("list").remove(0);
        stores.dead_letters().redrive(&[letter.id], None).await.remove(0).expect("redrive");
    };
    let mut numbers = Vec::new();
    for _ in 0..2 {
        redrive().await;
        let again = one(&mut *r).await;
        numbers.push(again.redrive);
        settle(again, Verdict::Dead(DeadReason::Permanent)).await;
        harness.forget_attempts().await;
    }
    let all = ReceivedQuery {
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::MAX,
        after: Position::START,
        limit: 10,
    };
    let events = stores.history().received(all).await.expect("received").events;
    for _ in 0..2 {
        let replayed = stores.replay("r", &events, true).await.expect("replay");
        assert_eq!(replayed, [Replayed::HandedOver]);
        let again = one(&mut *r).await;
        numbers.push(again.redrive);
        settle(again, Verdict::Done).await;
        harness.forget_attempts().await;
    }
    assert!(numbers.is_sorted_by(|before, after| before < after), "they rise: {numbers:?}");
    redrive().await;
    let last = one(&mut *r).await;
    assert!(last.redrive > 0 && !numbers.contains(&last.redrive), "{} of {numbers:?}", last.redrive);
    settle(last, Verdict::Done).await;
}

pub(super) async fn a_refused_webhook_is_held_once_and_admitted(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    let refused = |reference: &str| {
        let headers: Headers = [("fluent-signature", b"\xffnot text".to_vec())].into_iter().collect();
        let at = Timestamp::from_second(4_000_000_000).expect("a time");
        let body = event("E", reference).body().clone();
        RefusedWebhook::stored(0, body, headers, at, "no-key-matches".to_owned(), "ACME".to_owned())
    };
    let hold = queue.stores().refused();
    for reference in ["a", "b", "a"] {
        hold.hold(refused(reference)).await.expect("hold");
    }
    let held = hold.list(0, 10).await.expect("list");
    assert_eq!(held.len(), 2);
    assert_eq!(hold.count().await.expect("count").webhooks, 2);
    let first = hold.get(held[0].id).await.expect("get");
    assert_eq!((&first.reason[..], &first.account[..]), ("no-key-matches", "ACME"));
    assert_eq!(first.inbound.body, refused("a").inbound.body);
    assert_eq!(first.inbound.received_at, refused("a").inbound.received_at);
    let values: Vec<_> = first.inbound.headers.all("fluent-signature").collect();
    assert_eq!(values, [b"\xffnot text"]);
    nothing(&mut *r, "nothing of it is proven").await;

    hold.admit(first.id, admit(Bytes::clone(&first.inbound.body))).await.expect("admit");
    assert_eq!(finish(&mut *r, 1).await, ["a"]);
    assert!(hold.get(first.id).await.is_err());
    assert_eq!(hold.list(first.id, 10).await.expect("list").len(), 1);
    // What is known already is not published again.
    hold.hold(refused("a")).await.expect("hold");
    if let Some(again) = hold.list(held[1].id, 10).await.expect("list").pop() {
        hold.admit(again.id, event("E", "a")).await.expect("admit");
        tokio::time::sleep(LEASE / 4).await;
        nothing(&mut *r, "it is known").await;
    }
}
