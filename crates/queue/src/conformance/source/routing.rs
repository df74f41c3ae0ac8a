//! Matching: which route gets which event.

use event_model::{Event, Origin, Proof, StoredEvent};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use crate::conformance::samples::{
    consumer, event, eventually, finish, nothing_before, one, publish, reference, route, settle,
};
use crate::conformance::{Harness, LEASE, PATIENCE, QUIET, Queue};
use crate::{
    BreakerState, Condition, DeadReason, Disposition, MatchFields, PAUSES_WITHIN, ReconciledPair,
    Route, RouteFilter, RouteProcessStatus, StartPosition, StatusSource, UNROUTED, facts,
};

pub(super) async fn a_filter_decides_who_gets_what(harness: &dyn Harness) {
    let queue = harness.open().await;
    let only = |name: &str| MatchFields {
        event: vec![name.to_owned()],
        ..MatchFields::default()
    };
    let mut orders = queue
        .source()
        .subscribe(route("orders", only("E"), StartPosition::Beginning))
        .await
        .expect("subscribe");
    let mut others = queue
        .source()
        .subscribe(route("others", only("F"), StartPosition::Beginning))
        .await
        .expect("subscribe");
    publish(&queue, &["a", "b"]).await;
    queue
        .intake()
        .publish(event("F", "f"))
        .await
        .expect("publish");
    assert_eq!(finish(&mut *orders, 2).await, ["a", "b"]);
    assert_eq!(finish(&mut *others, 1).await, ["f"]);
    nothing_before(&queue, &mut *orders, "E", "the rest is not for it").await;
}

pub(super) async fn an_expression_decides_too_and_no_answer_is_delivered(harness: &dyn Harness) {
    let queue = harness.open().await;
    const WHEN: &str = "event.entityRef == 'yes' || event.entityRef.startsWith('later') \
                        || (event.entityRef == 'unknown' && event.missing == 1)";
    let when = Some(Condition::parse(WHEN).expect("a condition"));
    let terms = MatchFields {
        when,
        ..MatchFields::default()
    };
    let mut r = queue
        .source()
        .subscribe(route("r", terms, StartPosition::Beginning))
        .await
        .expect("subscribe");
    publish(&queue, &["no", "yes", "no-2", "unknown", "no-3"]).await;
    for _ in 0..2 {
        let delivery = one(&mut *r).await;
        let has_answer = reference(&delivery) == "yes";
        assert_eq!(
            delivery.matched.as_ref().map(|said| said.is_ok()),
            Some(has_answer),
            "{delivery:?}"
        );
        settle(delivery, Disposition::Done).await;
    }
    nothing_before(&queue, &mut *r, "E", "it is false for the others").await;
}

pub(super) async fn now_and_beginning(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut now = queue
        .source()
        .subscribe(route("now", MatchFields::default(), StartPosition::Now))
        .await
        .expect("subscribe");
    let mut beginning = consumer(&queue, "beginning").await;
    publish(&queue, &["b"]).await;
    assert_eq!(finish(&mut *now, 1).await, ["b"]);
    assert_eq!(finish(&mut *beginning, 2).await, ["a", "b"]);
    // The start of a route is fixed when it is first joined.
    drop(now);
    let mut again = consumer(&queue, "now").await;
    nothing_before(&queue, &mut *again, "E", "its start was fixed").await;
}

pub(super) async fn what_no_route_matches_is_kept(harness: &dyn Harness) {
    let queue = harness.open().await;
    let orders = MatchFields {
        event: vec!["E".to_owned()],
        ..MatchFields::default()
    };
    let filter = RouteFilter {
        matching: MatchFields::default(),
        none_of: vec![orders],
    };
    let unrouted = Route {
        name: UNROUTED.to_owned(),
        filter,
        start: StartPosition::Now,
        lease: LEASE,
    };
    let mut unrouted = queue.source().subscribe(unrouted).await.expect("subscribe");
    publish(&queue, &["a"]).await;
    queue
        .intake()
        .publish(event("F", "f"))
        .await
        .expect("publish");
    let delivery = one(&mut *unrouted).await;
    assert_eq!(reference(&delivery), "f");
    settle(delivery, Disposition::Dead(DeadReason::Unrouted)).await;
    nothing_before(&queue, &mut *unrouted, "F", "the other has a route").await;
    let counts = queue.stores().dead_letters().count().await.expect("count");
    assert_eq!(counts, [(UNROUTED.to_owned(), 1)]);
}

pub(super) async fn what_was_reconciled_is_marked_so(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut everything = consumer(&queue, "everything").await;
    let webhooks = MatchFields {
        origin: vec![Origin::Webhook.to_string()],
        ..MatchFields::default()
    };
    let webhooks = queue
        .source()
        .subscribe(route("webhooks", webhooks, StartPosition::Beginning))
        .await;
    let mut webhooks = webhooks.expect("subscribe");
    let event = event("E", "a");
    let stored = StoredEvent {
        proof: Proof::Api,
        signature: String::new(),
        ..event.stored().clone()
    };
    let reconciled = Event::restore(event.id(), stored).expect("the same bytes");
    assert!(
        !queue
            .stores()
            .publish_if_new(reconciled.clone())
            .await
            .expect("admit"),
        "it is new"
    );
    assert!(
        queue
            .stores()
            .publish_if_new(reconciled.clone())
            .await
            .expect("admit again"),
        "it is known"
    );
    let delivery = one(&mut *everything).await;
    assert_eq!(
        (&*delivery.event, delivery.event.origin()),
        (&reconciled, Origin::Reconciled)
    );
    settle(delivery, Disposition::Done).await;
    nothing_before(&queue, &mut *webhooks, "E", "it never came").await;
}

pub(super) async fn how_its_routes_stand_is_shown_to_others(harness: &dyn Harness) {
    let queue = harness.open().await;
    let _consumer = consumer(&queue, "r").await;
    let said = RouteProcessStatus {
        route: "r".to_owned(),
        process: "here:1".to_owned(),
        breaker: BreakerState::Open {
            until: event_model::Timestamp::UNIX_EPOCH,
        },
        throttled: true,
        superseded_since: None,
    };
    let showing = said.clone();
    let wishes = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&wishes);
    let hear = move |route: &str| heard.lock().expect("a lock").push(route.to_owned());
    queue
        .source()
        .show_status(StatusSource::new(move || vec![showing.clone()], hear));
    let began = Instant::now();
    loop {
        let routes = queue.stores().routes().await.expect("routes");
        let found = routes
            .into_iter()
            .find(|route| route.name == "r")
            .expect("r is known")
            .working;
        if found == [said.clone()] {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(QUIET).await;
    }
    for wished in 1..=2 {
        queue
            .stores()
            .close_breakers("r")
            .await
            .expect("close breakers");
        eventually("it is heard", async || {
            wishes.lock().expect("a lock").len() >= wished
        })
        .await;
    }
    tokio::time::sleep(PAUSES_WITHIN).await;
    assert_eq!(
        *wishes.lock().expect("a lock"),
        ["r"; 2],
        "each wish is heard once"
    );
}

pub(super) async fn what_a_route_has_delivered_is_known_of_every_duplicate(harness: &dyn Harness) {
    let queue = harness.open().await;
    let log = event("E", "a");
    let webhook = event("E", "b");
    let key = log.fluent_key();
    let known = async |queue: &Queue, route: &str| {
        queue
            .source()
            .reconciled_duplicate(key, route)
            .await
            .expect("ask")
    };
    assert_eq!(known(&queue, "r").await, None, "nothing was reconciled");
    facts::set_reconciled(queue.stores().facts(), key, log.id(), "")
        .await
        .expect("mark");
    let before = ReconciledPair {
        reconciled: log.id(),
        delivered: None,
    };
    assert_eq!(known(&queue, "r").await, Some(before));
    queue
        .source()
        .note_delivered(key, "r", webhook.id())
        .await
        .expect("note");
    let queue = harness.crash(queue).await;
    let after = ReconciledPair {
        delivered: Some(webhook.id()),
        ..before
    };
    assert_eq!(known(&queue, "r").await, Some(after));
    assert_eq!(
        known(&queue, "s").await,
        Some(before),
        "what another route has delivered is its own"
    );
    let other = queue
        .source()
        .reconciled_duplicate(event("F", "f").fluent_key(), "r")
        .await
        .expect("ask");
    assert_eq!(other, None, "of another event");
}

pub(super) async fn routes_that_are_announced_together_are_joined_as_ever(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let routes =
        ["r", "s"].map(|name| route(name, MatchFields::default(), StartPosition::Beginning));
    queue.source().announce(&routes).await.expect("announce");
    for route in routes {
        let mut consumer = queue.source().subscribe(route).await.expect("subscribe");
        assert_eq!(finish(&mut *consumer, 1).await, ["a"]);
    }
}

pub(super) async fn trying_out_takes_nothing(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    publish(&queue, &["a"]).await;
    for _ in 0..3 {
        let began = Instant::now();
        while let Err(error) = queue.source().probe().await {
            assert!(began.elapsed() < PATIENCE, "{error:?}");
        }
    }
    let delivery = one(&mut *r).await;
    assert_eq!(
        (delivery.attempt, delivery.deaths),
        (1, 0),
        "nothing was taken"
    );
    settle(delivery, Disposition::Done).await;
}
