//! Logins: by password, and by a token for one renewal.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Form, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::behaviour::Behaviour;
use crate::api::{LOGIN, Shared};

/// Failed logins after which a user is locked.
const MOST_FAILED: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    until: HashMap<String, Instant>,
    refresh: HashSet<String>,
}

impl Tokens {
    pub(crate) fn revoke(&self) {
        self.known().until.clear();
    }

    pub(crate) fn forget_refreshes(&self) {
        self.known().refresh.clear();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_good(&self, token: &str) -> bool {
        self.known()
            .until
            .get(token)
            .is_some_and(|until| Instant::now() < *until)
    }

    fn make(&self, lasts: Duration, has_refresh: bool) -> Value {
        let token = name();
        let refresh = name();
        let mut known = self.known();
        known.until.insert(token.clone(), Instant::now() + lasts);
        let mut answer = json!({
            "access_token": token, "token_type": "bearer", "expires_in": lasts.as_secs_f64(), "scope": "api",
        });
        if has_refresh {
            known.refresh.insert(refresh.clone());
            answer["refresh_token"] = json!(refresh);
        }
        answer
    }
}

fn name() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    grant_type: String,
    client_id: String,
    client_secret: String,
    username: Option<String>,
    password: Option<String>,
    refresh_token: Option<String>,
}

/// The header that names the account.
const ACCOUNT: &str = "fluent.account";

pub(crate) async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(asked): Form<Asked>,
) -> Response {
    let behaviour = shared.conduct.now();
    tokio::time::sleep(behaviour.latency).await;
    if let Some(status) = behaviour.fail_logins_with {
        return StatusCode::from_u16(status)
            .unwrap_or_default()
            .into_response();
    }
    match headers.get(ACCOUNT) {
        None => shared.conduct.count(|calls| calls.without_account += 1),
        Some(account) if account.as_bytes() == shared.world.account().as_bytes() => {}
        Some(_) => {
            return refused(&Behaviour {
                single_sign_on: false,
                ..behaviour
            });
        }
    }
    let is_client = asked.client_id == LOGIN && asked.client_secret == LOGIN;
    let is_known = match asked.grant_type.as_str() {
        "password" => {
            shared.conduct.count(|calls| calls.logins += 1);
            let is_user = asked.username.as_deref() == Some(LOGIN);
            let is_right =
                is_client && is_user && asked.password.as_deref() == Some(behaviour.password);
            shared.logs_in(
                asked.username.as_deref().unwrap_or_default(),
                is_right,
                &behaviour,
            )
        }
        "refresh_token" => {
            shared.conduct.count(|calls| calls.refreshes += 1);
            let is_good = |token: String| shared.tokens.known().refresh.remove(&token);
            is_client && asked.refresh_token.is_some_and(is_good)
        }
        _ => false,
    };
    match is_known {
        true => Json(
            shared
                .tokens
                .make(behaviour.token_lasts, behaviour.has_refresh),
        )
        .into_response(),
        false => refused(&behaviour),
    }
}

impl Shared {
    /// True if a login succeeds. A locked user's does not, even with the right password, and
    /// every failed login begins the lock again.
    fn logs_in(&self, username: &str, is_right: bool, behaviour: &Behaviour) -> bool {
        let mut failed = self
            .failed_logins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let failed = failed.entry(username.to_owned()).or_default();
        failed.retain(|at: &Instant| at.elapsed() < behaviour.locked_for);
        let is_locked = failed.len() >= MOST_FAILED;
        let succeeds = is_right && !is_locked;
        if !succeeds {
            failed.push(Instant::now());
        }
        self.conduct.count(|calls| {
            calls.failed_logins += u64::from(!succeeds);
            calls.locked_logins += u64::from(is_locked);
        });
        succeeds
    }
}

fn refused(behaviour: &Behaviour) -> Response {
    if behaviour.single_sign_on {
        let error = json!({"error": {"code": "400", "message": "The username or password you entered is incorrect"}});
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(error)).into_response();
    }
    let error = json!({"error": "invalid_grant", "error_description": "Bad credentials"});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

/// Passes on requests with a valid token.
pub(crate) async fn admit(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let shown = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = shown.and_then(|shown| shown.strip_prefix("Bearer "));
    match token.is_some_and(|token| shared.tokens.is_good(token)) {
        true => next.run(request).await,
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}
