//! What a route asks Fluent's API about an event before it delivers it: the entity that a
//! thin webhook only names, and whether Fluent knows it at all.
//!
//! ```text
//! event ─▶ entity-check: does Fluent know the entity? ─▶ enrich: variables ─▶ cache? ─▶ query ─▶ freshness
//!              │ no                                                 not there │ older │ moved on
//!              ▼ a dead letter                                   again, for max-wait  └▶ deliver │ skip
//! ```
//!
//! Start reading at [`Enrichment`].

mod enrich;
mod entity_check;
mod failure;
mod freshness;
mod response_cache;

use std::time::Duration;

use dispatch::{BoxError, DispatchError, Event, ExactJson, OpenContext};
use fluent_api::Accounts;
use settings::{EnrichSettings, EntityCheckSource};

use crate::enrich::Enricher;
use crate::entity_check::EntityCheck;

/// The requests about the events of one route.
#[derive(Debug)]
pub struct Enrichment {
    entity_check: Option<EntityCheck>,
    enricher: Option<Enricher>,
}

/// Result of enriching an event.
#[derive(Clone, Debug)]
pub enum Enriched {
    /// To be delivered, with this answer if the route has a query.
    Deliver(Option<ExactJson>),
    /// To be skipped: its entity has moved on, and the route wants no such event.
    Skip,
}

impl Enrichment {
    /// Reads and checks a route's query. `None` if the route wants nothing of Fluent; an error if
    /// no account has an API in the settings.
    pub fn open(
        enrich: Option<&EnrichSettings>,
        entity_check: Option<EntityCheckSource>,
        cx: &OpenContext,
    ) -> Result<Option<Self>, BoxError> {
        if enrich.is_none() && entity_check.is_none() {
            return Ok(None);
        }
        let accounts = cx
            .extension::<Accounts>()
            .filter(|accounts| !accounts.is_empty());
        let accounts =
            accounts.ok_or("it asks Fluent's API: expected `api` in one of the accounts")?;
        Ok(Some(Self {
            entity_check: entity_check
                .map(|EntityCheckSource::Fluent| EntityCheck::new(accounts))
                .transpose()?,
            enricher: enrich
                .map(|enrich| Enricher::open(enrich, accounts, cx))
                .transpose()?,
        }))
    }

    /// Enriches one event; `waited` is the time since its first attempt. A passing failure is
    /// transient, and tried again by the route's policy; a rate limit says how long to wait.
    pub async fn enrich(&self, event: &Event, waited: Duration) -> Result<Enriched, DispatchError> {
        if let Some(check) = &self.entity_check {
            check.confirm(event, waited).await?;
        }
        match &self.enricher {
            Some(enricher) => enricher.ask(event, waited).await,
            None => Ok(Enriched::Deliver(None)),
        }
    }
}
