//! A cache of answers: many events of one entity that come together cost one request.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Clock, ExactJson, SystemClock, Timestamp};
use fluent_api::ApiError;
use moka::future::Cache;

/// Longest time for which an answer is kept.
const KEPT: Duration = Duration::from_secs(30);

/// Most bytes of answers that are kept for a route, as JSON: an answer has at most 1 MiB, and
/// usually some KiB.
const MOST: u64 = 8 << 20;

/// Answers by what was asked.
#[derive(Clone, Debug)]
pub(crate) struct ResponseCache(Cache<String, CachedResponse>);

#[derive(Clone, Debug)]
struct CachedResponse {
    /// Time at which the request began.
    asked_at: Timestamp,
    answer: ExactJson,
}

impl ResponseCache {
    pub(crate) fn new() -> Self {
        let size = |_: &String, kept: &CachedResponse| {
            u32::try_from(kept.answer.as_str().len()).unwrap_or(u32::MAX)
        };
        Self(
            Cache::builder()
                .weigher(size)
                .max_capacity(MOST)
                .time_to_live(KEPT)
                .build(),
        )
    }

    /// Returns the answer for `key`, if it was requested after the event came in: an older one
    /// may be from before the change that the event is about. Callers that ask for the same
    /// meanwhile share one request.
    pub(crate) async fn get_or_fetch<A>(
        &self,
        key: String,
        since: Timestamp,
        ask: impl Fn() -> A,
    ) -> Result<ExactJson, Arc<ApiError>>
    where
        A: Future<Output = Result<ExactJson, ApiError>>,
    {
        if self
            .0
            .get(&key)
            .await
            .is_some_and(|kept| kept.asked_at < since)
        {
            self.0.invalidate(&key).await;
        }
        let kept = self.once(&key, ask()).await?;
        if kept.asked_at >= since {
            return Ok(kept.answer);
        }
        // The shared request began before this event came in.
        self.0.invalidate(&key).await;
        Ok(self.once(&key, ask()).await?.answer)
    }

    async fn once(
        &self,
        key: &str,
        ask: impl Future<Output = Result<ExactJson, ApiError>>,
    ) -> Result<CachedResponse, Arc<ApiError>> {
        let asking = async {
            let asked_at = SystemClock.now();
            Ok::<_, ApiError>(CachedResponse {
                asked_at,
                answer: ask.await?,
            })
        };
        self.0.try_get_with(key.to_owned(), asking).await
    }

    /// Removes an answer that is not good enough: the next call makes a new request.
    pub(crate) async fn forget(&self, key: &str) {
        self.0.invalidate(key).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_shared_by_what_came_in_before_it_was_asked_for() {
        let cache = ResponseCache::new();
        let asked = AtomicUsize::new(0);
        let ask = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(ExactJson::parse("null").unwrap())
        };
        let before = SystemClock.now();
        let early = async {
            cache
                .get_or_fetch("k".to_owned(), before, ask)
                .await
                .unwrap()
        };
        let also_early = async {
            cache
                .get_or_fetch("k".to_owned(), before, ask)
                .await
                .unwrap()
        };
        let late = async {
            // It comes in while the others' request is under way.
            tokio::time::sleep(Duration::from_millis(50)).await;
            cache
                .get_or_fetch("k".to_owned(), SystemClock.now(), ask)
                .await
                .unwrap()
        };
        futures::join!(early, also_early, late);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        cache
            .get_or_fetch("k".to_owned(), before, ask)
            .await
            .unwrap();
        assert_eq!(
            asked.load(Ordering::Relaxed),
            2,
            "the answer is kept a while"
        );
    }
}
