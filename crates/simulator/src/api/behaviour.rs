//! The behaviour of the simulated API: slow, failing or limiting, as it is set.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::{LOGIN, Shared};

/// The behaviour of the simulated API.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Time that each answer takes.
    pub latency: Duration,
    /// The number of requests that fail next.
    pub fail_next: u32,
    /// The status of these failures. Any but 500 comes without Fluent's error code, as from a
    /// proxy.
    pub fail_with: u16,
    /// The largest number of requests within a time.
    pub rate_limit: Option<(usize, Duration)>,
    /// Time for which a token is valid.
    pub token_lasts: Duration,
    /// True if a login also gives a token for one renewal.
    pub has_refresh: bool,
    /// The password that a login needs.
    pub password: &'static str,
    /// The status with which all logins and renewals fail, whatever the password.
    pub fail_logins_with: Option<u16>,
    /// True if users sign in elsewhere: a wrong password or a locked user is answered 500.
    pub single_sign_on: bool,
    /// Time for which a user is locked after five failed logins within the same time, counted
    /// from the last: 15 minutes at Fluent.
    pub locked_for: Duration,
    /// Time for which an entity can't be read after it was made or changed.
    pub invisible_for: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            fail_next: 0,
            fail_with: 500,
            rate_limit: None,
            token_lasts: Duration::from_hours(24),
            has_refresh: false,
            password: LOGIN,
            fail_logins_with: None,
            single_sign_on: false,
            locked_for: Duration::from_mins(15),
            invisible_for: Duration::ZERO,
        }
    }
}

/// The numbers of requests by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Logins by password.
    pub logins: u64,
    /// Logins that were refused.
    pub failed_logins: u64,
    /// Refused logins of a locked user.
    pub locked_logins: u64,
    /// Logins and renewals that did not name the account.
    pub without_account: u64,
    /// Renewals.
    pub refreshes: u64,
    /// GraphQL queries that were answered.
    pub queries: u64,
    /// Events that were accepted.
    pub posted: u64,
    /// Pages of the log that were read.
    pub searches: u64,
    /// Requests beyond the rate limit.
    pub limited: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Conduct(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    behaviour: Behaviour,
    calls: Calls,
    recent: VecDeque<Instant>,
}

enum Turn {
    Go,
    Fail(u16),
    Limit,
}

impl Conduct {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.inner().behaviour);
    }

    pub(crate) fn now(&self) -> Behaviour {
        self.inner().behaviour.clone()
    }

    pub(crate) fn calls(&self) -> Calls {
        self.inner().calls
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Calls)) {
        count(&mut self.inner().calls);
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Turn {
        let mut inner = self.inner();
        if inner.behaviour.fail_next > 0 {
            inner.behaviour.fail_next -= 1;
            return Turn::Fail(inner.behaviour.fail_with);
        }
        let Some((most, within)) = inner.behaviour.rate_limit else {
            return Turn::Go;
        };
        let now = Instant::now();
        inner.recent.retain(|at| now.duration_since(*at) < within);
        if inner.recent.len() >= most {
            inner.calls.limited += 1;
            return Turn::Limit;
        }
        inner.recent.push_back(now);
        Turn::Go
    }
}

/// Delays, fails or limits a request before it is answered, as the behaviour says.
pub(crate) async fn conduct(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    tokio::time::sleep(shared.conduct.now().latency).await;
    match shared.conduct.next() {
        Turn::Go => next.run(request).await,
        Turn::Fail(500) => failed(StatusCode::INTERNAL_SERVER_ERROR, "S0001E"),
        Turn::Fail(status) => StatusCode::from_u16(status)
            .unwrap_or_default()
            .into_response(),
        // GraphQL's errors come with 200.
        Turn::Limit if request.uri().path() == "/graphql" => failed(StatusCode::OK, "C0011E"),
        Turn::Limit => {
            let within = shared
                .conduct
                .now()
                .rate_limit
                .map_or(Duration::ZERO, |(_, within)| within);
            let wait = within.as_secs().max(1).to_string();
            (
                [(RETRY_AFTER, wait)],
                failed(StatusCode::TOO_MANY_REQUESTS, "C0011E"),
            )
                .into_response()
        }
    }
}

/// An error as the API writes it.
pub(crate) fn failed(status: StatusCode, code: &str) -> Response {
    let error =
        json!({"errors": [{"message": "simulated", "extensions": {"code": code}}], "data": null});
    (status, Json(error)).into_response()
}
