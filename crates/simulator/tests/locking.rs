//! The simulator locks a user after failed logins, as Fluent does.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use fluent_simulator::api::{Fluent, LOGIN, World};
use reqwest::Client;

async fn log_in(fluent: &Fluent, password: &str) -> (u16, String) {
    let form = [
        ("grant_type", "password"),
        ("scope", "api"),
        ("username", LOGIN),
        ("password", password),
        ("client_id", LOGIN),
        ("client_secret", LOGIN),
    ];
    let request = Client::new()
        .post(format!("{}/oauth/token", fluent.url()))
        .form(&form);
    let answer = request
        .header("fluent.account", "ACME")
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn the_fifth_failed_login_locks_and_each_further_try_begins_the_lock_anew() {
    let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap();
    fluent.behave(|behaviour| behaviour.locked_for = Duration::from_secs(10));
    for _ in 0..4 {
        assert_eq!(log_in(&fluent, "wrong").await.0, 400);
    }
    assert_eq!(log_in(&fluent, LOGIN).await.0, 200, "four do not lock");
    assert_eq!(log_in(&fluent, "wrong").await.0, 400);
    for _ in 0..4 {
        let (status, answer) = log_in(&fluent, LOGIN).await;
        assert_eq!(status, 400, "right or not");
        assert!(answer.contains("Bad credentials"), "{answer}");
    }
    assert_eq!(
        (fluent.calls().failed_logins, fluent.calls().locked_logins),
        (9, 4)
    );
    fluent.behave(|behaviour| behaviour.single_sign_on = true);
    assert_eq!(log_in(&fluent, LOGIN).await.0, 500);
    fluent.behave(|behaviour| behaviour.locked_for = Duration::from_millis(200));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        log_in(&fluent, LOGIN).await.0,
        200,
        "for as long as nobody tried"
    );
}
