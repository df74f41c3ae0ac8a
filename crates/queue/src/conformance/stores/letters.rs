//! Dead letters, and their redrives.

use event_model::Timestamp;
use std::time::Duration;

use crate::conformance::samples::{
    consumer, event, finish, nothing_before, one, publish, reference, settle,
};
use crate::conformance::{Harness, Queue};
use crate::{
    DeadQuery, DeadReason, Disposition, PAUSES_WITHIN, Pause, Position, QueueError, ReceivedQuery,
    ReplayOutcome, StoryState,
};

pub(super) async fn letters(queue: &Queue) -> Vec<crate::DeadLetter> {
    let query = DeadQuery {
        limit: 100,
        ..DeadQuery::default()
    };
    queue
        .stores()
        .dead_letters()
        .list(query)
        .await
        .expect("list")
}

pub(super) async fn a_dead_letter_is_kept_and_redriven_to_one_route(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut r = consumer(&queue, "r").await;
    let mut s = consumer(&queue, "s").await;
    finish(&mut *s, 1).await;
    settle(one(&mut *r).await, Disposition::Dead(DeadReason::Permanent)).await;
    let later = nothing_before(&queue, &mut *r, "E", "it is dead").await;
    assert_eq!(finish(&mut *s, later.len()).await, later);

    let letter = letters(&queue).await.remove(0);
    assert_eq!(
        (letter.route.as_str(), letter.reason, letter.attempts),
        ("r", DeadReason::Permanent, 1)
    );
    assert_eq!((letter.event, letter.redrive), (event("E", "a"), 0));
    let store = queue.stores().dead_letters();
    let answers = store.redrive(&[letter.id], Some("nowhere")).await;
    assert!(matches!(answers[..], [Err(QueueError::NotFound(_))]));
    let answers = store.redrive(&[letter.id + 1, letter.id], None).await;
    assert!(
        matches!(answers[..], [Err(QueueError::NotFound(_)), Ok(())]),
        "{answers:?}"
    );
    let answers = store.redrive(&[letter.id], Some("r")).await;
    assert!(matches!(answers[..], [Err(QueueError::NotFound(_))]));

    let again = one(&mut *r).await;
    assert_eq!(again.attempt, 1);
    assert_ne!(again.redrive, 0);
    assert_eq!(
        again.id("r"),
        format!("{}/r/{}", again.event.id(), again.redrive)
    );
    settle(again, Disposition::Done).await;
    nothing_before(&queue, &mut *s, "E", "it was redriven to r alone").await;
    assert!(letters(&queue).await.is_empty());
}

pub(super) async fn what_was_undecided_asks_the_match_when_it_is_redriven(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let mut r = consumer(&queue, "r").await;
    let mut s = consumer(&queue, "s").await;
    finish(&mut *s, 2).await;
    for reason in [DeadReason::Undecided, DeadReason::Exhausted] {
        let delivery = one(&mut *r).await;
        assert!(!delivery.asks_match);
        settle(delivery, Disposition::Dead(reason)).await;
    }
    let store = queue.stores().dead_letters();
    let ids = letters(&queue).await;
    let ids: Vec<u64> = ids.iter().map(|letter| letter.id).collect();
    for redriven in store.redrive(&ids, None).await {
        redriven.expect("redrive");
    }
    for _ in 0..2 {
        let delivery = one(&mut *r).await;
        let was_undecided = reference(&delivery) == "a";
        assert_eq!(delivery.asks_match, was_undecided);
        let disposition = if was_undecided {
            Disposition::Again(Duration::ZERO)
        } else {
            Disposition::Done
        };
        settle(delivery, disposition).await;
    }
    let again = one(&mut *r).await;
    assert!(again.asks_match, "in every attempt");
    settle(again, Disposition::Dead(DeadReason::Undecided)).await;
    let letter = letters(&queue).await.remove(0);
    store
        .redrive(&[letter.id], Some("s"))
        .await
        .remove(0)
        .expect("redrive");
    let named = one(&mut *s).await;
    assert!(!named.asks_match, "who names another route means it");
    settle(named, Disposition::Done).await;
}

/// A page costs the same, however many letters the filter leaves out.
pub(super) async fn a_page_of_letters_looks_at_so_many(harness: &dyn Harness) {
    let queue = harness.open().await;
    let store = queue.stores().dead_letters();
    assert_eq!(store.last_id().await.expect("last id"), 0);
    let mut r = consumer(&queue, "r").await;
    for (name, reference) in [("E", "a"), ("E", "b"), ("E", "c"), ("F", "d"), ("F", "e")] {
        let published = queue.intake().publish(event(name, reference)).await;
        published.expect("publish");
        settle(one(&mut *r).await, Disposition::Dead(DeadReason::Permanent)).await;
    }
    let ids: Vec<u64> = letters(&queue).await.iter().map(|it| it.id).collect();
    let page = async |after: u64, examined: usize| {
        let query = DeadQuery {
            event: Some("F".to_owned()),
            after,
            limit: 10,
            ..DeadQuery::default()
        };
        let page = store.page(query, examined).await.expect("page");
        let found: Vec<u64> = page.letters.iter().map(|it| it.id).collect();
        (found, page.next)
    };
    assert_eq!(page(0, 2).await, (vec![], Some(ids[1])));
    assert_eq!(page(ids[1], 2).await, (vec![ids[3]], Some(ids[3])));
    assert_eq!(page(ids[3], 2).await, (vec![ids[4]], None));
    assert_eq!(page(0, 100).await, (vec![ids[3], ids[4]], None));
    assert_eq!(page(ids[4], 2).await, (vec![], None));
    assert_eq!(store.last_id().await.expect("last id"), ids[4]);
    for discarded in store.discard(&ids).await {
        discarded.expect("discard");
    }
    let last = store.last_id().await.expect("last id");
    assert_eq!(last, ids[4], "also after it has gone");
}

pub(super) async fn dead_letters_are_found_by_what_people_know(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    for (name, reference) in [("E", "a"), ("F", "b"), ("E", "c")] {
        queue
            .intake()
            .publish(event(name, reference))
            .await
            .expect("publish");
        let reason = if reference == "c" {
            DeadReason::Exhausted
        } else {
            DeadReason::Permanent
        };
        settle(one(&mut *r).await, Disposition::Dead(reason)).await;
    }
    let find = async |query: DeadQuery| {
        let letters = queue
            .stores()
            .dead_letters()
            .list(DeadQuery { limit: 10, ..query })
            .await
            .expect("list");
        letters
            .iter()
            .map(|letter| letter.event.fields().entity_ref.clone().unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    let all = queue
        .stores()
        .dead_letters()
        .list(DeadQuery {
            limit: 10,
            ..DeadQuery::default()
        })
        .await;
    let all = all.expect("list");
    assert_eq!(all.len(), 3);
    assert_eq!(
        find(DeadQuery {
            event: text("E"),
            ..DeadQuery::default()
        })
        .await,
        ["a", "c"]
    );
    assert_eq!(
        find(DeadQuery {
            account: text("ACME"),
            ..DeadQuery::default()
        })
        .await,
        ["a", "b", "c"]
    );
    assert_eq!(
        find(DeadQuery {
            account: text("OTHER"),
            ..DeadQuery::default()
        })
        .await,
        [""; 0]
    );
    assert_eq!(
        find(DeadQuery {
            reason: Some(DeadReason::Exhausted),
            ..DeadQuery::default()
        })
        .await,
        ["c"]
    );
    assert_eq!(
        find(DeadQuery {
            reference: text("b"),
            ..DeadQuery::default()
        })
        .await,
        ["b"]
    );
    assert_eq!(
        find(DeadQuery {
            up_to: all[1].id,
            ..DeadQuery::default()
        })
        .await,
        ["a", "b"]
    );
    let since = Some(Timestamp::MAX);
    assert_eq!(
        find(DeadQuery {
            since,
            ..DeadQuery::default()
        })
        .await,
        [""; 0]
    );
    assert_eq!(
        find(DeadQuery {
            until: since,
            after: all[0].id,
            ..DeadQuery::default()
        })
        .await,
        ["b", "c"]
    );

    let ids: Vec<u64> = all.iter().map(|letter| letter.id).collect();
    let answers = queue.stores().dead_letters().discard(&ids[..2]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(find(DeadQuery::default()).await, ["c"]);
}

pub(super) async fn the_number_of_a_redrive_is_never_given_twice(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    publish(&queue, &["a"]).await;
    settle(one(&mut *r).await, Disposition::Dead(DeadReason::Permanent)).await;
    let stores = queue.stores();
    let redrive = async || {
        let query = DeadQuery {
            limit: 1,
            ..DeadQuery::default()
        };
        let letter = stores
            .dead_letters()
            .list(query)
            .await
            .expect("list")
            .remove(0);
        stores
            .dead_letters()
            .redrive(&[letter.id], None)
            .await
            .remove(0)
            .expect("redrive");
    };
    let mut numbers = Vec::new();
    for _ in 0..2 {
        redrive().await;
        let again = one(&mut *r).await;
        numbers.push(again.redrive);
        settle(again, Disposition::Dead(DeadReason::Permanent)).await;
        harness.forget_attempts().await;
    }
    let all = ReceivedQuery {
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::MAX,
        after: Position::START,
        limit: 10,
    };
    let events = stores
        .history()
        .received(all)
        .await
        .expect("received")
        .events;
    for _ in 0..2 {
        let replayed = stores.replay("r", &events, true).await.expect("replay");
        assert_eq!(replayed, [ReplayOutcome::HandedOver]);
        let again = one(&mut *r).await;
        numbers.push(again.redrive);
        settle(again, Disposition::Done).await;
        harness.forget_attempts().await;
    }
    assert!(
        numbers.is_sorted_by(|before, after| before < after),
        "they rise: {numbers:?}"
    );
    redrive().await;
    let last = one(&mut *r).await;
    assert!(
        last.redrive > 0 && !numbers.contains(&last.redrive),
        "{} of {numbers:?}",
        last.redrive
    );
    settle(last, Disposition::Done).await;
}

/// Returns the state of the event about this reference on the only route.
async fn state(queue: &Queue, reference: &str) -> Option<StoryState> {
    let found = queue.stores().history().find(reference, 1).await;
    let mut story = found.expect("find").remove(0);
    story.states.pop()
}

pub(super) async fn what_is_redriven_is_no_dead_letter_and_not_handed_over_twice(
    harness: &dyn Harness,
) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut r = consumer(&queue, "r").await;
    settle(one(&mut *r).await, Disposition::Dead(DeadReason::Permanent)).await;
    let letter = letters(&queue).await.remove(0).id;
    assert!(
        matches!(state(&queue, "a").await, Some(StoryState::Dead { letter: found, .. }) if found == letter)
    );
    let stores = queue.stores();
    let all = ReceivedQuery {
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::MAX,
        after: Position::START,
        limit: 10,
    };
    let received = stores.history().received(all).await.expect("received");
    stores
        .set_paused("r", Some(&Pause::default()))
        .await
        .expect("pause");
    tokio::time::sleep(PAUSES_WITHIN).await;
    let redriven = stores.dead_letters().redrive(&[letter], None).await;
    assert!(matches!(redriven[..], [Ok(())]), "{redriven:?}");
    let found = state(&queue, "a").await;
    assert!(
        matches!(
            found,
            Some(StoryState::InFlight { .. } | StoryState::Waiting { .. })
        ),
        "it is on its way: {found:?}"
    );
    for again in [false, true] {
        let replayed = stores.replay("r", &received.events, again).await;
        assert_eq!(replayed.expect("replay"), [ReplayOutcome::Ahead], "{again}");
    }
    stores.set_paused("r", None).await.expect("resume");
    settle(one(&mut *r).await, Disposition::Dead(DeadReason::Permanent)).await;
    let letter = letters(&queue).await.remove(0).id;
    let discarded = stores.dead_letters().discard(&[letter]).await;
    assert!(matches!(discarded[..], [Ok(())]), "{discarded:?}");
    let found = state(&queue, "a").await;
    assert!(
        !matches!(found, Some(StoryState::Dead { .. })),
        "it is discarded: {found:?}"
    );
}
