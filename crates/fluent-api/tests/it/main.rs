//! Against a Fluent of our own, over real sockets.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bounds;
mod events;
mod login;
mod queries;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fluent_api::{Client, Credentials, Limits, Options};
use simulator::api::{Fluent, LOGIN, World};

pub(crate) async fn fluent() -> Fluent {
    Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34)).await.unwrap()
}

pub(crate) fn limits() -> Limits {
    Limits {
        at_once: 8,
        per_second: NonZeroU32::new(1000).unwrap(),
        wait: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    }
}

pub(crate) fn client_with(fluent: &Fluent, password: &'static str, limits: Limits) -> Client {
    let credentials = Credentials {
        username: LOGIN.to_owned(),
        password: Arc::new(move || Ok(password.to_owned())),
        client_id: LOGIN.to_owned(),
        client_secret: Arc::new(|| Ok(LOGIN.to_owned())),
    };
    Client::new(Options { base: fluent.url().parse().unwrap(), credentials, limits }).unwrap()
}

pub(crate) fn client(fluent: &Fluent) -> Client {
    client_with(fluent, LOGIN, limits())
}
