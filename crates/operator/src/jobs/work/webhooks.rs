//! Jobs about webhooks that are no events yet: quarantined and refused ones.

use event_model::Timestamp;
use proto::v1;
use queue::{Quarantined, QueueError, RejectedWebhook};
use settings::Gateway;
use verifier::WebhookVerifier;

use super::{Page, ReceivedWithin, RefusedFilter, Tried, tried};
use crate::Operator;
use crate::jobs::items::ItemResult;
use crate::quarantined::{admitted, inbound_of};

impl ReceivedWithin {
    fn has(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

impl RefusedFilter {
    fn has(&self, webhook: &RejectedWebhook) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        is(&self.account, &webhook.account)
            && is(&self.reason, &webhook.reason)
            && self.received.has(webhook.inbound.received_at)
    }
}

impl Operator {
    /// The quarantined webhooks behind `after`, up to `up_to`.
    pub(super) async fn page_of_quarantined(
        &self,
        received: &ReceivedWithin,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<Page, QueueError> {
        if after >= up_to {
            return Ok(Page::default());
        }
        let found = self.stores().quarantine().list(after, limit).await?;
        let last = found.last().map(|webhook| webhook.id);
        let wanted = found
            .iter()
            .filter(|webhook| webhook.id <= up_to && received.has(webhook.received_at));
        Ok(Page {
            items: wanted.map(quarantined).collect(),
            next: last,
        })
    }

    /// The refused webhooks behind `after`, up to `up_to`.
    pub(super) async fn page_of_refused(
        &self,
        filter: &RefusedFilter,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<Page, QueueError> {
        if after >= up_to {
            return Ok(Page::default());
        }
        let found = self.stores().refused().list(after, limit).await?;
        let last = found.last().map(|webhook| webhook.id);
        let wanted = found
            .iter()
            .filter(|webhook| webhook.id <= up_to && filter.has(webhook));
        Ok(Page {
            items: wanted.map(refused).collect(),
            next: last,
        })
    }

    /// Admits quarantined webhooks that are events by the settings of now.
    pub(super) async fn try_quarantined(&self, ids: &[u64], may_be_done: bool) -> Vec<Tried> {
        let gateway = match self.gateway_for_jobs() {
            Ok(gateway) => gateway,
            Err(error) => {
                let again = |_| Tried::Again(error.duplicate());
                return ids.iter().map(again).collect();
            }
        };
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            results.push(self.try_one_quarantined(&gateway, *id, may_be_done).await);
        }
        results
    }

    async fn try_one_quarantined(&self, gateway: &Gateway, id: u64, may_be_done: bool) -> Tried {
        let quarantine = self.stores().quarantine();
        let kept = match quarantine.get(id).await {
            Ok(kept) => kept,
            Err(error) => return gone_or(error, may_be_done),
        };
        // A key that was in use when the body came still proves it.
        match admitted(
            gateway,
            inbound_of(gateway, kept),
            WebhookVerifier::for_kept,
        ) {
            Err(why) => Tried::Ended(ItemResult::Failed(format!("it is still refused: {why}"))),
            Ok(event) => match quarantine.release(id, event).await {
                Ok(()) => Tried::Ended(ItemResult::Done),
                Err(error) => gone_or(error, may_be_done),
            },
        }
    }

    /// Admits refused webhooks that are genuine by the settings of now.
    pub(super) async fn try_refused(&self, ids: &[u64], may_be_done: bool) -> Vec<Tried> {
        let gateway = match self.gateway_for_jobs() {
            Ok(gateway) => gateway,
            Err(error) => {
                let again = |_| Tried::Again(error.duplicate());
                return ids.iter().map(again).collect();
            }
        };
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            results.push(self.try_one_refused(&gateway, *id, may_be_done).await);
        }
        results
    }

    async fn try_one_refused(&self, gateway: &Gateway, id: u64, may_be_done: bool) -> Tried {
        let webhook = match self.stores().refused().get(id).await {
            Ok(webhook) => webhook,
            Err(error) => return gone_or(error, may_be_done),
        };
        match admitted(gateway, webhook.inbound, |verifier| verifier) {
            Err(_) => Tried::Ended(ItemResult::Skipped),
            Ok(event) => match self.stores().refused().admit(id, event).await {
                Ok(()) => Tried::Ended(ItemResult::Done),
                Err(error) => gone_or(error, may_be_done),
            },
        }
    }

    /// Keys, accounts and limits as they are now, read once for a page. Settings that somebody is
    /// writing are waited for.
    fn gateway_for_jobs(&self) -> Result<Gateway, QueueError> {
        self.gateway()
            .map_err(|status| QueueError::unavailable("reading the settings", status))
    }
}

/// The result for an error: nothing but the webhook itself can be missing.
fn gone_or(error: QueueError, may_be_done: bool) -> Tried {
    tried(Err(error), true, may_be_done)
}

fn quarantined(webhook: &Quarantined) -> v1::JobItem {
    v1::JobItem {
        id: webhook.id,
        reason: queue::cut(&webhook.reason),
        occurred_at: Some(grpc::timestamp(webhook.received_at)),
        ..v1::JobItem::default()
    }
}

fn refused(webhook: &RejectedWebhook) -> v1::JobItem {
    v1::JobItem {
        id: webhook.id,
        account: queue::cut(&webhook.account),
        reason: queue::cut(&webhook.reason),
        occurred_at: Some(grpc::timestamp(webhook.inbound.received_at)),
        ..v1::JobItem::default()
    }
}
