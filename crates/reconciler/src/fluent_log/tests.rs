//! Reading of a simulated log: slices, halves, pages, and what it says of sending.

use std::num::NonZeroU32;
use std::sync::Arc;

use event_model::{Clock, SystemClock};
use fluent_api::{Credentials, Limits, LoginLedger, MemoryLedger, Options};
use simulator::api::{Fluent, LOGIN, Sending as Sent, World};

use super::*;

fn ledger() -> Arc<dyn LoginLedger> {
    Arc::new(MemoryLedger::new(|| SystemClock.now()))
}

fn client(fluent: &Fluent) -> Client {
    let secret = || -> fluent_api::ReadSecret { Arc::new(|| Ok(LOGIN.to_owned())) };
    let credentials = Credentials {
        username: LOGIN.to_owned(),
        password: secret(),
        client_id: LOGIN.to_owned(),
        client_secret: secret(),
    };
    let limits = Limits {
        per_second: NonZeroU32::new(1000).unwrap(),
        ..Limits::default()
    };
    Client::new(Options {
        base: fluent.url().parse().unwrap(),
        account: "ACME".to_owned(),
        environment: "sandbox".to_owned(),
        credentials,
        limits,
        ledger: ledger(),
    })
    .unwrap()
}

async fn fluent() -> Fluent {
    Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap()
}

/// Returns the last hour.
fn hour() -> Window {
    let until = SystemClock.now();
    Window {
        from: crate::window::earlier(until, Duration::from_hours(1)),
        until,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_at_once_is_read_in_halves() {
    let fluent = fluent().await;
    let order = fluent.world().place_order();
    let all = MOST + 700;
    for number in 0..all {
        let ago = Duration::from_millis(10 * number as u64) + Duration::from_mins(1);
        fluent.world().webhook_of("E", &order, ago, Sent::Never);
    }
    fluent
        .world()
        .webhook_of("F", &order, Duration::from_mins(2), Sent::Never);
    let client = client(&fluent);
    let log = Log {
        account: "ACME",
        client: &client,
    };
    let found = log.events("E", hour()).await.unwrap();
    assert_eq!(found.len(), all, "each of them, once");
    assert!(found.is_sorted_by_key(generated), "the oldest first");
    assert!(found.iter().all(|record| record.name == "E"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_waited_for_and_a_failure_is_tried_again() {
    let fluent = fluent().await;
    let order = fluent.world().place_order();
    for _ in 0..3 {
        fluent
            .world()
            .webhook_of("E", &order, Duration::from_mins(2), Sent::Failed);
    }
    let client = client(&fluent);
    let log = Log {
        account: "ACME",
        client: &client,
    };
    fluent.behave(|behaviour| {
        behaviour.fail_next = 1;
        behaviour.rate_limit = Some((1, Duration::from_secs(1)));
    });
    assert_eq!(log.events("E", hour()).await.unwrap().len(), 3);
    let sent = log.sendings(hour(), &[]).await;
    let id = fluent.world().log()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(sent.of(&id), SendStatus::Logged("FAILED".to_owned()));
    assert_eq!(sent.of("another"), SendStatus::Unlogged);
    assert!(fluent.calls().limited > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_without_its_setting_is_told_from_what_got_lost() {
    let fluent = fluent().await;
    let order = fluent.world().place_order();
    let sendings = [Sent::Failed, Sent::NoSetting, Sent::Never];
    let ago = Duration::from_mins(2);
    let ids = sendings.map(|sending| id_of(&fluent.world().webhook_of("E", &order, ago, sending)));
    // Records of other rules say nothing of it, and one about another Setting not whether it was
    // sent.
    fluent.world().log_custom(&ids[2], "Stock was checked", ago);
    let other = id_of(&fluent.world().webhook_of("E", &order, ago, Sent::Never));
    fluent
        .world()
        .log_custom(&other, "The carrier setting was read", ago);
    let client = client(&fluent);
    let log = Log {
        account: "ACME",
        client: &client,
    };
    let events = log.events("E", hour()).await.unwrap();
    let found = log.sendings(hour(), &events).await;
    let no_setting = SendStatus::NoSetting { of_webhook: true };
    let expected = [
        SendStatus::Logged("FAILED".to_owned()),
        no_setting,
        SendStatus::Unlogged,
    ];
    assert_eq!(ids.each_ref().map(|id| found.of(id)), expected);
    let of_another = SendStatus::NoSetting { of_webhook: false };
    assert_eq!(
        (found.of(&other), of_another.label()),
        (of_another.clone(), "no-setting")
    );
    assert!(
        !crate::admission::was_to_be_sent(&of_another),
        "its workflow may have failed before"
    );
    assert!(expected[..2].iter().all(crate::admission::was_to_be_sent));
    let labels = expected.map(|sending| sending.label());
    assert_eq!(labels, ["failed", "no-setting", "none"]);
    assert!(
        labels
            .iter()
            .all(|label| SendStatus::LABELS.contains(label))
    );
    // For events that were sent, the records of rules are not searched.
    let searches = fluent.calls().searches;
    let sent: Vec<_> = events
        .into_iter()
        .filter(|event| event.id == ids[0])
        .collect();
    log.sendings(hour(), &sent).await;
    assert_eq!(fluent.calls().searches, searches + 1);
}

fn id_of(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_is_not_tried_over_and_over() {
    let fluent = fluent().await;
    let client = client(&fluent);
    let log = Log {
        account: "ACME",
        client: &client,
    };
    fluent.behave(|behaviour| {
        behaviour.fail_with = 401;
        behaviour.fail_next = 100;
    });
    let refused = log.events("E", hour()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            ReconcileError::Api {
                source: ApiError::Login { .. },
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(fluent.calls().logins <= 2, "{:?}", fluent.calls());
}
