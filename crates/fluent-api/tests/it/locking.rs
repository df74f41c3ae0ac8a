//! Fluent locks a user at the fifth failed login within 15 minutes: all processes together must
//! stay below that.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluent_api::{ApiError, Client, Limits, MemoryLedger, ReadSecret};
use futures::future::join_all;
use simulator::api::{Fluent, LOGIN, World};
use tokio::time::{sleep, timeout};

use crate::login::ask;
use crate::{MINUTES, client_by, fluent, ledger, limits};

/// A password that can be changed, as its file can.
#[derive(Clone)]
struct Password(Arc<Mutex<&'static str>>);

impl Password {
    fn new(first: &'static str) -> Self {
        Self(Arc::new(Mutex::new(first)))
    }

    fn change(&self, to: &'static str) {
        *self.0.lock().unwrap() = to;
    }

    fn read(&self) -> ReadSecret {
        let password = self.clone();
        Arc::new(move || Ok((*password.0.lock().unwrap()).to_owned()))
    }
}

/// Makes a client like another process, or the next one after a restart: only the ledger is
/// shared.
fn process(fluent: &Fluent, password: &Password, ledger: &Arc<MemoryLedger>) -> Client {
    client_by(fluent, password.read(), limits(), Arc::clone(ledger))
}

/// Longest wait for fifty processes that share two processors with other work.
const PATIENCE: Duration = Duration::from_mins(5);

/// Lets fifty processes log in without other delays. Here they make their fingerprints, which is
/// slow, on one machine, so each may find others busy for longer than it waits, and tries again
/// as a delivery does.
async fn ask_fifty(
    fluent: &Fluent,
    password: &Password,
    ledger: &Arc<MemoryLedger>,
) -> Vec<Result<(), ApiError>> {
    // A try that is cut off counts as failed: the speed of this machine must not decide.
    let patient = Limits {
        timeout: PATIENCE,
        wait: PATIENCE,
        ..limits()
    };
    let processes =
        (0..50).map(|_| client_by(fluent, password.read(), patient, Arc::clone(ledger)));
    let processes: Vec<_> = processes.collect();
    until_decided(&processes).await
}

/// Has each ask until somebody has decided about it.
async fn until_decided(processes: &[Client]) -> Vec<Result<(), ApiError>> {
    let deciding = processes.iter().map(async |process| {
        loop {
            match ask(process).await {
                // For a while, a client reports that its last try to log in took too long.
                Err(ApiError::LoginBusy | ApiError::LoginPaused { .. } | ApiError::TimedOut) => {
                    sleep(Duration::from_millis(50)).await
                }
                decided => return decided,
            }
        }
    });
    timeout(PATIENCE, join_all(deciding))
        .await
        .expect("each is answered")
}

fn minutes_pass(minutes: u64) {
    MINUTES.with(|now| now.set(now.get() + minutes));
}

#[tokio::test]
async fn two_tries_fail_over_all_processes_and_then_it_rests_until_the_time_or_the_secret_changes()
{
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new("wrong");
    for restart in 0..10 {
        let refused = ask(&process(&fluent, &password, &ledger))
            .await
            .unwrap_err();
        match (restart, &refused) {
            (0 | 1, ApiError::Login { status: 400 }) => {}
            (2.., ApiError::LoginRests { wait }) => assert_eq!(*wait, Duration::from_mins(16)),
            _ => panic!("{restart}: {refused}"),
        }
        assert!(refused.is_transient() && refused.wait().unwrap() <= Duration::from_mins(1));
    }
    assert_eq!(fluent.calls().failed_logins, 2);
    minutes_pass(15);
    assert!(matches!(
        ask(&process(&fluent, &password, &ledger)).await,
        Err(ApiError::LoginRests { .. })
    ));
    minutes_pass(1);
    assert!(matches!(
        ask(&process(&fluent, &password, &ledger)).await,
        Err(ApiError::Login { .. })
    ));
    assert_eq!(fluent.calls().failed_logins, 3);
    password.change(LOGIN);
    ask(&process(&fluent, &password, &ledger)).await.unwrap();
    assert_eq!(
        (fluent.calls().failed_logins, fluent.calls().locked_logins),
        (3, 0)
    );
}

#[tokio::test]
async fn of_fifty_processes_that_begin_with_a_wrong_password_two_try() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new("wrong");
    fluent.behave(|behaviour| behaviour.latency = Duration::from_millis(50));
    let asked = ask_fifty(&fluent, &password, &ledger).await;
    assert!(asked.iter().all(Result::is_err));
    assert_eq!(
        (fluent.calls().logins, fluent.calls().failed_logins),
        (2, 2)
    );
}

#[tokio::test]
async fn of_fifty_that_begin_with_the_right_one_each_works_soon() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new(LOGIN);
    fluent.behave(|behaviour| behaviour.latency = Duration::from_millis(20));
    for asked in ask_fifty(&fluent, &password, &ledger).await {
        asked.unwrap();
    }
    assert_eq!(
        (fluent.calls().logins, fluent.calls().failed_logins),
        (50, 0)
    );
}

#[tokio::test]
async fn a_password_that_was_good_and_is_changed_at_fluent_fails_twice() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new(LOGIN);
    let processes: Vec<_> = (0..20)
        .map(|_| process(&fluent, &password, &ledger))
        .collect();
    for asked in until_decided(&processes).await {
        asked.unwrap();
    }
    // From now on each of them sends a wrong password.
    fluent.behave(|behaviour| behaviour.password = "another");
    fluent.revoke_tokens();
    let asked = until_decided(&processes).await;
    assert!(asked.iter().all(Result::is_err));
    assert_eq!(fluent.calls().failed_logins, 2);
}

#[tokio::test]
async fn a_failure_of_fluent_is_no_failed_login_and_single_sign_on_is_understood() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new(LOGIN);
    fluent.behave(|behaviour| behaviour.fail_logins_with = Some(503));
    for _ in 0..5 {
        let failed = ask(&process(&fluent, &password, &ledger))
            .await
            .unwrap_err();
        assert!(
            matches!(failed, ApiError::Server { status: 503, .. }),
            "{failed}"
        );
    }
    // Maintenance, a proxy in between, a wrong address.
    for status in [302, 403, 404, 405, 500] {
        fluent.behave(|behaviour| behaviour.fail_logins_with = Some(status));
        let failed = ask(&process(&fluent, &password, &ledger))
            .await
            .unwrap_err();
        assert!(
            matches!(failed, ApiError::Server { .. }),
            "{status}: {failed}"
        );
    }
    fluent.behave(|behaviour| behaviour.fail_logins_with = None);
    ask(&process(&fluent, &password, &ledger)).await.unwrap();

    password.change("wrong");
    fluent.behave(|behaviour| behaviour.single_sign_on = true);
    for _ in 0..2 {
        let refused = ask(&process(&fluent, &password, &ledger))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, ApiError::Login { status: 500 }),
            "{refused}"
        );
    }
    assert!(matches!(
        ask(&process(&fluent, &password, &ledger)).await,
        Err(ApiError::LoginRests { .. })
    ));
}

#[tokio::test]
async fn where_nobody_listens_there_is_no_try() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new(LOGIN);
    let address = fluent.url().trim_start_matches("http://").parse().unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| process(&fluent, &password, &ledger))
        .collect();
    drop(fluent);
    for client in &clients {
        let failed = ask(client).await.unwrap_err();
        assert!(matches!(failed, ApiError::NotConnected(_)), "{failed}");
    }
    let back = Fluent::open(address, World::new("ACME", 34)).await.unwrap();
    ask(&process(&back, &password, &ledger)).await.unwrap();
}

#[tokio::test]
async fn a_refused_refresh_is_no_failed_login() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new(LOGIN);
    fluent.behave(|behaviour| {
        (behaviour.token_lasts, behaviour.has_refresh) = (Duration::from_secs(4), true);
    });
    let client = process(&fluent, &password, &ledger);
    for _ in 0..4 {
        ask(&client).await.unwrap();
        fluent.forget_refreshes();
        // Past half of its life, when it is renewed.
        sleep(Duration::from_millis(2200)).await;
    }
    assert_eq!(
        (fluent.calls().refreshes, fluent.calls().failed_logins),
        (3, 0)
    );
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_no_try_without_its_end() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new(LOGIN);
    fluent.behave(|behaviour| behaviour.latency = Duration::from_millis(150));
    let client = process(&fluent, &password, &ledger);
    for _ in 0..5 {
        let _ = timeout(Duration::from_millis(60), ask(&client)).await;
    }
    ask(&process(&fluent, &password, &ledger)).await.unwrap();
    assert_eq!(
        fluent.calls().without_account,
        0,
        "every login names the account"
    );
}

#[tokio::test]
async fn what_is_written_down_says_nothing_of_who_and_what() {
    let fluent = fluent().await;
    let ledger = ledger();
    let password = Password::new("hunter2-wrong");
    let _ = ask(&process(&fluent, &password, &ledger)).await;
    let written = ledger
        .records()
        .into_iter()
        .map(|(name, record)| format!("{name} {record}"));
    let written = written.collect::<Vec<_>>().concat();
    assert!(written.contains("fingerprint"), "{written}");
    let digests = ["hunter2-wrong", LOGIN].map(|text| {
        use std::fmt::Write;
        let digest = <sha2::Sha256 as sha2::Digest>::digest(text);
        digest.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    });
    for secret in [
        "hunter2-wrong",
        LOGIN,
        "ACME",
        &digests[0][..16],
        &digests[1][..16],
    ] {
        assert!(!written.contains(secret), "{written}");
    }
}
