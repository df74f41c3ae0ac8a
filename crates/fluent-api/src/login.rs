//! One login, shared by everybody who asks for an account.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::client::{asked_to_wait, read};
use crate::error::{AFTER_LIMIT, ApiError, BoxError};

/// A token is renewed so long before it ends.
const EARLY: Duration = Duration::from_secs(60);

/// How long a token lasts whose answer does not say.
const USUAL: Duration = Duration::from_mins(30);

/// After a refusal nobody tries for so long: an account may be locked for trying.
const REST: Duration = Duration::from_secs(10);

/// Most bytes of an answer with a token.
const LONGEST: usize = 64 << 10;

/// Reads a secret whenever it is needed, so that its file can be replaced.
pub type ReadSecret = Arc<dyn Fn() -> Result<String, BoxError> + Send + Sync>;

/// Who we are to an account.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// Its password.
    pub password: ReadSecret,
    /// The client, as the account's administrator gave it.
    pub client_id: String,
    /// Its secret.
    pub client_secret: ReadSecret,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// The token that is used now.
#[derive(Debug)]
pub(crate) struct Login {
    url: Url,
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// Good for one renewal.
    refresh: Option<String>,
    /// When a login last failed, and with which status; 0 without one.
    refused: Option<(Instant, u16)>,
}

#[derive(Clone, Debug)]
struct Token {
    value: Arc<str>,
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

impl Login {
    pub(crate) fn new(url: Url, credentials: Credentials) -> Self {
        Self { url, credentials, state: Mutex::default() }
    }

    /// The token of now. Whoever finds none makes one; others wait for it.
    pub(crate) async fn token(&self, http: &Client) -> Result<Arc<str>, ApiError> {
        let mut state = self.state.lock().await;
        if let Some(token) = state.token.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(Arc::clone(&token.value));
        }
        if let Some((at, status)) = state.refused
            && at.elapsed() < REST
        {
            return Err(if status == 0 { ApiError::TimedOut } else { ApiError::Login { status } });
        }
        let answer = match state.refresh.take() {
            // Used up, or forgotten by the other side: the password is not.
            Some(refresh) => {
                match self.ask(http, &[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await {
                    Err(ApiError::Login { .. }) => self.by_password(http).await,
                    answer => answer,
                }
            }
            None => self.by_password(http).await,
        };
        state.refused = match &answer {
            Err(ApiError::Login { status } | ApiError::Server { status, .. }) => {
                Some((Instant::now(), *status))
            }
            // Whoever waited for this login must not each wait for one of their own.
            Err(_) => Some((Instant::now(), 0)),
            Ok(_) => None,
        };
        let Answer { access_token, expires_in, refresh_token } = answer?;
        let value: Arc<str> = access_token.into();
        let token = Token { value: Arc::clone(&value), until: Instant::now() + lasts(expires_in) };
        *state = State { token: Some(token), refresh: refresh_token, refused: None };
        Ok(value)
    }

    /// A token that was refused is not used again, unless somebody has a newer one since.
    /// One that was refused though it was `new` says that no other will do for now.
    pub(crate) async fn forget(&self, refused: &str, new: bool) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| &*token.value == refused) {
            state.token = None;
            if new {
                state.refused = Some((Instant::now(), StatusCode::UNAUTHORIZED.as_u16()));
            }
        }
    }

    async fn by_password(&self, http: &Client) -> Result<Answer, ApiError> {
        let password = (self.credentials.password)().map_err(ApiError::Secret)?;
        let who = [("username", &*self.credentials.username), ("password", &password)];
        self.ask(http, &[&who[..], &[("grant_type", "password"), ("scope", "api")]].concat()).await
    }

    async fn ask(&self, http: &Client, form: &[(&str, &str)]) -> Result<Answer, ApiError> {
        let secret = (self.credentials.client_secret)().map_err(ApiError::Secret)?;
        let client = [("client_id", &*self.credentials.client_id), ("client_secret", &secret)];
        let answer = http.post(self.url.clone()).form(&[form, &client].concat()).send().await?;
        match answer.status() {
            StatusCode::OK => {
                let body = read(answer, LONGEST).await?;
                serde_json::from_slice(&body).map_err(|_| ApiError::Unreadable("expected a token"))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Err(ApiError::RateLimited { wait: asked_to_wait(&answer).unwrap_or(AFTER_LIMIT) })
            }
            status if status.is_server_error() => {
                Err(ApiError::Server { status: status.as_u16(), code: None })
            }
            status => Err(ApiError::Login { status: status.as_u16() }),
        }
    }
}

/// How long a token is used: not to its end, but for a while in any case.
fn lasts(expires_in: Option<f64>) -> Duration {
    let whole = expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(USUAL);
    whole.saturating_sub(EARLY.min(whole / 2))
}
