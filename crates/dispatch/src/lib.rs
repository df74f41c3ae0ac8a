//! The seam: what a dispatcher crate implements, and nothing else.
//!
//! A dispatcher takes one event to one kind of destination. Implement
//! [`Dispatcher`], which has an example, put the type into a [`Registry`], and hand that to
//! `fluent_webhooks::main` or `fluent_dispatcher::main`. Events and settings for its test are in the
//! module `testing`, with the feature of that name.
//!
//! What happens after an attempt (acknowledge, retry, dead letter) is decided
//! by the caller from what the dispatcher answers; a dispatcher states facts.
//!
//! Start reading at [`Dispatcher`].

mod context;
mod dispatcher;
mod error;
mod invalid_setting;
mod open_errors;
mod outcome;
mod preview;
mod registry;
#[cfg(feature = "testing")]
pub mod testing;
mod tracing_call;

pub use crate::context::{Context, Extensions, OpenContext};
pub use crate::dispatcher::{Dispatcher, Done};
pub use crate::error::{BoxError, DispatchError, Excerpt, ResultExt};
pub use crate::invalid_setting::InvalidSetting;
pub use crate::open_errors::OpenErrors;
pub use crate::outcome::{DeliveryOutcome, LONGEST_ANSWER, ResponseCapture};
pub use crate::preview::{MASKED, Preview};
pub use crate::registry::{AnyDispatcher, Registry, RegistryError, path_of};
pub use crate::tracing_call::{ActiveSpan, AttributeValue, Attributes, CallSpan, CallTracer, Role};

// What an implementer needs to name.
pub use event_model::{
    Bytes, Decimal, Event, EventId, ExactJson, ExactNumber, ExactValue, Fields, Rounding,
    Timestamp, TraceParent, TraceState, misspelt_field, nearest_name,
};
pub use tokio::sync::watch;
pub use tokio_util::sync::CancellationToken;
