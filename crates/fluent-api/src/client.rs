//! The client of one account of Fluent: limits, login, request, answer.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::StatusCode;
use http_client::{HttpClient, machine_tls};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::answer::{LONGEST_PAUSE, asked_to_wait, errors_in};
use crate::error::{AFTER_LIMIT, ApiError, RATE_LIMIT};
use crate::ledger::LoginLedger;
use crate::login::{Credentials, Login};
use crate::login_guard::{LoginGuard, LoginName};
use crate::request::{FluentAnswer, Request};

/// Most bytes of an answer. Fluent's own limit of a request is 2 MB.
const LONGEST: usize = 4 << 20;

/// Longest time for recording the end of a login.
const WRITING: Duration = Duration::from_secs(5);

/// Limits of this process's requests to an account.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests at once.
    pub at_once: usize,
    /// Most requests a second, after a burst of as many.
    pub per_second: NonZeroU32,
    /// Longest time that a request waits for its permit; after that it is [`ApiError::Busy`].
    pub wait: Duration,
    /// Longest time of one request.
    pub timeout: Duration,
}

impl Limits {
    /// Returns the longest time of a call once it has its permit: a login, the request, and both
    /// once more. The wait for another process's login is part of that.
    fn whole(&self) -> Duration {
        self.timeout * 4
    }

    /// Returns the longest time of a call from its beginning.
    pub fn longest(&self) -> Duration {
        self.wait + self.whole()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            at_once: 8,
            per_second: NonZeroU32::new(20).unwrap_or(NonZeroU32::MIN),
            wait: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Options of the client of an account.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base URL, such as `https://ACME.api.fluentretail.com`.
    pub base: Url,
    /// Fluent's accountId.
    pub account: String,
    /// `sandbox` or `production`.
    pub environment: String,
    /// Credentials of the login.
    pub credentials: Credentials,
    /// Limits of the requests.
    pub limits: Limits,
    /// Ledger of the login's tries, here and in other processes.
    pub ledger: Arc<dyn LoginLedger>,
}

/// The part of an answer that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequiredPart {
    /// All of it.
    Body,
    /// Only that it was done, whatever is wrong with the rest.
    Status,
}

/// The client of one account; clones share its login and its limits.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: HttpClient,
    base: Url,
    login: Login,
    limits: Limits,
    places: Semaphore,
    pace: DefaultDirectRateLimiter,
    /// Earliest time of the next request, after Fluent's rate limit.
    resumes: Mutex<Option<Instant>>,
}

impl Client {
    /// Makes a client, which connects with the first request.
    ///
    /// # Errors
    /// If the authorities of this machine are needed for TLS and can't be read.
    pub fn new(options: Options) -> Result<Self, ApiError> {
        let Options {
            base,
            account,
            environment,
            credentials,
            limits,
            ledger,
        } = options;
        let tls = machine_tls(base.scheme() == "https").map_err(ApiError::NotConnected)?;
        // Fluent's address is in the settings, and may be in a network of one's own.
        let http = HttpClient::new(tls, true);
        let name = LoginName::new(&account, &environment, base.as_str(), &credentials.username);
        // A little longer than the request may take, since its end has to be recorded.
        let guard = LoginGuard::new(ledger, name, limits.timeout + WRITING);
        let login = Login::new(
            http.clone(),
            (under(&base, "oauth/token"), limits.timeout),
            &account,
            credentials,
            guard,
        );
        Ok(Self(Arc::new(Inner {
            http,
            base,
            login,
            limits,
            places: Semaphore::new(limits.at_once),
            pace: RateLimiter::direct(Quota::per_second(limits.per_second)),
            resumes: Mutex::default(),
        })))
    }

    /// Logs in once, even if there is a token; returns how long the new token is used. For
    /// commands that check a login.
    pub async fn log_in(&self) -> Result<Duration, ApiError> {
        self.0.login.log_in().await
    }

    /// Returns the most requests a second.
    pub fn per_second(&self) -> NonZeroU32 {
        self.0.limits.per_second
    }

    /// Returns the longest time of a call, with all that may happen on the way.
    pub fn longest(&self) -> Duration {
        self.0.limits.longest()
    }

    /// Returns how long no request will be sent yet, after Fluent's rate limit.
    pub fn pause(&self) -> Option<Duration> {
        let resumes = *self
            .0
            .resumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        resumes
            .and_then(|at| at.checked_duration_since(Instant::now()))
            .filter(|left| !left.is_zero())
    }

    /// Sends a request within the limits. `request` is made again if the token was refused.
    pub(crate) async fn ask(
        &self,
        needed: RequiredPart,
        request: impl Fn(&Url) -> Result<Request, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let inner = &*self.0;
        if let Some(wait) = self.pause() {
            return Err(ApiError::Paused { wait });
        }
        let place = async {
            let place = inner.places.acquire().await;
            inner.pace.until_ready().await;
            place
        };
        let _place = timeout(inner.limits.wait, place)
            .await
            .map_err(|_| ApiError::Busy)?;
        // Another request may have met the rate limit meanwhile.
        if let Some(wait) = self.pause() {
            return Err(ApiError::Paused { wait });
        }
        let answered = timeout(inner.limits.whole(), self.answer(needed, &request)).await;
        let answered = answered.unwrap_or(Err(ApiError::TimedOut));
        if let Err(ApiError::RateLimited { wait }) = answered {
            self.leave_alone(wait);
        }
        answered
    }

    async fn answer(
        &self,
        needed: RequiredPart,
        request: &impl Fn(&Url) -> Result<Request, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let inner = &*self.0;
        for is_last in [false, true] {
            let token = inner.login.token().await?;
            let request = request(&inner.base)?.authorized(&token)?;
            let answer = request
                .send(&inner.http, inner.limits.timeout, LONGEST)
                .await?;
            if answer.status == StatusCode::UNAUTHORIZED {
                inner.login.forget(&token, is_last).await;
                if !is_last {
                    continue;
                }
            }
            return understood(answer, needed);
        }
        Err(ApiError::Login {
            status: StatusCode::UNAUTHORIZED.as_u16(),
        })
    }

    fn leave_alone(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE);
        let mut resumes = self
            .0
            .resumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if resumes.is_none_or(|at| at < until) {
            *resumes = Some(until);
            tracing::warn!(
                host = self.0.base.host_str(),
                wait_s = wait.as_secs(),
                "Fluent limits the rate: its account is left alone"
            );
        }
    }
}

fn understood(answer: FluentAnswer, needed: RequiredPart) -> Result<Bytes, ApiError> {
    let status = answer.status;
    let wait = asked_to_wait(&answer.headers);
    if status == StatusCode::UNAUTHORIZED {
        return Err(ApiError::Login {
            status: status.as_u16(),
        });
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(ApiError::RateLimited {
            wait: wait.unwrap_or(AFTER_LIMIT),
        });
    }
    let body = match (answer.body, needed) {
        // Fluent has done it: another request would do it twice.
        (Err(_), RequiredPart::Status) if status.is_success() => return Ok(Bytes::new()),
        // A failure stays one, whatever is wrong with the rest.
        (Err(_), _) if status.is_server_error() => Bytes::new(),
        (Err(ApiError::TooLong(_)), _) if !status.is_success() => Bytes::new(),
        (body, _) => body?,
    };
    let errors = errors_in(&body);
    let is_limited = errors
        .iter()
        .any(|error| error.code.as_deref() == Some(RATE_LIMIT));
    match status.is_success() && !is_limited {
        true => Ok(body),
        false => Err(ApiError::of_answer(&errors, status, wait)),
    }
}

/// Returns the URL of a path of the API: the base may have a path of its own.
pub(crate) fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}
