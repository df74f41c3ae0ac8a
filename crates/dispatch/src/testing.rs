//! What the tests of a dispatcher need, with the feature `testing`: events, and settings for a
//! whole pipeline.
//!
//! ```
//! use std::time::Duration;
//!
//! use dispatch::{AnyDispatcher, BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext};
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
//! let orders = AnyDispatcher::of(Orders);
//! let event = dispatch::testing::event("OrderStatusChange", "HD_1");
//! let cx = Context::new("route", event.id().to_string(), Duration::from_secs(1));
//! assert!(orders.dispatch(&event, &cx).await.is_ok());
//! # }
//! ```

pub use event_model::testing::{event, event_of};

/// A public key of 1024 bits, as Fluent's are. Its private half was thrown away.
const PUBLIC_KEY: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCeP6oV5Lf0nAbG5ZxbgPoINdaG2dA3mJiWf7derYskfMNw2Qkv/iXGK/rWouzuQcQGhekKMPPbrQiqG3VqKQERyYUmcYckROys44uVIKRcKCjnfhC22PKYEmyXixlTTq9HqLRMNuGVVrddQap5vRuPNv8TxwAJLPdQZ2V/UzNdfQIDAQAB";

/// Returns a whole `application.yml` with these routes, indented by four blanks, and an account
/// and a key that `check` takes for good. Nobody can sign for that key.
///
/// ```
/// let settings = dispatch::testing::application("    - { name: all, match: {}, dispatcher: log }");
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
