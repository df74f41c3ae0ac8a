use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_model::{Algorithm, Clock, Event, Origin, Proof, Stored, SystemClock};

use super::samples::{admit, consumer, event, finish, nothing, one, publish, reference, route, settle};
use super::{Harness, LEASE, PATIENCE, QUIET, Queue};
use crate::{
    BreakerState, DeadQuery, DeadReason, Filter, Look, Outcome, PAUSES_WITHIN, Pause, Quarantined,
    QueueError, Route, Start, StoryState, Terms, UNROUTED, Verdict, Working,
};

pub(super) async fn letters(queue: &Queue) -> Vec<crate::DeadLetter> {
    let query = DeadQuery { limit: 100, ..DeadQuery::default() };
    queue.stores().dead_letters().list(query).await.expect("list")
}

pub(super) async fn a_dead_letter_is_kept_and_redriven_to_one_route(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let (mut r, mut s) = (consumer(&queue, "r").await, consumer(&queue, "s").await);
    finish(&mut *s, 1).await;
    settle(one(&mut *r).await, Verdict::Dead(DeadReason::Permanent)).await;
    nothing(&mut *r, "it is dead").await;

    let letter = letters(&queue).await.remove(0);
    assert_eq!((letter.route.as_str(), letter.reason, letter.attempts), ("r", DeadReason::Permanent, 1));
    assert_eq!((letter.event, letter.redrive), (event("E", "a"), 0));
    let store = queue.stores().dead_letters();
    let answers = store.redrive(&[letter.id], Some("nowhere")).await;
    assert!(matches!(answers[..], [Err(QueueError::NotFound(_))]));
    let answers = store.redrive(&[letter.id + 1, letter.id], None).await;
    assert!(matches!(answers[..], [Err(QueueError::NotFound(_)), Ok(())]), "{answers:?}");
    let answers = store.redrive(&[letter.id], Some("r")).await;
    assert!(matches!(answers[..], [Err(QueueError::NotFound(_))]));

    let again = one(&mut *r).await;
    assert_eq!(again.attempt, 1);
    assert_ne!(again.redrive, 0);
    assert_eq!(again.id("r"), format!("{}/r/{}", again.event.id(), again.redrive));
    settle(again, Verdict::Done).await;
    nothing(&mut *s, "it was redriven to r alone").await;
    assert!(letters(&queue).await.is_empty());
}

pub(super) async fn what_was_undecided_asks_the_match_when_it_is_redriven(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let (mut r, mut s) = (consumer(&queue, "r").await, consumer(&queue, "s").await);
    finish(&mut *s, 2).await;
    for reason in [DeadReason::Undecided, DeadReason::Exhausted] {
        let delivery = one(&mut *r).await;
        assert!(!delivery.asks_match);
        settle(delivery, Verdict::Dead(reason)).await;
    }
    let (store, ids) = (queue.stores().dead_letters(), letters(&queue).await);
    let ids: Vec<u64> = ids.iter().map(|letter| letter.id).collect();
    for redriven in store.redrive(&ids, None).await {
        redriven.expect("redrive");
    }
    for _ in 0..2 {
        let delivery = one(&mut *r).await;
        let was_undecided = reference(&delivery) == "a";
        assert_eq!(delivery.asks_match, was_undecided);
        let verdict = if was_undecided { Verdict::Again(Duration::ZERO) } else { Verdict::Done };
        settle(delivery, verdict).await;
    }
    let again = one(&mut *r).await;
    assert!(again.asks_match, "in every attempt");
    settle(again, Verdict::Dead(DeadReason::Undecided)).await;
    let letter = letters(&queue).await.remove(0);
    store.redrive(&[letter.id], Some("s")).await.remove(0).expect("redrive");
    let named = one(&mut *s).await;
    assert!(!named.asks_match, "who names another route means it");
    settle(named, Verdict::Done).await;
}

pub(super) async fn now_and_beginning(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut now =
        queue.source().subscribe(route("now", Terms::default(), Start::Now)).await.expect("subscribe");
    let mut beginning = consumer(&queue, "beginning").await;
    publish(&queue, &["b"]).await;
    assert_eq!(finish(&mut *now, 1).await, ["b"]);
    assert_eq!(finish(&mut *beginning, 2).await, ["a", "b"]);
    // Where a route starts is fixed when it is first seen.
    let mut again = consumer(&queue, "now").await;
    nothing(&mut *again, "its start was fixed").await;
}

pub(super) async fn what_no_route_matches_is_kept(harness: &dyn Harness) {
    let queue = harness.open().await;
    let orders = Terms { event: vec!["E".to_owned()], ..Terms::default() };
    let filter = Filter { matching: Terms::default(), none_of: vec![orders] };
    let unrouted = Route { name: UNROUTED.to_owned(), filter, start: Start::Now, lease: LEASE };
    let mut unrouted = queue.source().subscribe(unrouted).await.expect("subscribe");
    publish(&queue, &["a"]).await;
    queue.intake().publish(event("F", "f")).await.expect("publish");
    let delivery = one(&mut *unrouted).await;
    assert_eq!(reference(&delivery), "f");
    settle(delivery, Verdict::Dead(DeadReason::Unrouted)).await;
    nothing(&mut *unrouted, "the other has a route").await;
    let counts = queue.stores().dead_letters().count().await.expect("count");
    assert_eq!(counts, [(UNROUTED.to_owned(), 1)]);
}

pub(super) async fn a_malformed_body_is_kept_once_and_released(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    let event = event("E", "a");
    let body = Quarantined {
        id: 0,
        body: event.body().clone(),
        proof: Proof::Signed(Algorithm::Md5),
        key: "sydney_sandbox".parse().expect("a key's name"),
        signature: "c2ln".to_owned(),
        received_at: event.received_at(),
        reason: "not-json".to_owned(),
    };
    let quarantine = queue.stores().quarantine();
    quarantine.keep(body.clone()).await.expect("keep");
    quarantine.keep(body.clone()).await.expect("keep again");
    let kept = quarantine.list(0, 10).await.expect("list");
    assert_eq!(kept, [Quarantined { id: kept[0].id, ..body }]);

    quarantine.release(kept[0].id, admit(kept[0].body.clone())).await.expect("release");
    assert!(matches!(quarantine.get(kept[0].id).await, Err(QueueError::NotFound(_))));
    assert_eq!(finish(&mut *consumer, 1).await, ["a"]);
    // Positions go on after what another process published.
    publish(&queue, &["b", "c"]).await;
    assert_eq!(finish(&mut *consumer, 2).await, ["b", "c"]);
}

pub(super) async fn history_tells_the_story(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let (mut r, mut s) = (consumer(&queue, "r").await, consumer(&queue, "s").await);
    settle(one(&mut *r).await, Verdict::Again(Duration::ZERO)).await;
    settle(one(&mut *r).await, Verdict::Done).await;
    settle(one(&mut *s).await, Verdict::Dead(DeadReason::Exhausted)).await;

    let history = queue.stores().history();
    let story = history.find("a", 10).await.expect("find").remove(0);
    let steps: Vec<_> =
        story.steps.iter().map(|step| (step.route.as_str(), step.attempt, step.record.outcome)).collect();
    for step in [("r", 1, Outcome::Transient), ("r", 2, Outcome::Done), ("s", 1, Outcome::Permanent)] {
        assert!(steps.contains(&step), "{step:?} in {steps:?}");
    }
    assert_eq!(story.states[0], StoryState::Done { route: "r".to_owned() });
    assert!(matches!(&story.states[1], StoryState::Dead { route, .. } if route == "s"));
    let by_id = history.find(&event("E", "a").id().to_string()[..12], 10).await.expect("find by id");
    assert_eq!(by_id.len(), 1);
    let whole = history.find(&event("E", "a").id().to_string(), 10).await.expect("find by the whole id");
    assert_eq!(whole.len(), 1);
    assert!(history.find("nobody", 10).await.expect("find nobody").is_empty());
}

pub(super) async fn a_route_in_use_is_not_forgotten(harness: &dyn Harness) {
    let queue = harness.open().await;
    drop(consumer(&queue, "r").await);
    let states = queue.stores().routes().await.expect("routes");
    assert_eq!(states.iter().map(|state| state.name.as_str()).collect::<Vec<_>>(), ["r"]);
    assert!(queue.stores().forget("r").await.is_err());
    assert!(matches!(queue.stores().forget("nowhere").await, Err(QueueError::NotFound(_))));
}

pub(super) async fn a_paused_route_holds_and_goes_on(harness: &dyn Harness) {
    let queue = harness.open().await;
    let (mut r, mut s) = (consumer(&queue, "r").await, consumer(&queue, "s").await);
    let stores = queue.stores();
    assert!(matches!(
        stores.set_paused("nowhere", Some(&Pause::default())).await,
        Err(QueueError::NotFound(_))
    ));
    stores.set_paused("r", Some(&Pause::default())).await.expect("pause");
    let paused = async || {
        let states = queue.stores().routes().await.expect("routes");
        states.into_iter().filter(|state| state.paused).map(|state| state.name).collect::<Vec<_>>()
    };
    assert_eq!(paused().await, ["r"]);
    tokio::time::sleep(PAUSES_WITHIN).await;
    publish(&queue, &["a"]).await;
    finish(&mut *s, 1).await;
    nothing(&mut *r, "it is paused").await;
    let queue = harness.crash(queue).await;
    let mut r = consumer(&queue, "r").await;
    nothing(&mut *r, "and stays so").await;
    // Somebody asks already, as a dispatcher does.
    let resume = async {
        tokio::time::sleep(QUIET).await;
        queue.stores().set_paused("r", None).await.expect("resume");
    };
    let (delivery, ()) = tokio::join!(one(&mut *r), resume);
    assert_eq!((delivery.attempt, delivery.deaths), (1, 0), "holding burns no attempts");
    settle(delivery, Verdict::Done).await;
}

pub(super) async fn how_its_routes_stand_is_shown_to_others(harness: &dyn Harness) {
    let queue = harness.open().await;
    let _consumer = consumer(&queue, "r").await;
    let said = Working {
        route: "r".to_owned(),
        process: "here:1".to_owned(),
        breaker: BreakerState::Open { until: event_model::Timestamp::UNIX_EPOCH },
        throttled: true,
    };
    let showing = said.clone();
    let wishes = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&wishes);
    let hear = move |route: &str| heard.lock().expect("a lock").push(route.to_owned());
    queue.source().show_status(Look::new(move || vec![showing.clone()], hear));
    let began = std::time::Instant::now();
    loop {
        let routes = queue.stores().routes().await.expect("routes");
        let found = routes.into_iter().find(|route| route.name == "r").expect("r is known").working;
        if found == [said.clone()] {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(QUIET).await;
    }
    for wished in 1..=2 {
        queue.stores().close_breakers("r").await.expect("close breakers");
        tokio::time::sleep(PAUSES_WITHIN).await;
        assert_eq!(*wishes.lock().expect("a lock"), vec!["r"; wished], "each wish is heard once");
    }
}

pub(super) async fn a_pause_holds_for_what_was_fetched_before(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    assert!(tokio::time::timeout(LEASE / 3, r.next(4)).await.is_err(), "there is nothing");
    publish(&queue, &["a", "b", "c", "d"]).await;
    let first = one(&mut *r).await;
    settle(first, Verdict::Done).await;
    queue.stores().set_paused("r", Some(&Pause::default())).await.expect("pause");
    tokio::time::sleep(PAUSES_WITHIN).await;
    nothing(&mut *r, "it is paused").await;
    queue.stores().set_paused("r", None).await.expect("resume");
    assert_eq!(finish(&mut *r, 3).await, ["b", "c", "d"]);
}

pub(super) async fn a_pause_ends_by_itself_and_says_why_it_is(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    let until = SystemClock.now().checked_add(PAUSES_WITHIN * 2).expect("a time");
    let (reason, by) = (Some("a \"deploy\"".to_owned()), Some("ops".to_owned()));
    let pause = Pause { until: Some(until), reason, by };
    queue.stores().set_paused("r", Some(&pause)).await.expect("pause");
    let state = async || queue.stores().routes().await.expect("routes").remove(0);
    let found = state().await;
    assert_eq!((found.paused, found.pause), (true, Some(pause)));
    tokio::time::sleep(PAUSES_WITHIN).await;
    publish(&queue, &["a"]).await;
    let delivery = one(&mut *r).await;
    assert!(SystemClock.now() >= until, "not before its end");
    settle(delivery, Verdict::Done).await;
    let found = state().await;
    assert_eq!((found.paused, found.pause), (false, None));
}

pub(super) async fn what_waits_is_retried_now_when_somebody_says_so(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let mut r = consumer(&queue, "r").await;
    for _ in 0..2 {
        settle(one(&mut *r).await, Verdict::Again(Duration::from_hours(1))).await;
    }
    nothing(&mut *r, "both wait").await;
    let (stores, a) = (queue.stores(), event("E", "a").id());
    assert!(!matches!(stores.retry_now("nowhere", a).await, Ok(1..)), "of a route that there is not");
    assert_eq!(stores.retry_now("r", a).await.expect("retry"), 1);
    let again = one(&mut *r).await;
    assert_eq!((reference(&again).as_str(), again.attempt, again.deaths), ("a", 2, 0));
    assert_eq!(stores.retry_now("r", a).await.expect("retry"), 0, "it is being attempted");
    settle(again, Verdict::Done).await;
    nothing(&mut *r, "the other waits still").await;
    assert_eq!(stores.retry_now("r", a).await.expect("retry"), 0, "it is done");
}

pub(super) async fn an_event_is_found_by_fluents_own_id_too(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let a = event("E", "a");
    let own = a.fields().fluent_event_id.clone().expect("Fluent's id");
    let history = queue.stores().history();
    for reference in [own.as_str(), "a", &a.id().to_string(), &a.id().to_string()[..8]] {
        let found = history.find(reference, 5).await.expect("find");
        assert_eq!(found.iter().map(|story| story.id).collect::<Vec<_>>(), [a.id()], "{reference}");
        let whole = history.event(reference).await.expect("event").expect("it is kept");
        assert_eq!(whole.body(), a.body(), "{reference}");
    }
    assert!(history.find("nobody's", 5).await.expect("find").is_empty());
    assert!(history.event("nobody's").await.expect("event").is_none());
}

pub(super) async fn a_mark_is_found_by_its_name(harness: &dyn Harness) {
    let queue = harness.open().await;
    let marks = queue.stores().marks();
    assert_eq!(marks.get("spool.a").await.expect("get"), None);
    assert_eq!(marks.entries("spool").await.expect("entries"), []);
    for (name, value) in [("spool.b", "1"), ("spool.a", "2"), ("spools.c", "3"), ("spool.b", "4")] {
        marks.set(name, value.into()).await.expect("set");
    }
    let queue = harness.crash(queue).await;
    let marks = queue.stores().marks();
    assert_eq!(marks.get("spool.b").await.expect("get"), Some("4".into()));
    let entries = marks.entries("spool").await.expect("entries");
    let found: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), &entry.value[..])).collect();
    assert_eq!(found, [("spool.a", &b"2"[..]), ("spool.b", b"4")]);
    let now = marks.now().await.expect("now");
    assert!(SystemClock.now().duration_since(now).as_secs().abs() < 30, "{now}");
    let ages = entries.iter().map(|entry| now.duration_since(entry.set_at).as_secs().abs());
    assert!(ages.max() < Some(30), "when it was set is known: {entries:?}");
    marks.unset("spool.b").await.expect("unset");
    marks.unset("spool.b").await.expect("unset again");
    assert_eq!(marks.get("spool.b").await.expect("get"), None);
}

pub(super) async fn a_mark_is_replaced_by_who_knows_it(harness: &dyn Harness) {
    let queue = harness.open().await;
    let marks = queue.stores().marks();
    assert_eq!(marks.get_versioned("login.a").await.expect("get"), None);
    assert!(!marks.compare_and_set("login.a", "0".into(), 7).await.expect("set"), "it is not there");
    assert!(marks.compare_and_set("login.a", "1".into(), 0).await.expect("set"));
    assert!(!marks.compare_and_set("login.a", "2".into(), 0).await.expect("set"), "it is there now");
    let (value, version) = marks.get_versioned("login.a").await.expect("get").expect("a mark");
    assert_eq!(value, "1");
    // Of many who know the same one wins; what others set is none of theirs.
    marks.set("login.b", "1".into()).await.expect("set");
    let setting = ["a", "b", "c", "d"].map(|value| marks.compare_and_set("login.a", value.into(), version));
    let won = futures::future::join_all(setting).await;
    assert_eq!(won.iter().filter(|won| *won.as_ref().expect("set")).count(), 1, "{won:?}");
    let queue = harness.crash(queue).await;
    let marks = queue.stores().marks();
    let (_, newer) = marks.get_versioned("login.a").await.expect("get").expect("a mark");
    assert_ne!(newer, version);
    marks.set("login.a", "e".into()).await.expect("set");
    assert!(!marks.compare_and_set("login.a", "f".into(), newer).await.expect("set"), "it was set since");
}

pub(super) async fn what_was_reconciled_is_marked_so(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut everything = consumer(&queue, "everything").await;
    let webhooks = Terms { origin: vec![Origin::Webhook.to_string()], ..Terms::default() };
    let webhooks = queue.source().subscribe(route("webhooks", webhooks, Start::Beginning)).await;
    let mut webhooks = webhooks.expect("subscribe");
    let event = event("E", "a");
    let stored = Stored { proof: Proof::Api, signature: String::new(), ..event.stored().clone() };
    let reconciled = Event::restore(event.id(), stored).expect("the same bytes");
    assert!(!queue.stores().admit(reconciled.clone()).await.expect("admit"), "it is new");
    assert!(queue.stores().admit(reconciled.clone()).await.expect("admit again"), "it is known");
    let delivery = one(&mut *everything).await;
    assert_eq!((&*delivery.event, delivery.event.origin()), (&reconciled, Origin::Reconciled));
    settle(delivery, Verdict::Done).await;
    nothing(&mut *webhooks, "it never came").await;
}
