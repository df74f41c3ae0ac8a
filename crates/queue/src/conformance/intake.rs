//! Checks of an intake, as a gateway relies on it.

use event_model::{Algorithm, Headers, Proof, Timestamp};
use futures::future::join_all;
use tokio::time::timeout;

use super::samples::{assert_stored, event, eventually};
use super::{IntakeHarness, PATIENCE, QUIET, checks, run};
use crate::{Intake, Quarantined, QueueError, Receipt, RejectedWebhook};

/// Runs every check of an intake.
pub async fn all(fresh: impl AsyncFn() -> Box<dyn IntakeHarness>) {
    let checks = checks![dyn IntakeHarness:
        what_is_accepted_is_stored_whole,
        an_id_is_stored_once,
        what_was_accepted_survives_a_crash,
        many_at_once_are_all_kept,
        one_that_can_store_has_room,
        a_malformed_body_is_quarantined_once_and_survives_a_crash,
        what_was_rejected_is_captured_once,
    ];
    run("intake", checks, fresh).await;
}

async fn what_is_accepted_is_stored_whole(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    let receipt = open.intake.publish(event("E", "a")).await.expect("publish");
    assert!(!receipt.duplicate);
    assert_stored(&*open.stores, "a").await;
    let found = open
        .stores
        .history()
        .event("a")
        .await
        .expect("event")
        .expect("it is stored");
    assert_eq!(found, event("E", "a"));
}

async fn an_id_is_stored_once(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    assert!(
        !open
            .intake
            .publish(event("E", "a"))
            .await
            .expect("publish")
            .duplicate
    );
    let again = open.intake.publish(event("E", "a"));
    let (again, another) = tokio::join!(again, open.intake.publish(event("E", "b")));
    assert!(again.expect("publish again").duplicate);
    assert!(!another.expect("publish another").duplicate);
    // Many publish at the same time, as a sender does that gets no answer for a while.
    let told = join_all((0..8).map(|_| publish_in_time(&*open.intake, "c"))).await;
    let new = told.iter().filter(|told| !told.duplicate).count();
    assert!(new <= 1, "{new} of them were new");
    for reference in ["a", "b", "c"] {
        assert_stored(&*open.stores, reference).await;
    }
    assert_eq!(
        open.stores
            .history()
            .find("c", 9)
            .await
            .expect("find")
            .len(),
        1,
        "stored once"
    );
}

/// Publishes as a gateway does: a queue may answer that it is just about to store the same event.
async fn publish_in_time(intake: &dyn Intake, reference: &str) -> Receipt {
    let publishing = async {
        loop {
            match intake.publish(event("E", reference)).await {
                Err(QueueError::Unavailable { .. }) => tokio::time::sleep(QUIET).await,
                answer => return answer.expect("publish"),
            }
        }
    };
    timeout(PATIENCE, publishing)
        .await
        .expect("an answer in time")
}

async fn what_was_accepted_survives_a_crash(harness: &dyn IntakeHarness) {
    let mut open = harness.open().await;
    // Each publish is the last thing that the process did.
    for reference in ["a", "b", "c"] {
        assert!(
            !open
                .intake
                .publish(event("E", reference))
                .await
                .expect("publish")
                .duplicate
        );
        open = harness.crash(open).await;
    }
    for reference in ["a", "b", "c"] {
        assert_stored(&*open.stores, reference).await;
        assert!(
            open.intake
                .publish(event("E", reference))
                .await
                .expect("publish again")
                .duplicate
        );
    }
}

async fn many_at_once_are_all_kept(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    let names: Vec<_> = (0..200).map(|number| format!("m{number:03}")).collect();
    let published = join_all(
        names
            .iter()
            .map(|name| open.intake.publish(event("E", name))),
    )
    .await;
    assert!(
        published
            .iter()
            .all(|one| one.as_ref().is_ok_and(|receipt| !receipt.duplicate)),
        "{published:?}"
    );
    let open = harness.crash(open).await;
    for name in &names {
        assert_stored(&*open.stores, name).await;
    }
}

async fn one_that_can_store_has_room(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    eventually("there is room", async || open.intake.has_room()).await;
    open.intake.publish(event("E", "a")).await.expect("publish");
    assert!(open.intake.has_room(), "one event does not fill it");
}

async fn a_malformed_body_is_quarantined_once_and_survives_a_crash(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    let body = Quarantined {
        id: 0,
        body: "no event".into(),
        proof: Proof::Signed(Algorithm::Md5),
        key: "sydney_sandbox".parse().expect("a key's name"),
        signature: "c2ln".to_owned(),
        received_at: event("E", "a").received_at(),
        reason: "not-json".to_owned(),
    };
    open.intake
        .quarantine(body.clone())
        .await
        .expect("quarantine");
    let open = harness.crash(open).await;
    open.intake
        .quarantine(body.clone())
        .await
        .expect("quarantine again");
    let other = Quarantined {
        body: "no event either".into(),
        ..body.clone()
    };
    open.intake
        .quarantine(other.clone())
        .await
        .expect("quarantine another");
    let quarantine = open.stores.quarantine();
    let list = async || quarantine.list(0, 10).await.expect("list");
    eventually("both are kept", async || {
        list().await.iter().any(|kept| kept.body == other.body)
    })
    .await;
    let mut kept = list().await;
    kept.sort_by_key(|kept| kept.body.len());
    let expected = [body, other]
        .into_iter()
        .zip(&kept)
        .map(|(body, kept)| Quarantined {
            id: kept.id,
            ..body
        });
    assert_eq!(kept, expected.collect::<Vec<_>>());
}

async fn what_was_rejected_is_captured_once(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    let rejected = |reference: &str| {
        let headers: Headers = [("fluent-signature", b"\xffnot text".to_vec())]
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
    for reference in ["a", "b", "a"] {
        open.intake
            .capture_rejected(rejected(reference))
            .await
            .expect("capture");
    }
    let kept = open.stores.refused().list(0, 10).await.expect("list");
    let found: Vec<_> = kept
        .iter()
        .map(|webhook| webhook.inbound.body.clone())
        .collect();
    assert_eq!(
        found,
        ["a", "b"].map(|reference| event("E", reference).body().clone())
    );
    assert!(
        kept.iter()
            .all(|webhook| (&*webhook.reason, &*webhook.account) == ("no-key-matches", "ACME"))
    );
    let published = open.stores.history().find("a", 1).await.expect("find");
    assert!(published.is_empty(), "nothing of it is proven");
}
