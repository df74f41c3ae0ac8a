//! The login of an account, shared by all of its requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use http_client::HttpClient;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::answer::asked_to_wait;
use crate::error::{AFTER_LIMIT, ApiError, BoxError};
use crate::login_guard::{LoginGuard, Secrets};
use crate::login_record::TryResult;
use crate::request::Request;

/// Time before the end of a token at which it is renewed.
const EARLY: Duration = Duration::from_secs(60);

/// Lifetime of a token whose answer does not give one.
const USUAL: Duration = Duration::from_mins(30);

/// Longest lifetime of a token, whatever its answer says.
const LONGEST_LIFE: Duration = Duration::from_hours(24 * 30);

/// Time after a failed login in which this process does not try another.
const REST: Duration = Duration::from_secs(10);

/// Field that names the account in the login at Fluent, as its authentication page has it.
const ACCOUNT: HeaderName = HeaderName::from_static("fluent.account");

/// Most bytes of an answer with a token.
const LONGEST: usize = 64 << 10;

/// Error of an answer that is no token.
const NO_TOKEN: ApiError = ApiError::Unreadable("expected a token");

/// Reads a secret whenever it is needed, so that its file can be replaced.
pub type ReadSecret = Arc<dyn Fn() -> Result<String, BoxError> + Send + Sync>;

/// Credentials of a login.
#[derive(Clone)]
pub struct Credentials {
    /// Name of the user.
    pub username: String,
    /// Password of the user.
    pub password: ReadSecret,
    /// Id of the client, as the account's administrator gave it.
    pub client_id: String,
    /// Secret of the client.
    pub client_secret: ReadSecret,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// The login of an account, with the present token.
#[derive(Clone, Debug)]
pub(crate) struct Login(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: HttpClient,
    url: Url,
    /// Longest time of one request.
    timeout: Duration,
    account: String,
    credentials: Credentials,
    guard: LoginGuard,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// Refresh token, good for one renewal.
    refresh: Option<String>,
    /// Time and kind of the last failure.
    failed: Option<(Instant, Failed)>,
}

#[derive(Clone, Copy, Debug)]
enum Failed {
    Refused(u16),
    Rests(Duration),
    Otherwise,
}

impl Failed {
    fn of(error: &ApiError) -> Self {
        match error {
            ApiError::Login { status } => Self::Refused(*status),
            ApiError::LoginRests { wait } => Self::Rests(*wait),
            // Requests that waited for this login must not each wait for one of their own.
            _ => Self::Otherwise,
        }
    }

    /// Returns the error of those that find it, for the rest of its time.
    fn error(self, rest: Duration) -> ApiError {
        match self {
            Self::Refused(status) => ApiError::Login { status },
            Self::Rests(wait) => ApiError::LoginRests { wait },
            Self::Otherwise => ApiError::LoginPaused { wait: rest },
        }
    }
}

#[derive(Clone, Debug)]
struct Token {
    value: Arc<str>,
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// As it is written: a number too large for any type must not make the token unreadable.
    expires_in: Option<Box<RawValue>>,
    refresh_token: Option<String>,
}

/// Result of a successful login.
struct NewToken {
    token: Token,
    refresh: Option<String>,
}

impl Answer {
    fn renewed(self, asked_at: Instant) -> NewToken {
        let until = asked_at + lasts(self.expires_in.as_deref());
        NewToken {
            token: Token {
                value: self.access_token.into(),
                until,
            },
            refresh: self.refresh_token,
        }
    }
}

impl Login {
    pub(crate) fn new(
        http: HttpClient,
        (url, timeout): (Url, Duration),
        account: &str,
        credentials: Credentials,
        guard: LoginGuard,
    ) -> Self {
        let account = account.to_owned();
        let state = Mutex::default();
        Self(Arc::new(Inner {
            http,
            url,
            timeout,
            account,
            credentials,
            guard,
            state,
        }))
    }

    /// Returns the present token. The first request without one logs in; others wait for that.
    pub(crate) async fn token(&self) -> Result<Arc<str>, ApiError> {
        let current = self.0.state.lock().await.current(Instant::now());
        match current {
            Some(token) => Ok(token.value),
            None => self.renew().await.map(|token| token.value),
        }
    }

    /// Logs in even if there is a token; returns how long the new one is used.
    pub(crate) async fn log_in(&self) -> Result<Duration, ApiError> {
        *self.0.state.lock().await = State::default();
        let token = self.renew().await?;
        Ok(token.until.saturating_duration_since(Instant::now()))
    }

    /// Renews the token in a task of its own: if the caller gives up, the try still has its end.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends in time, and whoever needs it waits for it"
    )]
    async fn renew(&self) -> Result<Token, ApiError> {
        let inner = Arc::clone(&self.0);
        let renewed = tokio::spawn(async move { inner.renew().await }).await;
        renewed.unwrap_or_else(|error| Err(ApiError::Unreachable(error.into())))
    }

    /// Drops a token that was refused, unless another request has got a newer one since. If a
    /// `new` one was refused, no other will do for now, and the login counts as failed.
    pub(crate) async fn forget(&self, refused: &str, new: bool) {
        let mut state = self.0.state.lock().await;
        if state
            .token
            .as_ref()
            .is_some_and(|token| &*token.value == refused)
        {
            state.token = None;
            if new {
                state.failed = Some((
                    Instant::now(),
                    Failed::Refused(StatusCode::UNAUTHORIZED.as_u16()),
                ));
            }
        }
    }
}

impl State {
    fn current(&self, now: Instant) -> Option<Token> {
        self.token.clone().filter(|token| now < token.until)
    }

    /// Returns how the last login failed, if that is so short ago that none is tried, and for how
    /// long none is.
    fn rests(&self, now: Instant) -> Option<(Failed, Duration)> {
        let (at, failed) = self.failed?;
        let rest = REST.saturating_sub(now.saturating_duration_since(at));
        (!rest.is_zero()).then_some((failed, rest))
    }
}

impl Inner {
    async fn renew(&self) -> Result<Token, ApiError> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(token) = state.current(now) {
            return Ok(token);
        }
        if let Some((failed, rest)) = state.rests(now) {
            return Err(failed.error(rest));
        }
        let answer = match state.refresh.take() {
            // The refresh token is used up, or Fluent has forgotten it: that says nothing of the
            // password, of which no try has failed.
            Some(refresh) => match self.refresh(&refresh).await {
                Err(ApiError::Login { .. }) => self.by_password().await,
                answer => answer,
            },
            None => self.by_password().await,
        };
        let renewed =
            answer.inspect_err(|error| state.failed = Some((Instant::now(), Failed::of(error))))?;
        let NewToken { token, refresh } = renewed;
        *state = State {
            token: Some(token.clone()),
            refresh,
            failed: None,
        };
        Ok(token)
    }

    fn secrets(&self) -> Result<Secrets, ApiError> {
        let password = (self.credentials.password)().map_err(ApiError::Secret)?;
        let client_secret = (self.credentials.client_secret)().map_err(ApiError::Secret)?;
        Ok(Secrets {
            password,
            client_secret,
        })
    }

    async fn refresh(&self, refresh: &str) -> Result<NewToken, ApiError> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        self.ask(&form, &self.secrets()?.client_secret).await
    }

    /// Logs in by password. Only here a password is sent, as seldom as Fluent's lock wants it.
    async fn by_password(&self) -> Result<NewToken, ApiError> {
        let secrets = self.secrets()?;
        let permit = self.guard.permit(&secrets).await?;
        let form = [
            ("grant_type", "password"),
            ("scope", "api"),
            ("username", &*self.credentials.username),
            ("password", &*secrets.password),
        ];
        let answer = self.ask(&form, &secrets.client_secret).await;
        self.guard.end(permit, result_of(&answer)).await;
        answer
    }

    async fn ask(&self, form: &[(&str, &str)], client_secret: &str) -> Result<NewToken, ApiError> {
        let client = [
            ("client_id", &*self.credentials.client_id),
            ("client_secret", client_secret),
        ];
        let request = Request::post_form(self.url.clone(), &[form, &client].concat())
            .with(ACCOUNT, &self.account)?;
        // A token's lifetime begins where it is made, and its way here may be long.
        let asked_at = Instant::now();
        let answer = request.send(&self.http, self.timeout, LONGEST).await?;
        match answer.status {
            StatusCode::OK => {
                // A page of something in between is no answer of Fluent's, however long it is.
                let body = answer.body.map_err(|error| match error {
                    ApiError::TooLong(_) => NO_TOKEN,
                    error => error,
                })?;
                understood(&body).map(|it| it.renewed(asked_at))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(ApiError::RateLimited {
                wait: asked_to_wait(&answer.headers).unwrap_or(AFTER_LIMIT),
            }),
            status if status.is_server_error() => {
                let body = answer.body.unwrap_or_default();
                match is_single_sign_on_refusal(&body) {
                    true => Err(ApiError::Login {
                        status: status.as_u16(),
                    }),
                    false => Err(ApiError::Server {
                        status: status.as_u16(),
                        code: None,
                        wait: asked_to_wait(&answer.headers),
                    }),
                }
            }
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => Err(ApiError::Login {
                status: answer.status.as_u16(),
            }),
            StatusCode::FORBIDDEN if is_json(&answer.headers) => Err(ApiError::Login {
                status: StatusCode::FORBIDDEN.as_u16(),
            }),
            // A page of something in between, or a wrong address: nobody has checked the
            // password.
            status => Err(ApiError::Server {
                status: status.as_u16(),
                code: None,
                wait: asked_to_wait(&answer.headers),
            }),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.contains("json"))
}

/// Returns what an answer says of the password.
fn result_of(answer: &Result<NewToken, ApiError>) -> TryResult {
    match answer {
        Ok(_) => TryResult::Accepted,
        Err(ApiError::Login { .. }) => TryResult::Refused,
        Err(ApiError::NotConnected(_) | ApiError::RateLimited { .. } | ApiError::Server { .. }) => {
            TryResult::NotLookedAt
        }
        Err(_) => TryResult::Unknown,
    }
}

fn understood(body: &[u8]) -> Result<Answer, ApiError> {
    serde_json::from_slice(body).map_err(|_| NO_TOKEN)
}

/// Whether Fluent refused a user with single sign-on: a wrong password or a locked user is
/// answered with 500 and these words.
fn is_single_sign_on_refusal(body: &[u8]) -> bool {
    let words = String::from_utf8_lossy(body).to_lowercase();
    words.contains("username or password") && words.contains("incorrect")
}

/// Returns how long a token is used: not to its end, but for a while in any case. Servers write
/// its seconds as whole numbers, as other numbers, and as texts; some write nonsense.
fn lasts(expires_in: Option<&RawValue>) -> Duration {
    let written = expires_in
        .map_or("", RawValue::get)
        .trim_matches('"')
        .trim();
    let seconds: Option<f64> = written.parse().ok();
    let whole = match seconds.filter(|seconds| *seconds > 0.0) {
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .unwrap_or(LONGEST_LIFE)
            .min(LONGEST_LIFE),
        None => USUAL,
    };
    whole.saturating_sub(EARLY.min(whole / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_whatever_is_said_of_its_life() {
        for (given, expected) in [
            ("3600", 3540),
            ("3600.0", 3540),
            ("3.6e3", 3540),
            (r#""3600""#, 3540),
            (r#"" 3600 ""#, 3540),
            ("100", 50),
            ("-1", 1740),
            ("0", 1740),
            ("null", 1740),
            ("{}", 1740),
            ("1e30", 30 * 24 * 3600 - 60),
            ("1e999", 30 * 24 * 3600 - 60),
        ] {
            let answer = format!(r#"{{"access_token": "t", "expires_in": {given}}}"#);
            let answer = understood(answer.as_bytes()).unwrap_or_else(|_| panic!("{given}"));
            assert_eq!(
                lasts(answer.expires_in.as_deref()).as_secs(),
                expected,
                "{given}"
            );
        }
    }

    #[test]
    fn a_token_is_used_until_its_time_and_a_failure_is_remembered_for_its_rest() {
        let now = Instant::now();
        let moment = Duration::from_nanos(1);
        let token = Token {
            value: "t".into(),
            until: now + USUAL,
        };
        let state = State {
            token: Some(token),
            refresh: None,
            failed: Some((now, Failed::Refused(400))),
        };
        for (at, is_current, is_resting) in [
            (now, true, true),
            (now + REST - moment, true, true),
            (now + REST, true, false),
            (now + USUAL - moment, true, false),
            (now + USUAL, false, false),
        ] {
            assert_eq!(state.current(at).is_some(), is_current, "{:?}", at - now);
            assert_eq!(state.rests(at).is_some(), is_resting, "{:?}", at - now);
        }
        // A failure after the caller has read the clock counts as well.
        assert!(state.rests(now.checked_sub(REST).unwrap_or(now)).is_some());
        assert!(State::default().current(now).is_none() && State::default().rests(now).is_none());
    }

    #[test]
    fn a_wrong_password_of_single_sign_on_is_told_from_a_failure() {
        let refused =
            br#"{"error":{"code":"400","message":"Your username or password is incorrect."}}"#;
        assert!(is_single_sign_on_refusal(refused));
        assert!(!is_single_sign_on_refusal(
            br#"{"error":{"code":"500","message":"internal error"}}"#
        ));
    }
}
