//! Tests with a simulated Fluent, over real sockets.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod answers;
mod bounds;
mod events;
mod locking;
mod login;
mod queries;
mod token;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fluent_api::{Client, Credentials, Limits, MemoryLedger, Options, ReadSecret};
use jiff::Timestamp;
use simulator::api::{Fluent, LOGIN, World};

pub(crate) async fn fluent() -> Fluent {
    Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap()
}

/// Longer than any of these takes on a busy machine.
pub(crate) fn limits() -> Limits {
    Limits {
        at_once: 8,
        per_second: NonZeroU32::new(1000).unwrap(),
        wait: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
    }
}

/// Makes a ledger whose time the tests set.
pub(crate) fn ledger() -> Arc<MemoryLedger> {
    Arc::new(MemoryLedger::new(|| {
        let minutes = MINUTES.with(std::cell::Cell::get);
        Timestamp::UNIX_EPOCH + Duration::from_mins(minutes)
    }))
}

thread_local! {
    /// Each test has a thread of its own.
    pub(crate) static MINUTES: std::cell::Cell<u64> = const { std::cell::Cell::new(30_000_000) };
}

pub(crate) fn client_with(fluent: &Fluent, password: &'static str, limits: Limits) -> Client {
    let password: ReadSecret = Arc::new(move || Ok(password.to_owned()));
    client_by(fluent, password, limits, ledger())
}

/// Makes a client with this password, as it is now, and this ledger.
pub(crate) fn client_by(
    fluent: &Fluent,
    password: ReadSecret,
    limits: Limits,
    ledger: Arc<MemoryLedger>,
) -> Client {
    client_at(&fluent.url(), password, limits, ledger)
}

/// Makes a client of a Fluent at this address.
pub(crate) fn client_at(
    base: &str,
    password: ReadSecret,
    limits: Limits,
    ledger: Arc<MemoryLedger>,
) -> Client {
    let credentials = Credentials {
        username: LOGIN.to_owned(),
        password,
        client_id: LOGIN.to_owned(),
        client_secret: Arc::new(|| Ok(LOGIN.to_owned())),
    };
    Client::new(Options {
        base: base.parse().unwrap(),
        account: "ACME".to_owned(),
        environment: "sandbox".to_owned(),
        credentials,
        limits,
        ledger,
    })
    .unwrap()
}

pub(crate) fn client(fluent: &Fluent) -> Client {
    client_with(fluent, LOGIN, limits())
}
