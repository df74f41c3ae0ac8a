//! Answers that are shared: many events of one entity in a burst ask once.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Clock, SystemClock, Timestamp};
use fluent_api::ApiError;
use moka::future::Cache;
use serde_json::Value;

/// How long an answer is kept at most.
const KEPT: Duration = Duration::from_secs(30);

/// Most answers that are kept: of 4 MiB at most each, and of some KiB as a rule.
const MOST: u64 = 256;

/// Answers by what was asked.
#[derive(Clone, Debug)]
pub(crate) struct Burst(Cache<String, Kept>);

#[derive(Clone, Debug)]
struct Kept {
    /// When it was asked for.
    asked_at: Timestamp,
    answer: Arc<Value>,
}

impl Burst {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(KEPT).build())
    }

    /// The answer for `key`, if one was asked for after the event came in: an older one may
    /// not have what the event is about. Who asks for the same meanwhile shares it.
    pub(crate) async fn share(
        &self,
        key: String,
        since: Timestamp,
        ask: impl Future<Output = Result<Value, ApiError>>,
    ) -> Result<Arc<Value>, Arc<ApiError>> {
        if self.0.get(&key).await.is_some_and(|kept| kept.asked_at < since) {
            self.0.invalidate(&key).await;
        }
        let asked_at = SystemClock.now();
        let kept = self
            .0
            .try_get_with(key, async { Ok::<_, ApiError>(Kept { asked_at, answer: Arc::new(ask.await?) }) });
        Ok(kept.await?.answer)
    }

    /// What was answered does not do: the next ask is a new one.
    pub(crate) async fn forget(&self, key: &str) {
        self.0.invalidate(key).await;
    }
}
