//! Fluent's API: logins, GraphQL over a few orders, and events that are posted and logged.
//!
//! ```text
//! request ─▶ latency, failures, rate limit ─▶ token ─▶ oauth │ graphql │ events
//!                     ▲ Behaviour                                  │
//!                                                                World
//! ```

mod behaviour;
mod events;
mod graphql;
mod oauth;
mod schema;
mod world;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::net::TcpListener;

pub use crate::api::behaviour::{Behaviour, Calls};
pub use crate::api::world::{Entity, Order, Sending, World};

use crate::api::behaviour::Conduct;
use crate::api::oauth::Tokens;

/// The user, password, client and secret of a login: the simulator has no secrets.
pub const LOGIN: &str = "simulator";

/// A simulated Fluent that answers its API until it is dropped.
#[derive(Debug)]
pub struct Fluent {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: tokio::task::AbortHandle,
}

#[derive(Debug)]
struct Shared {
    world: World,
    conduct: Conduct,
    tokens: Tokens,
    /// Times of failed logins by user.
    failed_logins: Mutex<HashMap<String, Vec<Instant>>>,
}

impl Fluent {
    /// Listens at this address. Port 0 takes any free port.
    #[expect(clippy::disallowed_methods, reason = "ends with what is returned")]
    pub async fn open(listen: SocketAddr, world: World) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let conduct = Conduct::default();
        let tokens = Tokens::default();
        let failed_logins = Mutex::default();
        let shared = Arc::new(Shared {
            world,
            conduct,
            tokens,
            failed_logins,
        });
        let router = router(Arc::clone(&shared));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            shared,
            serving: serving.abort_handle(),
        })
    }

    /// The base URL for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The orders and the log.
    pub fn world(&self) -> &World {
        &self.shared.world
    }

    /// Changes the behaviour from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.shared.conduct.change(change);
    }

    /// Revokes every token: each is refused from now on.
    pub fn revoke_tokens(&self) {
        self.shared.tokens.revoke();
    }

    /// Revokes every token for a renewal.
    pub fn forget_refreshes(&self) {
        self.shared.tokens.forget_refreshes();
    }

    /// The numbers of requests so far.
    pub fn calls(&self) -> Calls {
        self.shared.conduct.calls()
    }
}

impl Drop for Fluent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/graphql", post(graphql::answer))
        .route("/api/v4.1/event", get(events::search))
        .route("/api/v4.1/event/async", post(events::take))
        .route("/api/v4.1/event/sync", post(events::take))
        .layer(from_fn_with_state(Arc::clone(&shared), oauth::admit))
        .layer(from_fn_with_state(Arc::clone(&shared), behaviour::conduct));
    Router::new()
        .route("/oauth/token", post(oauth::token))
        .merge(api)
        .with_state(shared)
}
