//! Fluent's own API, for one account at a time: logins, GraphQL, events posted back, its
//! event log.
//!
//! ```text
//! Client ─▶ pause? ─▶ limit, rate ─▶ login (one for all) ─▶ request ─▶ answer │ ApiError
//!              ▲                         ▲                                        │
//!              └── "too many requests" ──┼────────────────────────────────────────┤
//!                                        └── 401: the token is dropped, once more ┘
//! ```
//!
//! A password is sent only where the [`LoginLedger`] allows it: Fluent locks a user after
//! five failed logins, whichever processes made them.
//!
//! A client is cheap to clone, and all clones share the login and the limits. Nothing is
//! tried again here but a token that was refused: when to try again is the caller's, and
//! [`ApiError`] says whether and after how long it may help. No error repeats what Fluent
//! wrote beyond its error code.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//!
//! use event_model::{Clock, SystemClock};
//! use fluent_api::{Client, Credentials, Limits, MemoryLedger, Options, Query};
//!
//! async fn show_status(reference: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     let credentials = Credentials {
//!         username: "integration".to_owned(),
//!         // Read whenever it is needed, so that it can be exchanged.
//!         password: Arc::new(|| Ok(std::fs::read_to_string("secrets/password")?)),
//!         client_id: "ACME".to_owned(),
//!         client_secret: Arc::new(|| Ok(std::fs::read_to_string("secrets/client")?)),
//!     };
//!     let client = Client::new(Options {
//!         base: "https://ACME.sandbox.api.fluentretail.com".parse()?,
//!         account: "ACME".to_owned(),
//!         environment: "sandbox".to_owned(),
//!         credentials,
//!         limits: Limits::default(),
//!         // One for all processes that log in as this user, if there are several.
//!         ledger: Arc::new(MemoryLedger::new(|| SystemClock.now())),
//!     })?;
//!     let query = Query::parse("query ($ref: String!) { order(ref: $ref) { status } }")?;
//!     let variables = BTreeMap::from([("ref", reference)]);
//!     let order = client.graphql(&query, &variables).await?;
//!     println!("{:?}", order.value());
//!     Ok(())
//! }
//! ```
//!
//! Start reading at [`Client`].

mod accounts;
mod answer;
mod client;
mod error;
mod events;
mod graphql;
mod ledger;
mod login;
mod login_guard;
mod login_record;
mod request;

pub use crate::accounts::Accounts;
pub use crate::client::{Client, Limits, Options};
pub use crate::error::{ApiError, BoxError};
pub use crate::events::{EventContext, EventPage, EventQuery, EventRecord, Mode, NewEvent, time};
pub use crate::graphql::{Query, QueryError, VariableValue};
pub use crate::ledger::{LedgerFuture, LoginLedger, MemoryLedger};
pub use crate::login::{Credentials, ReadSecret};
