//! The list of attempts: its order, its pages, and what bounds them.

use std::time::Duration;

use event_model::Timestamp;
use futures::future::join_all;
use tokio::time::timeout;

use crate::conformance::samples::{consumer, event, event_of, one, publish, settle, settlement};
use crate::conformance::{Harness, PATIENCE};
use crate::{AttemptQuery, Consumer, DeadReason, Delivery, Disposition, MAX_REF, Outcome};

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
    assert_eq!(
        find(AttemptQuery {
            status: Some(418),
            ..AttemptQuery::default()
        })
        .await,
        [""; 0]
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

/// Whoever reads page by page goes on behind the last attempt seen, however many ended since.
pub(super) async fn a_place_stays_where_it_is_while_others_end(harness: &dyn Harness) {
    const OLD: usize = 5;
    const NEW: usize = 600;
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    let history = queue.stores().history();
    let settle_all = async |r: &mut dyn Consumer, from: usize, count: usize| {
        let events = (from..from + count).map(|number| event("E", &number.to_string()));
        let published = join_all(events.map(|event| queue.intake().publish(event))).await;
        assert!(published.iter().all(Result::is_ok), "{published:?}");
        for number in from..from + count {
            settle_after(one(r).await, Duration::from_secs(number as u64)).await;
        }
    };
    let page_from = async |before: Option<u64>| {
        let query = AttemptQuery {
            before,
            limit: OLD,
            ..AttemptQuery::default()
        };
        history.attempts(query).await.expect("attempts").attempts
    };
    settle_all(&mut *r, 0, OLD).await;
    let first = page_from(None).await;
    assert_eq!(first.len(), OLD);
    settle_all(&mut *r, OLD, NEW).await;
    for (index, attempt) in first.iter().enumerate() {
        let page = page_from(Some(attempt.place)).await;
        let place = page.iter().position(|it| it.id == attempt.id);
        let place = place.expect("the attempt is on the page that begins at its place");
        let rest: Vec<_> = page[place..].iter().map(|it| it.id).collect();
        let expected: Vec<_> = first[index..].iter().map(|it| it.id).collect();
        assert_eq!(rest, expected, "what was behind it, and nothing else");
    }
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
