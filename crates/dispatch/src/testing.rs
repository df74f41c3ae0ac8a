//! What the tests of a dispatcher need, with the feature `testing`: events, an open dispatcher, the
//! context of an attempt, and settings for a whole pipeline.
//!
//! ```
//! use fluent_dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, testing};
//!
//! /// Takes orders, and nothing else.
//! #[derive(Debug)]
//! struct Orders;
//!
//! impl Dispatcher for Orders {
//!     const KIND: &'static str = "orders";
//!     type Settings = serde_json::Map<String, serde_json::Value>;
//!
//!     async fn open(_: Self::Settings, _: &OpenContext) -> Result<Self, BoxError> {
//!         Ok(Self)
//!     }
//!
//!     async fn dispatch(&self, event: &Event, _: &Context) -> Result<Done, DispatchError> {
//!         match event.entity() {
//!             Some(entity) if entity.starts_with("ORDER/") => Ok(Done::default()),
//!             _ => Err(DispatchError::permanent("reading the event", "it is about no order")),
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let orders = testing::open::<Orders>("{}", ".").await.unwrap();
//! let event = testing::event("OrderStatusChange", "HD_1");
//! assert!(orders.dispatch(&event, &testing::context(&event)).await.is_ok());
//! # }
//! ```

use std::path::PathBuf;
use std::time::Duration;

use event_model::Event;

use crate::{AnyDispatcher, Context, Dispatcher, OpenContext, Registry, RegistryError};

pub use event_model::testing::{event, event_of};

/// A public key of 1024 bits, as Fluent's are. Its private half was thrown away.
const PUBLIC_KEY: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCeP6oV5Lf0nAbG5ZxbgPoINdaG2dA3mJiWf7derYskfMNw2Qkv/iXGK/rWouzuQcQGhekKMPPbrQiqG3VqKQERyYUmcYckROys44uVIKRcKCjnfhC22PKYEmyXixlTTq9HqLRMNuGVVrddQap5vRuPNv8TxwAJLPdQZ2V/UzNdfQIDAQAB";

/// Returns a whole `application.yml` with these routes, indented by four blanks, and an account
/// and a key that `check` takes for good. Nobody can sign for that key.
///
/// ```
/// let settings = fluent_dispatch::testing::application("    - { name: all, match: {}, dispatcher: log }");
/// assert!(settings.contains("dispatcher: log"));
/// ```
pub fn application(routes: &str) -> String {
    format!(
        "fluent-connect:\n  \
           accounts: [{{ name: ACME, region: sydney, environment: sandbox }}]\n  \
           routes:\n{routes}\n\
         fluentcommerce:\n  \
           fluent-webhook-keys: {{ sydney_sandbox: \"{PUBLIC_KEY}\" }}\n"
    )
}

/// Opens a dispatcher as a route does, from the route's table, here in JSON. Relative paths in it
/// are relative to `folder`.
///
/// # Panics
///
/// If `table` is not JSON.
pub async fn open<D: Dispatcher>(
    table: &str,
    folder: impl Into<PathBuf>,
) -> Result<AnyDispatcher, RegistryError> {
    let table = serde_json::from_str(table).expect("a table in JSON");
    let cx = OpenContext::new("route", folder);
    Registry::new().with::<D>().open(D::KIND, table, &cx).await
}

/// Returns the context of the first attempt to deliver `event`, with a minute of time.
pub fn context(event: &Event) -> Context {
    Context::new("route", event.id().to_string(), Duration::from_mins(1))
}
