//! A dispatcher that crashes, panics, hangs or fails on demand.

use std::time::Duration;

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext};
use schemars::JsonSchema;
use serde::Deserialize;

/// Does what the event's entity ref begins with: `ABORT`, `PANIC`, `HANG` or `FAIL`.
#[derive(Debug)]
pub struct Misbehaving(MisbehavingSettings);

/// The route's settings for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MisbehavingSettings {
    /// How long a good event takes, in milliseconds.
    #[serde(default)]
    millis: u64,
}

impl Dispatcher for Misbehaving {
    const KIND: &'static str = "misbehaving";
    type Settings = MisbehavingSettings;

    async fn open(settings: MisbehavingSettings, _: &OpenContext) -> Result<Self, BoxError> {
        Ok(Self(settings))
    }

    #[expect(clippy::panic, reason = "that is what it is for")]
    async fn dispatch(&self, event: &Event, _: &Context) -> Result<Done, DispatchError> {
        let reference = event.fields().entity_ref.as_deref().unwrap_or_default();
        if reference.starts_with("ABORT") {
            std::process::abort();
        } else if reference.starts_with("PANIC") {
            panic!("told to by {reference}");
        } else if reference.starts_with("HANG") {
            std::future::pending::<()>().await;
        } else if reference.starts_with("FAIL") {
            return Err(DispatchError::transient("doing as told", "told to"));
        }
        tokio::time::sleep(Duration::from_millis(self.0.millis)).await;
        Ok(Done::default())
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(500)
    }
}
