//! The history of events, and replays.

use std::time::Duration;

use event_model::Timestamp;
use event_model::testing::event_of;

use crate::conformance::Harness;
use crate::conformance::samples::{
    consumer, event, finish, nothing_before, one, publish, reference, route, settle,
};
use crate::{
    AcceptedQuery, DeadReason, Disposition, EventStory, MatchFields, Outcome, Position,
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

/// A page goes on before the last event of the one before it, and a story has the others of its
/// key.
pub(super) async fn a_story_is_found_in_pages(harness: &dyn Harness) {
    let queue = harness.open().await;
    let history = queue.stores().history();
    for name in ["A", "B", "C", "D", "E"] {
        let published = queue.intake().publish(event(name, "x")).await;
        published.expect("publish");
    }
    publish(&queue, &["other"]).await;
    let mut names = Vec::new();
    let mut before = None;
    loop {
        let page = history.find_before("x", before, 2).await.expect("find");
        assert!(page.stories.len() <= 2);
        before = page.next;
        for story in &page.stories {
            let whole = history.event_at(story.position).await.expect("read");
            assert_eq!(whole.expect("it is stored").id(), story.id);
            names.push(story.name.clone());
        }
        if before.is_none() {
            break;
        }
    }
    assert_eq!(names, ["E", "D", "C", "B", "A"]);
    let body = |note: &str| {
        let text = r#"{"id":"1","name":"E","accountId":"ACME","retailerId":"1","entityType":"O","entityRef":"y","note":"#;
        event_of(format!("{text}\"{note}\"}}"))
    };
    for note in ["first", "second"] {
        queue.intake().publish(body(note)).await.expect("publish");
    }
    let found = history.find("y", 5).await.expect("find");
    let others: Vec<Vec<_>> = found
        .iter()
        .map(|story| story.same_id.iter().map(|other| other.id).collect())
        .collect();
    assert_eq!(others, [[body("first").id()], [body("second").id()]]);
}

/// An event whose body was damaged ends no list.
pub(super) async fn what_lies_behind_an_unreadable_event_is_found(harness: &dyn Harness) {
    let queue = harness.open().await;
    let history = queue.stores().history();
    for name in ["A", "B", "C"] {
        let published = queue.intake().publish(event(name, "x")).await;
        published.expect("publish");
    }
    harness.damage_newest().await;
    let names = |stories: &[EventStory]| -> Vec<String> {
        stories.iter().map(|story| story.name.clone()).collect()
    };
    assert_eq!(names(&history.find("x", 1).await.expect("find")), ["B"]);
    let newest = history.event("x").await.expect("event");
    assert_eq!(newest.expect("one that can be read").name(), "B");
    let published = queue.intake().publish(event("D", "x")).await;
    published.expect("publish");
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = history.find_before("x", before, 1).await.expect("find");
        pages.push((names(&page.stories).concat(), page.unreadable));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let expected = [("D", 0), ("", 1), ("B", 0), ("A", 0)];
    let expected = expected.map(|(name, unreadable)| (name.to_owned(), unreadable));
    // The last page of all may be empty.
    assert_eq!(pages[..4], expected);
    assert!(pages[4..].iter().all(|page| page.0.is_empty()), "{pages:?}");
    let all = AcceptedQuery {
        limit: 2,
        examined: 100,
        ..AcceptedQuery::default()
    };
    let first = history.accepted(all.clone()).await.expect("accepted");
    assert_eq!((first.events.len(), first.unreadable), (2, 1));
    let rest = AcceptedQuery {
        before: first.next,
        ..all
    };
    let rest = history.accepted(rest).await.expect("accepted");
    assert_eq!((rest.events.len(), rest.unreadable), (1, 0));
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
    assert!(
        stores
            .preview_replay("nowhere", &events, false)
            .await
            .is_err()
    );
    let previewed = stores
        .preview_replay("r", &events, false)
        .await
        .expect("preview");
    let replayed = stores.replay("r", &events, false).await.expect("replay");
    assert_eq!(previewed, replayed, "a preview says what comes of it");
    assert_eq!(
        replayed,
        [
            ReplayOutcome::Done,
            ReplayOutcome::Done,
            ReplayOutcome::Ahead
        ]
    );

    for _ in 0..2 {
        let previewed = stores.preview_replay("late", &events[..1], false).await;
        assert_eq!(
            previewed.expect("preview"),
            [ReplayOutcome::HandedOver],
            "and does nothing"
        );
    }
    let replayed = stores
        .replay("late", &events[..1], false)
        .await
        .expect("replay");
    assert_eq!(replayed, [ReplayOutcome::HandedOver]);
    let delivery = one(&mut *late).await;
    assert_eq!((reference(&delivery).as_str(), delivery.attempt), ("a", 1));
    assert_ne!(delivery.redrive, 0);
    settle(delivery, Disposition::Done).await;

    let previewed = stores
        .preview_replay("r", &events, true)
        .await
        .expect("preview");
    let replayed = stores.replay("r", &events, true).await.expect("replay");
    assert_eq!(previewed, replayed, "a preview says what comes of it");
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

/// Accepted events are listed from the newest on, and a place stays where it is.
pub(super) async fn accepted_events_are_listed_newest_first(harness: &dyn Harness) {
    let queue = harness.open().await;
    let history = queue.stores().history();
    for (name, reference) in [("E", "a"), ("F", "b"), ("E", "c"), ("E", "d")] {
        let published = queue.intake().publish(event(name, reference)).await;
        published.expect("publish");
    }
    let page = async |query: AcceptedQuery| {
        let page = history.accepted(query).await.expect("accepted");
        let events = page.events.iter();
        let found: Vec<_> = events
            .map(|(_, event)| event.fields().entity_ref.clone().unwrap_or_default())
            .collect();
        (found, page.next)
    };
    let all = AcceptedQuery {
        limit: 10,
        examined: 100,
        ..AcceptedQuery::default()
    };
    assert_eq!(page(all.clone()).await.0, ["d", "c", "b", "a"]);
    let (first, next) = page(AcceptedQuery {
        limit: 2,
        ..all.clone()
    })
    .await;
    assert_eq!(first, ["d", "c"]);
    publish(&queue, &["later"]).await;
    let before = AcceptedQuery {
        before: next,
        ..all.clone()
    };
    assert_eq!(
        page(before).await,
        (vec!["b".to_owned(), "a".to_owned()], None)
    );
    let named = AcceptedQuery {
        event: Some("F".to_owned()),
        ..all.clone()
    };
    assert_eq!(page(named.clone()).await, (vec!["b".to_owned()], None));
    let (none, next) = page(AcceptedQuery {
        examined: 2,
        ..named.clone()
    })
    .await;
    assert_eq!(none, [""; 0]);
    let rest = AcceptedQuery {
        before: Some(next.expect("more may follow")),
        ..named
    };
    assert_eq!(page(rest).await.0, ["b"]);
    // What was looked at before is not looked at again, whether it matched or not.
    let newest = history
        .accepted(all.clone())
        .await
        .expect("accepted")
        .events;
    let behind = |index: usize| AcceptedQuery {
        after: newest[index].0,
        examined: index + 1,
        ..all.clone()
    };
    assert_eq!(page(behind(0)).await, (Vec::new(), None));
    let last = (vec!["later".to_owned(), "d".to_owned()], None);
    assert_eq!(page(behind(2)).await, last);
    let of_one = AcceptedQuery {
        reference: Some("c".to_owned()),
        ..all.clone()
    };
    assert_eq!(page(of_one).await.0, ["c"]);
    let long_ago = AcceptedQuery {
        until: Timestamp::from_second(1).ok(),
        ..all
    };
    assert_eq!(page(long_ago).await.0, [""; 0]);
}
