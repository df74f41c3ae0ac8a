//! Checks of an upstream, as a spool relies on it.

use std::collections::BTreeMap;

use super::samples::{consumer, event, eventually, finish, old_event, publish};
use super::{Harness, checks, run};
use crate::{Position, Presence, SpoolWatermark, facts};

/// Runs every check of an upstream.
pub async fn all(fresh: impl AsyncFn() -> Box<dyn Harness>) {
    let checks = checks![dyn Harness:
        a_receipt_says_where_the_event_is,
        a_group_keeps_its_order_and_is_present,
        what_is_known_is_there_after_a_crash,
        what_every_route_has_settled_is_not_missed,
        what_is_given_again_is_there,
        how_far_a_spool_is_drained_is_remembered_until_it_is_forgotten,
    ];
    run("upstream", checks, fresh).await;
}

async fn a_receipt_says_where_the_event_is(harness: &dyn Harness) {
    let queue = harness.open().await;
    let first = queue
        .intake()
        .publish(event("E", "a"))
        .await
        .expect("publish");
    let again = queue
        .intake()
        .publish(event("E", "a"))
        .await
        .expect("publish again");
    assert_eq!(
        (again.duplicate, again.position, &again.epoch),
        (true, first.position, &first.epoch)
    );
    let second = queue
        .intake()
        .publish(event("E", "b"))
        .await
        .expect("publish another");
    assert!(second.position > first.position && second.epoch == first.epoch);
    let horizon = queue.upstream().horizon().await.expect("horizon");
    assert_eq!(
        (horizon.last, horizon.epoch),
        (second.position, second.epoch)
    );
}

async fn a_group_keeps_its_order_and_is_present(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["b"]).await;
    let group = ["a", "b", "c"].map(|reference| event("E", reference));
    let published = queue.upstream().publish_many(&group).await;
    assert!(published.error.is_none(), "{published:?}");
    let receipts = published.receipts;
    assert_eq!(
        receipts
            .iter()
            .map(|receipt| receipt.duplicate)
            .collect::<Vec<_>>(),
        [false, true, false]
    );
    assert!(
        receipts[1].position < receipts[0].position && receipts[0].position < receipts[2].position
    );
    for (kept, receipt) in group.iter().zip(&receipts) {
        assert_eq!(
            queue
                .upstream()
                .presence(receipt.position, kept.id())
                .await
                .expect("read back"),
            Presence::Present
        );
        let another = event("E", "z").id();
        assert_eq!(
            queue
                .upstream()
                .presence(receipt.position, another)
                .await
                .expect("read back"),
            Presence::Missing
        );
    }
    let newest = receipts[2].position;
    let beyond = Position::new(newest.shard(), newest.sequence() + 1).expect("a position");
    assert_eq!(
        queue
            .upstream()
            .presence(beyond, group[0].id())
            .await
            .expect("read back"),
        Presence::Missing
    );
    let many: Vec<_> = (0..600)
        .map(|number| event("M", &format!("{number:03}")))
        .collect();
    let published = queue.upstream().publish_many(&many).await;
    assert_eq!(published.receipts.len(), 600, "{:?}", published.error);
    let mut newest = BTreeMap::new();
    for (event, receipt) in many.iter().zip(&published.receipts) {
        let before = newest.insert(event.bucket(), receipt.position);
        assert!(
            before < Some(receipt.position),
            "{event:?} overtook one of its entity"
        );
    }
}

async fn what_is_known_is_there_after_a_crash(harness: &dyn Harness) {
    let queue = harness.open().await;
    let receipt = queue
        .intake()
        .publish(event("E", "a"))
        .await
        .expect("publish");
    let before = queue.upstream().horizon().await.expect("horizon");
    let queue = harness.crash(queue).await;
    assert_eq!(
        queue.upstream().horizon().await.expect("horizon"),
        before,
        "it is the same store"
    );
    let found = queue
        .upstream()
        .presence(receipt.position, event("E", "a").id())
        .await;
    assert_eq!(found.expect("read back"), Presence::Present);
    let elsewhere =
        Position::new(Position::MAX_SHARD, receipt.position.sequence()).expect("a position");
    let found = queue
        .upstream()
        .presence(elsewhere, event("E", "a").id())
        .await;
    assert_eq!(
        found.expect("read back"),
        Presence::Missing,
        "that shard is not there"
    );
}

/// The answer must not make a spool send the event again.
async fn what_every_route_has_settled_is_not_missed(harness: &dyn Harness) {
    let queue = harness.open_forgetful().await;
    let mut r = consumer(&queue, "r").await;
    let mut receipts = Vec::new();
    for reference in ["a", "b", "c"] {
        receipts.push(
            queue
                .intake()
                .publish(old_event(reference))
                .await
                .expect("publish"),
        );
    }
    finish(&mut *r, 3).await;
    let gone = async || {
        queue
            .stores()
            .history()
            .find("a", 1)
            .await
            .expect("find")
            .is_empty()
    };
    eventually("what is settled is removed", gone).await;
    let found = queue
        .upstream()
        .presence(receipts[0].position, old_event("a").id())
        .await;
    assert_ne!(found.expect("read back"), Presence::Missing);
}

async fn what_is_given_again_is_there(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let again = queue
        .upstream()
        .republish(event("E", "a").republished())
        .await
        .expect("republish");
    let found = queue
        .upstream()
        .presence(again.position, event("E", "a").id())
        .await;
    assert_eq!(found.expect("read back"), Presence::Present);
}

async fn how_far_a_spool_is_drained_is_remembered_until_it_is_forgotten(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mark = |is_closed| SpoolWatermark {
        host: "here".to_owned(),
        drained_to: old_event("a").received_at(),
        is_closed,
    };
    queue
        .upstream()
        .note_spool("s1", &mark(false))
        .await
        .expect("note");
    queue
        .upstream()
        .note_spool("s2", &mark(false))
        .await
        .expect("note");
    queue
        .upstream()
        .note_spool("s1", &mark(true))
        .await
        .expect("note again");
    let queue = harness.crash(queue).await;
    let known = async || facts::spools(queue.stores().facts()).await.expect("spools");
    assert_eq!(
        known().await,
        [
            ("s1".to_owned(), mark(true)),
            ("s2".to_owned(), mark(false))
        ]
    );
    queue.upstream().forget_spool("s1").await.expect("forget");
    queue
        .upstream()
        .forget_spool("s1")
        .await
        .expect("forget again");
    assert_eq!(known().await, [("s2".to_owned(), mark(false))]);
}
