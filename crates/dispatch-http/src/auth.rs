//! Authentication at an endpoint.

use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dispatch::{BoxError, DispatchError, OpenContext};
use dispatch_kit::{Secret, without_bom};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::settings::AuthSettings;
use http_client::{Answer, HttpClient, RequestParts, uri_of, usual_headers};

const ACTION: &str = "getting a token for the endpoint";

/// Time before the end of a token at which it is renewed.
const EARLY: Duration = Duration::from_secs(60);

/// Lifetime of a token whose answer does not give one.
const USUAL: Duration = Duration::from_mins(5);

/// Longest time for which a token is used, whatever its lifetime.
const LONGEST_LIFE: Duration = Duration::from_hours(24);

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
    token_uri: Uri,
    client_id: String,
    client_secret: Secret,
    scope: Option<String>,
    /// Token of one login for all attempts; the first attempt without one logs in, and others
    /// wait.
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
struct TokenAnswer {
    access_token: String,
    /// As it is written: a number too large for any type must not make the token unreadable.
    expires_in: Option<Box<RawValue>>,
}

#[derive(Debug, thiserror::Error)]
enum NoToken {
    #[error("the token's endpoint answered {0}")]
    Status(StatusCode),
    #[error("the token's endpoint answered something else than a token")]
    Unreadable,
    #[error("the client's id or secret can't be in a header")]
    Unfit,
}

impl Auth {
    /// The scheme of its header.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Bearer(_) | Self::Oauth2(_) => "Bearer",
            Self::Basic { .. } => "Basic",
        }
    }

    pub(crate) fn open(settings: AuthSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        Ok(match settings {
            AuthSettings::Bearer(file) => Self::Bearer(Secret::open(&file, cx)?),
            // RFC 7617, section 2: the first colon ends the name.
            AuthSettings::Basic { user, .. }
                if user.contains(|c: char| c == ':' || c.is_control()) =>
            {
                return Err(
                    "auth.basic.user: a name with a colon or a control character would be another"
                        .into(),
                );
            }
            AuthSettings::Basic { user, password } => Self::Basic {
                user,
                password: Secret::open(&password, cx)?,
            },
            AuthSettings::Oauth2 {
                token_url,
                client_id,
                client_secret,
                scope,
            } => Self::Oauth2(Box::new(Oauth2 {
                token_uri: uri_of(&token_url.into_inner())?,
                client_id,
                client_secret: Secret::open(&client_secret, cx)?,
                scope,
                token: Mutex::default(),
                refused: std::sync::Mutex::default(),
            })),
        })
    }

    /// Adds the header, and returns its value.
    pub(crate) async fn add(
        &self,
        client: &HttpClient,
        headers: &mut HeaderMap,
        deadline: Instant,
    ) -> Result<String, DispatchError> {
        let text = match self {
            Self::Bearer(secret) => format!("Bearer {}", secret.get()?),
            Self::Basic { user, password } => basic(user, &password.get()?),
            Self::Oauth2(oauth2) => format!("Bearer {}", oauth2.token(client, deadline).await?),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|error| DispatchError::transient("using a secret as a header", error))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(text)
    }

    /// Notes that the endpoint refused this value: the next attempt gets a new token, unless
    /// another attempt has done so since.
    pub(crate) fn refused(&self, shown: &str) {
        if let (Self::Oauth2(oauth2), Some(token)) = (self, shown.strip_prefix("Bearer ")) {
            *oauth2
                .refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Encodes as RFC 6749, section 2.3.1, wants it: so neither part can contain the colon between
/// them.
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

impl Oauth2 {
    async fn token(&self, client: &HttpClient, deadline: Instant) -> Result<String, DispatchError> {
        let mut token = self.token.lock().await;
        let refused = self
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        token.take_if(|token| refused.as_ref() == Some(&token.value));
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.value.clone());
        }
        let new = self.log_in(client, deadline).await?;
        let value = new.value.clone();
        *token = Some(new);
        Ok(value)
    }

    async fn log_in(&self, client: &HttpClient, deadline: Instant) -> Result<Token, DispatchError> {
        let failed = |why: NoToken| DispatchError::transient(ACTION, why);
        let identity = basic(
            &form_encoded(&self.client_id),
            &form_encoded(&self.client_secret.get()?),
        );
        let mut identity = HeaderValue::from_str(&identity).map_err(|_| failed(NoToken::Unfit))?;
        identity.set_sensitive(true);
        let mut headers = usual_headers();
        headers.insert(AUTHORIZATION, identity);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let method = Method::POST;
        let uri = self.token_uri.clone();
        let body = self.form();
        let began = Instant::now();
        let answer = client
            .send(
                RequestParts {
                    method,
                    uri,
                    headers,
                    body,
                },
                deadline,
            )
            .await;
        let answer = answer.map_err(|error| DispatchError::transient(ACTION, error))?;
        let status = answer.status();
        let Answer::Readable(response) = answer else {
            return Err(failed(NoToken::Unreadable));
        };
        if !status.is_success() {
            return Err(failed(NoToken::Status(status)));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body
            .map_err(|error| DispatchError::transient(ACTION, error))?
            .to_bytes();
        let answer = understood(&body).ok_or_else(|| failed(NoToken::Unreadable))?;
        Ok(Token {
            value: answer.access_token,
            until: began + lasts(answer.expires_in.as_deref()),
        })
    }

    fn form(&self) -> Bytes {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.finish().into()
    }
}

fn understood(body: &[u8]) -> Option<TokenAnswer> {
    serde_json::from_slice(without_bom(body)).ok()
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
    // A token that lasts for less than the time of renewal is used for half of its lifetime.
    whole.saturating_sub(EARLY).max(whole / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_whatever_is_said_of_its_life() {
        for (given, expected) in [
            ("3600", 3540),
            ("3599.0", 3539),
            ("3.6e3", 3540),
            (r#""3600""#, 3540),
            (r#"" 3599.5 ""#, 3539),
            ("100", 50),
            ("-1", 240),
            ("0", 240),
            (r#""soon""#, 240),
            (r#""NaN""#, 240),
            ("null", 240),
            ("[3600]", 240),
            ("1e30", 24 * 3600 - 60),
            ("1e999", 24 * 3600 - 60),
            ("-1e999", 240),
        ] {
            let text = format!(r#"{{"access_token": "t", "expires_in": {given}}}"#);
            let answer =
                understood(text.as_bytes()).unwrap_or_else(|| panic!("no token in {text}"));
            assert_eq!(
                lasts(answer.expires_in.as_deref()).as_secs(),
                expected,
                "{given}"
            );
        }
        assert_eq!(lasts(None).as_secs(), 240);
    }

    #[test]
    fn a_token_is_found_behind_a_byte_order_mark_and_beside_anything() {
        for text in [
            "\u{feff}{\"access_token\": \"t\", \"expires_in\": 1e30}",
            r#"{"access_token": "t"}"#,
            r#"{"access_token": "t", "expires_in": 12345678901234567890123, "x": [1e999]}"#,
        ] {
            let answer =
                understood(text.as_bytes()).unwrap_or_else(|| panic!("no token in {text}"));
            assert_eq!(answer.access_token, "t");
        }
        assert!(understood(br#"{"access_token": 5}"#).is_none());
    }
}
