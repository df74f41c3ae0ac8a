//! Subscriptions: handlers that can't be called, and ask for events instead.
//!
//! ```text
//! route ─▶ SubscriptionDispatcher ─▶ SubscriberPool ─▶ the subscriber with most room ─gRPC─▶ handler
//!            │      ready: as many as        ◀── settle, progress, credits ──────────┘
//!            ▼      subscribers have room for
//!          done │ again │ dead, as of any dispatcher
//! ```
//!
//! A route takes from the queue only as many deliveries as its subscribers have room for, so
//! nothing is attempted while there is no subscriber.
//!
//! Start reading at `dispatcher.rs`; who waits for what is in `pool.rs`.

mod dispatcher;
mod settings;

mod pool;
mod registry;

mod service;

pub use crate::dispatcher::SubscriptionDispatcher;
pub use crate::registry::SubscriptionRegistry;
pub use crate::service::Subscriptions;
pub use crate::settings::SubscriptionSettings;
