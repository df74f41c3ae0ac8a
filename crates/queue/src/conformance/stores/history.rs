//! The history of events, and replays.

use event_model::Timestamp;
use futures::future::join_all;
use std::time::Duration;
use tokio::time::timeout;

use crate::conformance::samples::{
    consumer, event, event_of, finish, nothing_before, one, publish, reference, route, settle,
    settlement,
};
use crate::conformance::{Harness, PATIENCE};
use crate::{
    AttemptQuery, DeadReason, Delivery, Disposition, MAX_REF, MatchFields, Outcome, Position,
    ReceivedQuery, ReplayOutcome, StartPosition, StoryState,
};

pub(super) async fn history_tells_the_story(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut r = consumer(&queue, "r").await;
    let mut s = consumer(&queue, "s").await;
    settle(one(&mut *r).await, Disposition::Again(Duration::ZERO)).await;
    settle(one(&mut *r).await, Disposition::Done).await;
    settle(one(&mut *s).await, Disposition::Dead(DeadReason::Exhausted)).await;

    let history = queue.stores().history();
    let story = history.find("a", 10).await.expect("find").remove(0);
    let steps: Vec<_> = story
        .steps
        .iter()
        .map(|step| (step.route.as_str(), step.attempt, step.record.outcome))
        .collect();
    for step in [
        ("r", 1, Outcome::Transient),
        ("r", 2, Outcome::Done),
        ("s", 1, Outcome::Permanent),
    ] {
        assert!(steps.contains(&step), "{step:?} in {steps:?}");
    }
    assert_eq!(
        story.states[0],
        StoryState::Done {
            route: "r".to_owned()
        }
    );
    assert!(matches!(&story.states[1], StoryState::Dead { route, .. } if route == "s"));
    let by_id = history
        .find(&event("E", "a").id().to_string()[..12], 10)
        .await
        .expect("find by id");
    assert_eq!(by_id.len(), 1);
    let whole = history
        .find(&event("E", "a").id().to_string(), 10)
        .await
        .expect("find by the whole id");
    assert_eq!(whole.len(), 1);
    assert!(
        history
            .find("nobody", 10)
            .await
            .expect("find nobody")
            .is_empty()
    );
}

pub(super) async fn an_event_is_found_by_fluents_own_id_too(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let a = event("E", "a");
    let own = a.fields().fluent_event_id.clone().expect("Fluent's id");
    let history = queue.stores().history();
    for reference in [
        own.as_str(),
        "a",
        &a.id().to_string(),
        &a.id().to_string()[..8],
    ] {
        let found = history.find(reference, 5).await.expect("find");
        assert_eq!(
            found.iter().map(|story| story.id).collect::<Vec<_>>(),
            [a.id()],
            "{reference}"
        );
        let whole = history
            .event(reference)
            .await
            .expect("event")
            .expect("it is kept");
        assert_eq!(whole.body(), a.body(), "{reference}");
    }
    assert!(history.find("nobody's", 5).await.expect("find").is_empty());
    assert!(history.event("nobody's").await.expect("event").is_none());
}

pub(super) async fn attempts_are_listed_newest_first_and_page_by_page(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    // Two attempts end at the same time: pages must not lose one of them.
    for (name, reference, second, disposition) in [
        ("E", "a", 0, Disposition::Done),
        ("E", "b", 1, Disposition::Done),
        ("E", "c", 1, Disposition::Done),
        ("F", "d", 2, Disposition::Dead(DeadReason::Permanent)),
    ] {
        queue
            .intake()
            .publish(event(name, reference))
            .await
            .expect("publish");
        let mut settlement = settlement(disposition);
        settlement.attempt.started_at += Duration::from_secs(second);
        one(&mut *r)
            .await
            .ticket
            .settle(settlement)
            .await
            .expect("settle");
    }

    let history = queue.stores().history();
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let query = AttemptQuery {
            before,
            limit: 2,
            ..AttemptQuery::default()
        };
        let page = history.attempts(query).await.expect("attempts");
        found.extend(
            page.attempts
                .iter()
                .map(|attempt| attempt.about.entity.clone().unwrap_or_default()),
        );
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 4);
    found[1..3].sort();
    assert_eq!(found, ["ORDER/d", "ORDER/b", "ORDER/c", "ORDER/a"]);
    let find = async |query: AttemptQuery| {
        let page = history
            .attempts(AttemptQuery { limit: 10, ..query })
            .await
            .expect("attempts");
        page.attempts
            .into_iter()
            .map(|attempt| attempt.about.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        find(AttemptQuery {
            event: Some("F".to_owned()),
            ..AttemptQuery::default()
        })
        .await,
        ["F"]
    );
    let outcome = Some(Outcome::Done);
    assert_eq!(
        find(AttemptQuery {
            outcome,
            ..AttemptQuery::default()
        })
        .await,
        ["E", "E", "E"]
    );
    let reference = Some("d".to_owned());
    assert_eq!(
        find(AttemptQuery {
            reference,
            ..AttemptQuery::default()
        })
        .await,
        ["F"]
    );
    assert_eq!(
        find(AttemptQuery {
            route: Some("s".to_owned()),
            ..AttemptQuery::default()
        })
        .await,
        [""; 0]
    );
    let since = Timestamp::from_second(1_790_000_010).ok();
    assert_eq!(
        find(AttemptQuery {
            since,
            ..AttemptQuery::default()
        })
        .await,
        [""; 0]
    );
    assert_eq!(
        find(AttemptQuery {
            until: since,
            ..AttemptQuery::default()
        })
        .await
        .len(),
        4
    );
}

/// A body may be one ref of megabytes: every listing of it is bounded, and no attempt is lost of
/// many that end together.
pub(super) async fn an_endless_ref_makes_no_endless_page(harness: &dyn Harness) {
    const EVENTS: usize = 4;
    let queue = harness.open().await;
    let references: Vec<String> = (0..EVENTS)
        .map(|number| format!("{number}-{}", "\u{e9}".repeat(950_000)))
        .collect();
    let about = |(number, reference): (usize, &String)| {
        let body = format!(
            r#"{{"id":"{number}","name":"E","accountId":"ACME","retailerId":"1","entityType":"ORDER","entityRef":"{reference}"}}"#
        );
        event_of(body)
    };
    let events: Vec<_> = references.iter().enumerate().map(about).collect();
    for event in &events {
        queue
            .intake()
            .publish(event.clone())
            .await
            .expect("publish");
    }
    let mut r = consumer(&queue, "r").await;
    let mut deliveries = Vec::new();
    while deliveries.len() < EVENTS {
        deliveries.push(one(&mut *r).await);
    }
    join_all(
        deliveries
            .into_iter()
            .map(|delivery| settle(delivery, Disposition::Done)),
    )
    .await;

    let history = queue.stores().history();
    let query = AttemptQuery {
        limit: 100,
        ..AttemptQuery::default()
    };
    let page = history.attempts(query.clone()).await.expect("attempts");
    assert_eq!(page.attempts.len(), EVENTS);
    let longest = "ORDER/".len() + MAX_REF;
    let is_cut = |entity: &str| entity.len() <= longest && entity.ends_with('…');
    for attempt in &page.attempts {
        assert!(
            is_cut(attempt.about.entity.as_deref().expect("an entity")),
            "{attempt:?}"
        );
    }
    let reference = Some(references[2].clone());
    let found = history
        .attempts(AttemptQuery { reference, ..query })
        .await
        .expect("attempts")
        .attempts;
    assert_eq!(
        found.iter().map(|attempt| attempt.id).collect::<Vec<_>>(),
        [events[2].id()]
    );
    let story = history
        .find(&events[2].id().to_string(), 1)
        .await
        .expect("find")
        .remove(0);
    assert!(story.entity.as_deref().is_some_and(is_cut) && story.steps.len() == 1);
}

/// An attempt is found, however many others a store has to look at first.
pub(super) async fn an_attempt_is_found_behind_many_others(harness: &dyn Harness) {
    const OTHERS: usize = 600;
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    publish(&queue, &["old"]).await;
    settle_after(one(&mut *r).await, Duration::ZERO).await;
    let others = (0..OTHERS).map(|number| event("F", &format!("f{number}")));
    let published = join_all(others.map(|event| queue.intake().publish(event))).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    let mut settled = 0;
    while settled < OTHERS {
        let deliveries = timeout(PATIENCE, r.next(64))
            .await
            .expect("deliveries in time")
            .expect("next");
        let ends = (settled..).map(|number| Duration::from_secs(1 + number as u64));
        settled += deliveries.len();
        join_all(
            deliveries
                .into_iter()
                .zip(ends)
                .map(|(delivery, end)| settle_after(delivery, end)),
        )
        .await;
    }
    let history = queue.stores().history();
    let mut found = Vec::new();
    let mut before = None;
    let mut pages = 0;
    loop {
        let query = AttemptQuery {
            reference: Some("old".to_owned()),
            before,
            limit: 5,
            ..AttemptQuery::default()
        };
        let page = history.attempts(query).await.expect("attempts");
        found.extend(page.attempts.into_iter().map(|attempt| attempt.about.name));
        (before, pages) = (page.next, pages + 1);
        if before.is_none() {
            break;
        }
        assert!(pages < OTHERS, "there is always one more page");
    }
    assert_eq!(found, ["E"]);
    let all = AttemptQuery {
        event: Some("F".to_owned()),
        limit: 2 * OTHERS,
        ..AttemptQuery::default()
    };
    let mut count = 0;
    let mut before = None;
    loop {
        let page = history
            .attempts(AttemptQuery {
                before,
                ..all.clone()
            })
            .await
            .expect("attempts");
        (count, before) = (count + page.attempts.len(), page.next);
        if before.is_none() {
            break;
        }
    }
    assert_eq!(count, OTHERS, "each once");
}

/// Settles a delivery as done, this long after the first.
async fn settle_after(delivery: Delivery, after: Duration) {
    let mut settlement = settlement(Disposition::Done);
    settlement.attempt.started_at += after;
    delivery.ticket.settle(settlement).await.expect("settle");
}

pub(super) async fn what_was_received_is_replayed_to_one_route(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    let mut s = consumer(&queue, "s").await;
    publish(&queue, &["a", "b", "c"]).await;
    finish(&mut *r, 2).await;
    settle(
        one(&mut *r).await,
        Disposition::Again(Duration::from_mins(10)),
    )
    .await;
    finish(&mut *s, 3).await;
    let mut late = queue
        .source()
        .subscribe(route("late", MatchFields::default(), StartPosition::Now))
        .await
        .expect("subscribe");

    let stores = queue.stores();
    let at = event("E", "a").received_at();
    let received = async |from: Timestamp, until: Timestamp| {
        let mut events = Vec::new();
        let mut after = Some(Position::START);
        while let Some(behind) = after {
            let query = ReceivedQuery {
                from,
                until,
                after: behind,
                limit: 2,
            };
            let page = stores.history().received(query).await.expect("received");
            events.extend(page.events);
            after = page.next;
        }
        events
    };
    let later = at.checked_add(Duration::from_secs(1)).expect("a time");
    assert!(
        received(later, Timestamp::MAX).await.is_empty(),
        "received before that"
    );
    let events = received(Timestamp::UNIX_EPOCH, later).await;
    assert_eq!(events.len(), 3);
    let first = ReceivedQuery {
        from: Timestamp::UNIX_EPOCH,
        until: later,
        after: Position::START,
        limit: 2,
    };
    let rest = ReceivedQuery {
        after: events[1].0,
        ..first
    };
    let mut keys = Vec::new();
    for (query, next) in [(first, Some(events[1].0)), (rest, None)] {
        let page = stores.history().received_keys(query).await.expect("keys");
        assert_eq!(page.next, next);
        keys.extend(page.keys);
    }
    let expected = events
        .iter()
        .map(|(position, event)| (*position, event.fluent_key()));
    assert_eq!(keys, expected.collect::<Vec<_>>());
    assert!(stores.replay("nowhere", &events, false).await.is_err());
    let replayed = stores.replay("r", &events, false).await.expect("replay");
    assert_eq!(
        replayed,
        [
            ReplayOutcome::Done,
            ReplayOutcome::Done,
            ReplayOutcome::Ahead
        ]
    );

    let replayed = stores
        .replay("late", &events[..1], false)
        .await
        .expect("replay");
    assert_eq!(replayed, [ReplayOutcome::HandedOver]);
    let delivery = one(&mut *late).await;
    assert_eq!((reference(&delivery).as_str(), delivery.attempt), ("a", 1));
    assert_ne!(delivery.redrive, 0);
    settle(delivery, Disposition::Done).await;

    let replayed = stores.replay("r", &events, true).await.expect("replay");
    assert_eq!(
        replayed,
        [
            ReplayOutcome::HandedOver,
            ReplayOutcome::HandedOver,
            ReplayOutcome::Ahead
        ]
    );
    assert_eq!(finish(&mut *r, 2).await, ["a", "b"]);
    let why = "two were done with, then replayed once; the third waits";
    let later = nothing_before(&queue, &mut *r, "E", why).await;
    let others = finish(&mut *s, later.len()).await;
    assert_eq!(others, later, "it was replayed to others");
}

pub(super) async fn a_shard_that_is_not_there_has_no_events(harness: &dyn Harness) {
    let queue = harness.open().await;
    let _r = consumer(&queue, "r").await;
    publish(&queue, &["a", "b"]).await;
    let stores = queue.stores();
    let from = |after| ReceivedQuery {
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::MAX,
        after,
        limit: 10,
    };
    let elsewhere = Position::new(Position::MAX_SHARD, 0).expect("a position");
    let page = stores
        .history()
        .received(from(elsewhere))
        .await
        .expect("received");
    assert_eq!((page.events.len(), page.next), (0, None));

    let page = stores
        .history()
        .received(from(Position::START))
        .await
        .expect("received");
    let (position, event) = page.events.into_iter().next().expect("an event");
    let elsewhere = Position::new(Position::MAX_SHARD, position.sequence()).expect("a position");
    let replayed = stores
        .replay("r", &[(elsewhere, event)], true)
        .await
        .expect("replay");
    assert_eq!(replayed, [ReplayOutcome::Gone]);
}
