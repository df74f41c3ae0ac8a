//! The smallest dispatcher: writes each event to the log.
//!
//! Copy this crate to start a new one. Everything a dispatcher needs is here:
//! a type, its settings, and two functions.

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext};
use schemars::JsonSchema;
use serde::Deserialize;

/// Logs events at `info`: id, name and entity, never the body.
#[derive(Debug)]
pub struct LogDispatcher;

/// The route's `log:` table. There is nothing to set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {}

impl Dispatcher for LogDispatcher {
    const KIND: &'static str = "log";
    type Settings = LogSettings;

    async fn open(LogSettings {}: LogSettings, _: &OpenContext) -> Result<Self, BoxError> {
        Ok(Self)
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let entity = event.entity().unwrap_or_default();
        tracing::info!(event.id = %event.id(), event.name = event.name(), entity, route = cx.route, attempt = cx.attempt, "event");
        Ok(Done::default())
    }
}
