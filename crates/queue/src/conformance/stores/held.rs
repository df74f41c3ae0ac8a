//! Webhooks that are no events yet: quarantined and rejected ones.

use event_model::{Algorithm, Bytes, Headers, Proof, Timestamp};

use crate::conformance::Harness;
use crate::conformance::samples::{consumer, event, event_of, finish, nothing_before, publish};
use crate::{PAGE_BYTES, Quarantined, QueueError, RejectedWebhook};

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
    quarantine.store(body.clone()).await.expect("keep");
    quarantine.store(body.clone()).await.expect("keep again");
    let kept = quarantine.list(0, 10).await.expect("list");
    assert_eq!(
        kept,
        [Quarantined {
            id: kept[0].id,
            ..body
        }]
    );

    assert_eq!(quarantine.count().await.expect("count"), 1);

    quarantine
        .release(kept[0].id, event_of(kept[0].body.clone()))
        .await
        .expect("release");
    assert!(matches!(
        quarantine.get(kept[0].id).await,
        Err(QueueError::NotFound(_))
    ));
    assert_eq!(finish(&mut *consumer, 1).await, ["a"]);
    // Positions go on after what another process published.
    publish(&queue, &["b", "c"]).await;
    assert_eq!(finish(&mut *consumer, 2).await, ["b", "c"]);
}

pub(super) async fn a_refused_webhook_is_held_once_and_admitted(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    let signed = |reference: &str, signature: &[u8]| {
        let headers: Headers = [("fluent-signature", signature.to_vec())]
            .into_iter()
            .collect();
        let at = Timestamp::from_second(4_000_000_000).expect("a time");
        let body = event("E", reference).body().clone();
        RejectedWebhook::stored(
            0,
            body,
            headers,
            at,
            "no-key-matches".to_owned(),
            "ACME".to_owned(),
        )
    };
    let refused = |reference: &str| signed(reference, b"\xffnot text");
    let hold = queue.stores().refused();
    for reference in ["a", "b", "a"] {
        hold.capture(refused(reference)).await.expect("hold");
    }
    let held = hold.list(0, 10).await.expect("list");
    assert_eq!(held.len(), 2);
    assert_eq!(hold.count().await.expect("count").webhooks, 2);
    let first = hold.get(held[0].id).await.expect("get");
    assert_eq!(
        (&first.reason[..], &first.account[..]),
        ("no-key-matches", "ACME")
    );
    assert_eq!(first.inbound.body, refused("a").inbound.body);
    assert_eq!(first.inbound.received_at, refused("a").inbound.received_at);
    let values: Vec<_> = first.inbound.headers.all("fluent-signature").collect();
    assert_eq!(values, [b"\xffnot text"]);
    nothing_before(&queue, &mut *r, "E", "nothing of it is proven").await;

    hold.admit(first.id, event_of(Bytes::clone(&first.inbound.body)))
        .await
        .expect("admit");
    assert_eq!(finish(&mut *r, 1).await, ["a"]);
    assert!(hold.get(first.id).await.is_err());
    assert_eq!(hold.list(first.id, 10).await.expect("list").len(), 1);
    // A known event is not published again, whatever headers it came with.
    hold.capture(signed("a", b"another")).await.expect("hold");
    let again = hold
        .list(held[1].id, 10)
        .await
        .expect("list")
        .pop()
        .expect("it is held");
    hold.admit(again.id, event("E", "a")).await.expect("admit");
    assert!(hold.get(again.id).await.is_err(), "it is held no longer");
    nothing_before(&queue, &mut *r, "E", "the other is known").await;
}

/// Anybody can fill the store with large bodies: no reader may have all of them in memory.
pub(super) async fn large_refused_webhooks_are_listed_page_by_page(harness: &dyn Harness) {
    const EACH: usize = PAGE_BYTES / 20;
    const ALL: usize = 25;
    let queue = harness.open().await;
    let hold = queue.stores().refused();
    for number in 0..ALL {
        let mut body = vec![b' '; EACH];
        body[0] = u8::try_from(number).expect("a few");
        let at = Timestamp::from_second(4_000_000_000).expect("a time");
        let reason = "no-key-matches".to_owned();
        let webhook = RejectedWebhook::stored(
            0,
            body.into(),
            Headers::default(),
            at,
            reason,
            "ACME".to_owned(),
        );
        hold.capture(webhook).await.expect("hold");
    }
    let mut pages = Vec::new();
    let mut after = 0;
    loop {
        let page = hold.list(after, 200).await.expect("list");
        let Some(last) = page.last() else { break };
        after = last.id;
        let bytes: u64 = page.iter().map(RejectedWebhook::bytes).sum();
        pages.push((page.len(), bytes));
    }
    let listed: usize = pages.iter().map(|(webhooks, _)| webhooks).sum();
    assert_eq!(listed, ALL, "{pages:?}");
    // A page that is cut has so many bytes that its reader knows it.
    let most = (PAGE_BYTES + EACH) as u64;
    let [cut, _] = pages[..] else {
        panic!("{pages:?}")
    };
    assert!((PAGE_BYTES as u64..=most).contains(&cut.1), "{pages:?}");
    assert_eq!(hold.list(0, 3).await.expect("list").len(), 3);
}
