//! A retailer's systems in the demo: their endpoints and answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode, Uri};
use process::Shutdown;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use super::script::PICKUP;
use super::story::{DeliveredEvents, Story};
use super::world::{DOWN, World};

/// Beginnings of entity refs that the endpoints treat in their own way.
pub(super) const FAILS_TWICE: &str = "FAILS_TWICE";
pub(super) const REFUSED: &str = "REFUSED";

/// The path at which the ERP gives out tokens.
const LOGIN: &str = "erp/oauth/token";

/// The endpoints, with the number of requests for each event.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    story: Story,
    seen: Arc<Mutex<HashMap<String, u32>>>,
}

impl Endpoints {
    pub(super) async fn open(
        world: &World,
        story: Story,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let endpoints = Self {
            story,
            seen: Arc::default(),
        };
        let listener = listen(world.endpoints).await?;
        shutdown.spawn_detached(endpoints.clone().serve(listener));
        let late = endpoints.clone();
        let address = world.warehouse;
        // Bound now, so that nobody else takes the port, and listening only once it is back.
        let socket = TcpSocket::new_v4()?;
        socket
            .bind(address)
            .with_context(|| format!("taking {address}"))?;
        shutdown.spawn_detached(async move {
            sleep(DOWN).await;
            if let Ok(listener) = socket.listen(1024) {
                late.story.tell("back", "the warehouse's endpoint");
                late.serve(listener).await;
            }
        });
        Ok(())
    }

    async fn serve(self, listener: TcpListener) {
        let router = Router::new().fallback(answer).with_state(self);
        // The server ends with the demo.
        let _ = axum::serve(listener, router).await;
    }

    /// The number of earlier requests with this key.
    fn count(&self, key: &str) -> u32 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let count = seen.entry(key.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))
}

async fn answer(
    State(endpoints): State<Endpoints>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let endpoint = uri.path().trim_start_matches('/').to_owned();
    if endpoint == LOGIN {
        return (
            StatusCode::OK,
            r#"{"access_token":"demo","expires_in":3600}"#,
        );
    }
    // In binary mode an event's attributes are headers, in structured mode they
    // are in the body.
    let cloud_event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let attribute = |name: &str| match header(&format!("ce-{name}")) {
        absent if absent.is_empty() => cloud_event[name].as_str().unwrap_or_default().to_owned(),
        found => found,
    };
    let id = header("idempotency-key");
    let subject = attribute("subject");
    let reference = subject
        .split('/')
        .next_back()
        .unwrap_or_default()
        .to_owned();
    let before = endpoints.count(&id);
    let status = match () {
        () if reference.starts_with(FAILS_TWICE) && before < 2 => StatusCode::SERVICE_UNAVAILABLE,
        () if reference.starts_with(REFUSED) => StatusCode::UNPROCESSABLE_ENTITY,
        // Endpoints that need a login accept no request without one.
        () if !endpoint.starts_with("shop/") && !is_known(&headers) => StatusCode::UNAUTHORIZED,
        // A mail needs the name of its reader.
        () if endpoint == PICKUP && !cloud_event["name"].is_string() => StatusCode::BAD_REQUEST,
        () => StatusCode::OK,
    };
    let answer = if endpoint == PICKUP {
        r#"{"messageId":"M-1"}"#
    } else {
        ""
    };
    let delivered = DeliveredEvents {
        id,
        endpoint,
        name: attribute("type"),
        reference,
        attempt: header("fluent-attempt"),
        is_reconciled: header("fluent-origin") == "reconciled",
        status: status.as_u16(),
    };
    endpoints.story.delivered(delivered);
    (status, answer)
}

fn is_known(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key")
}
