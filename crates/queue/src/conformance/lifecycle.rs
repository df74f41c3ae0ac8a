//! Checks of a lifecycle, on which the process relies whichever role it opened.

use futures::FutureExt;

use super::samples::{assert_stored, event, eventually};
use super::{IntakeHarness, checks, run};
use crate::QueueError;

/// Runs every check of a lifecycle.
pub async fn all(fresh: impl AsyncFn() -> Box<dyn IntakeHarness>) {
    let checks = checks![dyn IntakeHarness:
        one_that_is_well_says_so,
        a_closed_one_takes_nothing_and_has_kept_what_it_took,
        closing_twice_is_closing_once,
    ];
    run("lifecycle", checks, fresh).await;
}

async fn one_that_is_well_says_so(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    open.intake.publish(event("E", "a")).await.expect("publish");
    eventually("it is reachable", async || {
        open.lifecycle.health().await.is_reachable
    })
    .await;
    assert!(
        open.lifecycle.failed().now_or_never().is_none(),
        "it has not failed"
    );
}

async fn a_closed_one_takes_nothing_and_has_kept_what_it_took(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    for reference in ["a", "b"] {
        assert!(
            !open
                .intake
                .publish(event("E", reference))
                .await
                .expect("publish")
                .duplicate
        );
    }
    open.lifecycle.close().await;
    let refused = open.intake.publish(event("E", "c")).await;
    assert!(matches!(refused, Err(QueueError::Closed)), "{refused:?}");
    let open = harness.crash(open).await;
    for reference in ["a", "b"] {
        assert!(
            open.intake
                .publish(event("E", reference))
                .await
                .expect("publish again")
                .duplicate
        );
        assert_stored(&*open.stores, reference).await;
    }
    assert!(
        !open
            .intake
            .publish(event("E", "c"))
            .await
            .expect("publish")
            .duplicate,
        "it was refused"
    );
}

async fn closing_twice_is_closing_once(harness: &dyn IntakeHarness) {
    let open = harness.open().await;
    open.intake.publish(event("E", "a")).await.expect("publish");
    open.lifecycle.close().await;
    open.lifecycle.close().await;
    let open = harness.crash(open).await;
    assert_stored(&*open.stores, "a").await;
}
