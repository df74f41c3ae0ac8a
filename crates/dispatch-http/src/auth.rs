//! Who we are to an endpoint.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dispatch::{BoxError, DispatchError, OpenContext};
use dispatch_kit::Secret;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use crate::settings::AuthSettings;

const ACTION: &str = "getting a token for the endpoint";

/// A token is renewed so long before it ends.
const EARLY: Duration = Duration::from_secs(60);

/// How long a token lasts whose answer does not say.
const USUAL: Duration = Duration::from_mins(5);

/// Most bytes of an answer with a token.
const LONGEST: usize = 64 << 10;

/// Adds `Authorization`.
#[derive(Debug)]
pub(crate) enum Auth {
    Bearer(Secret),
    Basic { user: String, password: Secret },
    Oauth2(Box<Oauth2>),
}

/// Client credentials: RFC 6749, section 4.4.
#[derive(Debug)]
pub(crate) struct Oauth2 {
    token_url: Url,
    client_id: String,
    client_secret: Secret,
    scope: Option<String>,
    /// One login for all attempts; whoever finds none makes one, others wait.
    token: Mutex<Option<Token>>,
    /// The last token that the endpoint refused.
    refused: std::sync::Mutex<Option<String>>,
}

#[derive(Clone, Debug)]
struct Token {
    value: String,
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<Lasts>,
}

#[derive(Debug, thiserror::Error)]
enum NoToken {
    #[error("the token's endpoint answered {0}")]
    Status(StatusCode),
    #[error("the token's endpoint answered something else than a token")]
    Unreadable,
}

impl Auth {
    pub(crate) fn open(settings: AuthSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        Ok(match settings {
            AuthSettings::Bearer(file) => Self::Bearer(Secret::open(&file, cx)?),
            AuthSettings::Basic { user, password } => {
                Self::Basic { user, password: Secret::open(&password, cx)? }
            }
            AuthSettings::Oauth2 { token_url, client_id, client_secret, scope } => {
                Self::Oauth2(Box::new(Oauth2 {
                    token_url: token_url.into_inner(),
                    client_id,
                    client_secret: Secret::open(&client_secret, cx)?,
                    scope,
                    token: Mutex::default(),
                    refused: std::sync::Mutex::default(),
                }))
            }
        })
    }

    /// Adds the header, and says what it shows.
    pub(crate) async fn add(
        &self,
        client: &Client,
        headers: &mut HeaderMap,
    ) -> Result<String, DispatchError> {
        let text = match self {
            Self::Bearer(secret) => format!("Bearer {}", secret.get()?),
            Self::Basic { user, password } => basic(user, &password.get()?),
            Self::Oauth2(oauth2) => format!("Bearer {}", oauth2.token(client).await?),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|error| DispatchError::transient("using a secret as a header", error))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(text)
    }

    /// The endpoint did not let us in with what was shown: the next attempt asks for
    /// a new token, unless somebody else has done so since.
    pub(crate) fn refused(&self, shown: &str) {
        if let (Self::Oauth2(oauth2), Some(token)) = (self, shown.strip_prefix("Bearer ")) {
            *oauth2.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// RFC 6749, section 2.3.1: so that neither can hold the colon between them.
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Seconds, which some servers write as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lasts {
    Number(u64),
    Text(String),
}

impl Lasts {
    fn time(&self) -> Option<Duration> {
        match self {
            Self::Number(seconds) => Some(Duration::from_secs(*seconds)),
            Self::Text(text) => text.trim().parse().ok().map(Duration::from_secs),
        }
    }
}

impl Oauth2 {
    async fn token(&self, client: &Client) -> Result<String, DispatchError> {
        let mut token = self.token.lock().await;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        token.take_if(|token| refused.as_ref() == Some(&token.value));
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.value.clone());
        }
        let new = self.log_in(client).await?;
        let value = new.value.clone();
        *token = Some(new);
        Ok(value)
    }

    async fn log_in(&self, client: &Client) -> Result<Token, DispatchError> {
        let failed = |error: reqwest::Error| DispatchError::transient(ACTION, error.without_url());
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let began = Instant::now();
        let request = client.post(self.token_url.clone()).form(&form);
        let identity = basic(&form_encoded(&self.client_id), &form_encoded(&self.client_secret.get()?));
        let mut response = request.header(AUTHORIZATION, identity).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(DispatchError::transient(ACTION, NoToken::Status(response.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                return Err(DispatchError::transient(ACTION, NoToken::Unreadable));
            }
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
            return Err(DispatchError::transient(ACTION, NoToken::Unreadable));
        };
        let lasts = answer.expires_in.and_then(|lasts| lasts.time()).unwrap_or(USUAL);
        // One that lasts for less than we renew early is used for half of it.
        let lasts = lasts.saturating_sub(EARLY).max(lasts / 2).min(Duration::from_hours(24));
        Ok(Token { value: answer.access_token, until: began + lasts })
    }
}
