//! Logins: by password, and by a token that is good once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Form, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{LOGIN, Shared};

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
        self.known().until.get(token).is_some_and(|until| Instant::now() < *until)
    }

    fn make(&self, lasts: Duration, has_refresh: bool) -> Value {
        let (token, refresh) = (name(), name());
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

pub(crate) async fn token(State(shared): State<Arc<Shared>>, Form(asked): Form<Asked>) -> Response {
    let behaviour = shared.conduct.now();
    tokio::time::sleep(behaviour.latency).await;
    let is = |given: &Option<String>| given.as_deref() == Some(LOGIN);
    let is_client = asked.client_id == LOGIN && asked.client_secret == LOGIN;
    let is_known = match asked.grant_type.as_str() {
        "password" => {
            shared.conduct.count(|calls| calls.logins += 1);
            is(&asked.username) && is(&asked.password)
        }
        "refresh_token" => {
            shared.conduct.count(|calls| calls.refreshes += 1);
            asked.refresh_token.is_some_and(|token| shared.tokens.known().refresh.remove(&token))
        }
        _ => false,
    };
    match is_client && is_known {
        true => Json(shared.tokens.make(behaviour.token_lasts, behaviour.has_refresh)).into_response(),
        false => (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response(),
    }
}

/// Lets in who has a token.
pub(crate) async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|shown| shown.strip_prefix("Bearer "));
    match token.is_some_and(|token| shared.tokens.is_good(token)) {
        true => next.run(request).await,
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}
