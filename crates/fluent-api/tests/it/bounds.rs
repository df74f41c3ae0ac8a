//! Limits of the requests to an account, and what happens beyond them.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use fluent_api::{ApiError, Limits, Mode, NewEvent, Query};
use futures::future::join_all;
use serde_json::Map;
use simulator::api::LOGIN;

use crate::{client, client_with, fluent, limits};

fn anything() -> Query {
    Query::parse("{ __typename }").unwrap()
}

#[tokio::test]
async fn a_rate_limit_leaves_the_account_alone() {
    let fluent = fluent().await;
    let client = client(&fluent);
    fluent.behave(|behaviour| behaviour.rate_limit = Some((2, Duration::from_secs(60))));
    let nothing = Map::new();
    for _ in 0..2 {
        client.graphql(&anything(), &nothing).await.unwrap();
    }
    for number in 0..5 {
        let limited = client.graphql(&anything(), &nothing).await.unwrap_err();
        assert_eq!(
            (limited.is_sent(), limited.kind()),
            (number == 0, "rate-limited")
        );
        assert!(
            limited
                .wait()
                .is_some_and(|wait| wait > Duration::from_secs(50)),
            "{limited}"
        );
    }
    assert_eq!(
        fluent.calls().limited,
        1,
        "after the first refusal nothing was asked"
    );
    assert!(client.pause().is_some());
}

#[tokio::test]
async fn a_rate_limit_of_the_rest_is_the_same() {
    let fluent = fluent().await;
    let client = client(&fluent);
    fluent.behave(|behaviour| behaviour.rate_limit = Some((0, Duration::from_secs(60))));
    let limited = client
        .post_event(&NewEvent::default(), Mode::Async)
        .await
        .unwrap_err();
    assert!(matches!(limited, ApiError::RateLimited { .. }), "{limited}");
    assert!(client.pause().is_some());
}

#[tokio::test]
async fn no_more_than_allowed_are_asked_at_once() {
    let fluent = fluent().await;
    fluent.behave(|behaviour| behaviour.latency = Duration::from_millis(100));
    let bounded = Limits {
        at_once: 2,
        wait: Duration::from_millis(250),
        ..limits()
    };
    let client = client_with(&fluent, LOGIN, bounded);
    client.graphql(&anything(), &Map::new()).await.unwrap();
    let query = anything();
    let nothing = Map::new();
    let asked = join_all((0..20).map(|_| client.graphql(&query, &nothing))).await;
    let busy = asked
        .iter()
        .filter(|answer| matches!(answer, Err(ApiError::Busy)))
        .count();
    assert!(
        (10..=18).contains(&busy),
        "two at a time for a quarter of a second: {busy} were turned away"
    );
}

#[tokio::test]
async fn no_more_than_allowed_are_asked_a_second() {
    let fluent = fluent().await;
    let bounded = Limits {
        per_second: NonZeroU32::new(20).unwrap(),
        ..limits()
    };
    let client = client_with(&fluent, LOGIN, bounded);
    let query = anything();
    let nothing = Map::new();
    let began = Instant::now();
    let asked = join_all((0..40).map(|_| client.graphql(&query, &nothing))).await;
    assert!(asked.iter().all(Result::is_ok));
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "20 at once, 20 within the next second"
    );
}

#[tokio::test]
async fn a_fluent_that_says_nothing_is_given_up() {
    let fluent = fluent().await;
    fluent.behave(|behaviour| behaviour.latency = Duration::from_secs(30));
    let client = client_with(
        &fluent,
        LOGIN,
        Limits {
            timeout: Duration::from_millis(200),
            ..limits()
        },
    );
    let said = client.graphql(&anything(), &Map::new()).await.unwrap_err();
    assert!(
        matches!(said, ApiError::TimedOut) && said.is_transient(),
        "{said:?}"
    );
    let client = client_with(&fluent, LOGIN, limits());
    drop(fluent);
    let gone = client.graphql(&anything(), &Map::new()).await.unwrap_err();
    assert!(matches!(gone, ApiError::NotConnected(_)), "{gone:?}");
    assert!(
        !format!("{gone:?}").contains("oauth"),
        "no address of what was asked"
    );
}
