//! An entity's whole story in one page.

use std::time::Duration;

use event_model::testing::{event, event_of};
use event_model::{Clock, Headers, SystemClock};
use queue::{Disposition, RejectedWebhook};

use crate::fixture::{Fixture, OPEN, PEOPLE, READ, settle};

/// Whether these words come in this order, each behind the one before.
fn in_order(page: &str, words: &[&str]) -> bool {
    let mut rest = page;
    words.iter().all(|word| match rest.split_once(word) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

fn refused(body: &'static str) -> RejectedWebhook {
    RejectedWebhook::stored(
        0,
        body.as_bytes().into(),
        Headers::default(),
        SystemClock.now(),
        "no-key-matches".to_owned(),
        "ACME".to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_an_entity_is_on_one_page_in_order_of_time() {
    let console = Fixture::open(OPEN);
    console.publish(event("OrderBooked", "HD_1")).await;
    console.publish(event("OrderShipped", "HD_1")).await;
    console.publish(event("OrderShipped", "HD_2")).await;
    let mut wms = console.route("wms").await;
    let mut all = wms.next(3).await.unwrap();
    let other = all.remove(2);
    settle(other, Disposition::Done, "201 another order").await;
    settle(all.remove(0), Disposition::Done, "200 booked").await;
    let wait = Disposition::Again(Duration::from_hours(1));
    settle(all.remove(0), wait, "503 closed").await;
    let mut erp = console.route("erp").await;
    console.bury(&mut *erp, 1, "422 no such shop").await;
    console
        .refuse(refused(r#"{"entityRef":"HD_1","accountId":"ACME"}"#))
        .await;
    console
        .refuse(refused(r#"{"entityRef":"HD_10","accountId":"ACME"}"#))
        .await;
    console.quarantine(r#"{"entityRef":"HD_1""#).await;
    let browser = console.browser();
    let found = browser.get("/search?q=HD_1");
    assert_eq!(found.status, 303, "{found:?}");
    let page = browser.get(found.header("location"));
    let expected = [
        "accepted",
        "OrderBooked",
        "200 booked",
        "503 closed",
        "422 no such shop",
        "next attempt, not before this",
    ];
    assert!(in_order(&page.body, &expected), "{page:?}");
    for what in [
        "dead letter 1",
        "refused: no-key-matches",
        "in quarantine, number 1",
    ] {
        assert!(page.has(what), "{what}: {page:?}");
    }
    assert!(!page.has("another order") && !page.has("HD_10"), "{page:?}");
    assert_eq!(page.body.matches("no-key-matches").count(), 1, "{page:?}");
    for command in [
        "fluent-webhooks events show HD_1",
        "fluent-webhooks refused list --ref=HD_1",
        "fluent-webhooks quarantine list --ref=HD_1",
    ] {
        assert!(page.has(command), "{command}: {page:?}");
    }
    let one = browser.get("/story?ref=HD_1&route=erp");
    assert!(
        one.has("422 no such shop") && !one.has("503 closed"),
        "{one:?}"
    );
    assert!(one.has("--route=erp"), "{one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_has_pages_and_says_when_it_is_not_whole() {
    let console = Fixture::open(OPEN);
    for number in 0..45 {
        console
            .publish(event(&format!("E{number:02}"), "HD_1"))
            .await;
    }
    let mut wms = console.route("wms").await;
    for _ in 0..30 {
        let mut next = wms.next(1).await.unwrap();
        let again = Disposition::Again(Duration::ZERO);
        settle(next.remove(0), again, "503 closed").await;
    }
    drop(wms);
    let browser = console.browser();
    let mut page = browser.get("/story?ref=HD_1");
    let mut seen = Vec::new();
    loop {
        assert_eq!(page.status, 200, "{page:?}");
        for number in 0..45 {
            if page.has(&format!(">E{number:02}<")) {
                seen.push(number);
            }
        }
        let Some((_, rest)) = page.body.split_once("rel=\"next\" href=\"") else {
            break;
        };
        let (link, _) = rest.split_once('"').unwrap();
        page = browser.get(&link.replace("&amp;", "&"));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..45).collect::<Vec<_>>());
    let first = browser.get("/story?ref=HD_1");
    assert!(first.has("the newest 20 events"), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_that_only_something_refused_names_is_found() {
    let console = Fixture::open(PEOPLE);
    console
        .refuse(refused(r#"{"entityRef":"HD_9","accountId":"ACME"}"#))
        .await;
    let browser = console.signed_in(READ);
    let found = browser.get("/search?q=HD_9");
    assert_eq!(found.status, 303, "{found:?}");
    let page = browser.get(found.header("location"));
    assert!(page.has("refused: no-key-matches"), "{page:?}");
    assert!(!page.has("accountId"), "no body is shown: {page:?}");
}

/// Anybody can send what is refused.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_found_behind_many_older_ones() {
    let console = Fixture::open(OPEN);
    console.refuse(refused(r#"{"entityRef":"HD_8"}"#)).await;
    for number in 0..1200 {
        let body = format!(r#"{{"entityRef":"OTHER_{number}"}}"#);
        console.refuse(refused(body.leak())).await;
    }
    console.refuse(refused(r#"{"entityRef":"HD_9"}"#)).await;
    let browser = console.browser();
    let found = browser.get("/search?q=HD_9");
    assert_eq!(found.status, 303, "{found:?}");
    let page = browser.get(found.header("location"));
    assert!(page.has("refused: no-key-matches"), "{page:?}");
    assert!(page.has("only the newest were looked at"), "{page:?}");
    let page = browser.get("/search?q=HD_8");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.has("only the newest were looked at"), "{page:?}");
    assert!(page.has("--before"), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_says_what_fluent_told_again_and_what_was_found_in_its_log() {
    let console = Fixture::open(OPEN);
    let body = |note: &str| {
        format!(
            r#"{{"id":"one","name":"E","accountId":"ACME","retailerId":"1","entityType":"ORDER","entityRef":"HD_1","note":"{note}"}}"#
        )
    };
    console.publish(event_of(body("a"))).await;
    console.publish(event_of(body("b"))).await;
    let page = console.browser().get("/story?ref=HD_1");
    assert!(page.has("told again with another body"), "{page:?}");
}
