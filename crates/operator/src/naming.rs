//! Bodies that name an entity, though they are no events: nothing of them is parsed, since what
//! is wrong with one may be its JSON.

use futures::future::BoxFuture;
use queue::{Quarantine, Quarantined, QueueError, RejectedStore, RejectedWebhook, Stores};

/// Webhooks that are looked at for one page, about: the newest, as anybody can send others that
/// are older.
const LOOKED_AT: usize = 1000;

/// Numbers of one look, and most of one that follows numbers of which nothing is left.
const TOGETHER: u64 = 100;
const AT_ONCE: usize = 100;
const MAX_TOGETHER: u64 = 1000;

/// Most requests to the store for one page: what was removed leaves numbers without webhooks.
const MAX_REQUESTS: usize = 40;

/// A store that numbers webhooks as they come, and lists them in this order only.
pub(crate) trait Numbered {
    type Webhook;

    fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>>;
    fn list(&self, after: u64) -> BoxFuture<'_, Result<Vec<Self::Webhook>, QueueError>>;
    fn first(&self, after: u64) -> BoxFuture<'_, Result<Option<u64>, QueueError>>;
    fn id(webhook: &Self::Webhook) -> u64;
    fn body(webhook: &Self::Webhook) -> &[u8];
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AllRefused<'a>(pub(crate) &'a dyn Stores);

impl AllRefused<'_> {
    fn store(&self) -> &dyn RejectedStore {
        self.0.refused()
    }
}

impl Numbered for AllRefused<'_> {
    type Webhook = RejectedWebhook;

    fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        Box::pin(async { Ok(self.store().count().await?.webhooks) })
    }

    fn list(&self, after: u64) -> BoxFuture<'_, Result<Vec<RejectedWebhook>, QueueError>> {
        self.store().list(after, AT_ONCE)
    }

    fn first(&self, after: u64) -> BoxFuture<'_, Result<Option<u64>, QueueError>> {
        Box::pin(async move {
            let found = self.store().list(after, 1).await?;
            Ok(found.first().map(|webhook| webhook.id))
        })
    }

    fn id(webhook: &RejectedWebhook) -> u64 {
        webhook.id
    }

    fn body(webhook: &RejectedWebhook) -> &[u8] {
        &webhook.inbound.body
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AllQuarantined<'a>(pub(crate) &'a dyn Stores);

impl AllQuarantined<'_> {
    fn store(&self) -> &dyn Quarantine {
        self.0.quarantine()
    }
}

impl Numbered for AllQuarantined<'_> {
    type Webhook = Quarantined;

    fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.store().count()
    }

    fn list(&self, after: u64) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>> {
        self.store().list(after, AT_ONCE)
    }

    fn first(&self, after: u64) -> BoxFuture<'_, Result<Option<u64>, QueueError>> {
        Box::pin(async move {
            let found = self.store().list(after, 1).await?;
            Ok(found.first().map(|webhook| webhook.id))
        })
    }

    fn id(webhook: &Quarantined) -> u64 {
        webhook.id
    }

    fn body(webhook: &Quarantined) -> &[u8] {
        &webhook.body
    }
}

/// Webhooks that name a ref, the newest first.
#[derive(Debug)]
pub(crate) struct NamingPage<W> {
    pub(crate) webhooks: Vec<W>,
    /// The number before which the next page begins; `None` if all were looked at.
    pub(crate) next: Option<u64>,
}

/// The newest webhooks that name `reference`, of those before a number.
pub(crate) async fn newest<N: Numbered>(
    store: &N,
    reference: &str,
    before: Option<u64>,
    limit: usize,
) -> Result<NamingPage<N::Webhook>, QueueError> {
    let name = NameInBody::new(reference);
    let mut page = NamingPage {
        webhooks: Vec::new(),
        next: None,
    };
    let Some(first) = store.first(0).await? else {
        return Ok(page);
    };
    let mut before = match before {
        Some(before) => before,
        None => behind_last(store, first).await?,
    };
    let mut width = TOGETHER;
    let mut looked_at = 0;
    let mut requests = 0;
    while before > first {
        if looked_at >= LOOKED_AT || requests >= MAX_REQUESTS {
            page.next = Some(before);
            return Ok(page);
        }
        let after = before.saturating_sub(width + 1);
        let found = between(store, after, before, &mut requests).await?;
        looked_at += found.len();
        width = match found.is_empty() {
            true => (width * 2).min(MAX_TOGETHER),
            false => TOGETHER,
        };
        for webhook in found.into_iter().rev() {
            if name.is_in(N::body(&webhook)) {
                let id = N::id(&webhook);
                page.webhooks.push(webhook);
                if page.webhooks.len() == limit {
                    page.next = Some(id).filter(|id| *id > first);
                    return Ok(page);
                }
            }
        }
        before = after.saturating_add(1);
    }
    Ok(page)
}

/// The webhooks between two numbers, in order.
async fn between<N: Numbered>(
    store: &N,
    mut after: u64,
    before: u64,
    requests: &mut usize,
) -> Result<Vec<N::Webhook>, QueueError> {
    let mut all = Vec::new();
    // Pages can be short, as they are bounded in bytes.
    while after.saturating_add(1) < before {
        *requests += 1;
        let found = store.list(after).await?;
        let Some(last) = found.last().map(N::id) else {
            break;
        };
        all.extend(found.into_iter().filter(|it| N::id(it) < before));
        after = last;
    }
    Ok(all)
}

/// A number behind the last one, by at most [`TOGETHER`]. Without gaps the count tells it; over
/// gaps it is looked for in steps that double, and then halve.
async fn behind_last<N: Numbered>(store: &N, first: u64) -> Result<u64, QueueError> {
    let count = store.count().await?.max(1);
    let mut last = first.saturating_add(count - 1);
    let mut step = 0;
    while let Some(id) = store.first(last.saturating_add(step)).await? {
        last = id;
        step = (step * 2).max(TOGETHER);
    }
    while step > TOGETHER {
        step /= 2;
        if let Some(id) = store.first(last.saturating_add(step)).await? {
            last = id;
        }
    }
    Ok(last.saturating_add(step).saturating_add(1))
}

/// A ref as JSON writes it.
#[derive(Debug)]
pub(crate) struct NameInBody(Vec<u8>);

impl NameInBody {
    pub(crate) fn new(reference: &str) -> Self {
        // A text can always be written.
        Self(serde_json::to_vec(reference).unwrap_or_default())
    }

    /// True if the body has the ref as a whole text, wherever. One that is written with other
    /// escapes than needed is not found.
    pub(crate) fn is_in(&self, body: &[u8]) -> bool {
        body.windows(self.0.len()).any(|part| part == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Webhooks with these numbers, of which each seventh names the order.
    struct Numbers(Vec<u64>);

    impl Numbered for Numbers {
        type Webhook = u64;

        fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
            Box::pin(async { Ok(self.0.len() as u64) })
        }

        fn list(&self, after: u64) -> BoxFuture<'_, Result<Vec<u64>, QueueError>> {
            let found = self.0.iter().copied().filter(move |id| *id > after);
            // Fewer than asked for, as a page that is bounded in bytes.
            Box::pin(async move { Ok(found.take(30).collect()) })
        }

        fn first(&self, after: u64) -> BoxFuture<'_, Result<Option<u64>, QueueError>> {
            Box::pin(async move { Ok(self.0.iter().copied().find(|id| *id > after)) })
        }

        fn id(webhook: &u64) -> u64 {
            *webhook
        }

        fn body(webhook: &u64) -> &[u8] {
            match webhook % 7 {
                0 => b"\"HD_1\"",
                _ => b"\"HD_2\"",
            }
        }
    }

    #[tokio::test]
    async fn pages_begin_with_the_newest_and_have_each_once_over_gaps() {
        let stores: [Vec<u64>; 6] = [
            Vec::new(),
            vec![7],
            (1..=2500).collect(),
            (700..720).chain(9000..9300).collect(),
            (1..2000).chain(70_000..70_010).collect(),
            (1..=100).map(|number| number * 350).collect(),
        ];
        for numbers in stores {
            let store = Numbers(numbers);
            let mut expected: Vec<_> = store.0.iter().copied().filter(|id| id % 7 == 0).collect();
            expected.reverse();
            let mut found = Vec::new();
            let mut before = None;
            loop {
                let page = newest(&store, "HD_1", before, 20).await.unwrap();
                if before.is_none() {
                    assert_eq!(page.webhooks.first(), expected.first());
                }
                found.extend(page.webhooks);
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_ref_is_found_whole_and_in_what_is_no_json() {
        let name = NameInBody::new("HD_\"1");
        assert!(name.is_in(br#"{"entityRef":"HD_\"1""#));
        assert!(!name.is_in(br#"{"entityRef":"HD_\"10"}"#));
        assert!(!name.is_in(b""));
    }
}
