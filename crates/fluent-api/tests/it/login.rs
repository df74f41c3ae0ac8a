//! One login for all requests, renewed in time, and made again if it is refused.

use std::time::Duration;

use fluent_api::{ApiError, Client, Query};
use futures::future::join_all;
use serde_json::Map;

use crate::{client, client_with, fluent, limits};

pub(crate) async fn ask(client: &Client) -> Result<(), ApiError> {
    let query = Query::parse("{ __typename }").unwrap();
    client.graphql(&query, &Map::new()).await.map(drop)
}

#[tokio::test]
async fn everybody_shares_one_login() {
    let fluent = fluent().await;
    let client = client(&fluent);
    let asked = join_all((0..50).map(|_| ask(&client))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    assert_eq!((fluent.calls().logins, fluent.calls().queries), (1, 50));
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once_for_all() {
    let fluent = fluent().await;
    let client = client(&fluent);
    ask(&client).await.unwrap();
    fluent.revoke_tokens();
    let asked = join_all((0..20).map(|_| ask(&client))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    assert_eq!(fluent.calls().logins, 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_a_refresh_is_used_once() {
    let fluent = fluent().await;
    fluent.behave(|behaviour| {
        (behaviour.token_lasts, behaviour.has_refresh) = (Duration::from_secs(6), true);
    });
    let client = client(&fluent);
    for _ in 0..3 {
        ask(&client).await.unwrap();
        // Past half of it: what is short is renewed at half.
        tokio::time::sleep(Duration::from_millis(3500)).await;
    }
    assert_eq!((fluent.calls().logins, fluent.calls().refreshes), (1, 2));
    // A renewal that is refused falls back to the password.
    fluent.forget_refreshes();
    tokio::time::sleep(Duration::from_millis(50)).await;
    ask(&client).await.unwrap();
    assert_eq!((fluent.calls().logins, fluent.calls().refreshes), (2, 3));
}

#[tokio::test]
async fn a_login_that_is_refused_is_not_tried_again_at_once() {
    let fluent = fluent().await;
    let client = client_with(&fluent, "wrong", limits());
    for refused in join_all((0..10).map(|_| ask(&client))).await {
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, ApiError::Login { status: 400 }),
            "{refused}"
        );
        assert!(refused.is_transient() && refused.wait().is_some());
    }
    assert_eq!(
        fluent.calls().logins,
        1,
        "an account may be locked for trying"
    );
}

#[tokio::test]
async fn a_new_token_that_is_refused_too_makes_nobody_log_in_again_at_once() {
    let fluent = fluent().await;
    let client = client(&fluent);
    fluent.behave(|behaviour| (behaviour.fail_next, behaviour.fail_with) = (100, 401));
    for _ in 0..10 {
        assert!(ask(&client).await.is_err());
    }
    assert_eq!(
        fluent.calls().logins,
        2,
        "one, and one more for the first refusal"
    );
}
