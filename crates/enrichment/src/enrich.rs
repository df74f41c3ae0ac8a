//! Enrichment by a query about the event's entity.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use dispatch::{BoxError, DispatchError, Event, InvalidSetting, OpenContext};
use dispatch_kit::{Template, View};
use fluent_api::{Accounts, Query, VariableValue};
use settings::EnrichSettings;

use crate::Enriched;
use crate::failure::{ACTION, NotDelivered, client, failed};
use crate::freshness::{Freshness, FreshnessCheck};
use crate::response_cache::ResponseCache;

#[derive(Debug)]
pub(crate) struct Enricher {
    accounts: Accounts,
    query: Query,
    variables: Vec<(String, Template)>,
    max_wait: Duration,
    freshness: Option<FreshnessCheck>,
    cache: ResponseCache,
}

impl Enricher {
    pub(crate) fn open(
        settings: &EnrichSettings,
        accounts: &Accounts,
        cx: &OpenContext,
    ) -> Result<Self, BoxError> {
        let path = cx.resolve(&settings.query);
        let wrong = |error: &dyn std::fmt::Display| {
            let message = format!("enrich: query {}: {error}", path.display());
            InvalidSetting::new(path.display().to_string(), message)
        };
        let text = fs::read_to_string(&path).map_err(|error| wrong(&error))?;
        let query =
            Query::parse(text.trim_start_matches('\u{feff}')).map_err(|error| wrong(&error))?;
        let given: BTreeSet<&str> = settings.variables.keys().map(String::as_str).collect();
        query.check(&given).map_err(|error| wrong(&error))?;
        let template = |(name, text): (&String, &String)| {
            let template = Template::parse(text.clone(), "text/plain");
            let template = template.map_err(|error| {
                InvalidSetting::new(text, format!("enrich: variable {name}: {error}"))
            })?;
            Ok::<_, BoxError>((name.clone(), template))
        };
        Ok(Self {
            accounts: accounts.clone(),
            query,
            variables: settings
                .variables
                .iter()
                .map(template)
                .collect::<Result<_, _>>()?,
            max_wait: settings.max_wait,
            freshness: settings.freshness.as_ref().map(FreshnessCheck::new),
            cache: ResponseCache::new(),
        })
    }

    pub(crate) async fn ask(
        &self,
        event: &Event,
        waited: Duration,
    ) -> Result<Enriched, DispatchError> {
        let client = client(&self.accounts, event)?;
        let variables = self.variables(event)?;
        // With account and environment: a tenant must not see what another was answered.
        let key = format!(
            "{}/{}/{}",
            event.environment(),
            event.account(),
            serde_json::to_string(&variables).unwrap_or_default()
        );
        let asking = self
            .cache
            .get_or_fetch(key.clone(), event.received_at(), || {
                client.graphql(&self.query, &variables)
            });
        let entity = asking
            .await
            .map_err(|error| failed(&error, waited, self.max_wait))?;
        let Some(freshness) = &self.freshness else {
            return Ok(Enriched::Deliver(Some(entity)));
        };
        match freshness.freshness(
            &entity.value(),
            event.fields().entity_status.as_deref(),
            event.received_at(),
        ) {
            Freshness::Unknown => Err(DispatchError::permanent(ACTION, NotDelivered::Unguarded)),
            Freshness::PerhapsOlder if waited < self.max_wait => {
                self.cache.forget(&key).await;
                Err(DispatchError::transient(ACTION, NotDelivered::Older))
            }
            // Only an event whose entity is known to have moved on is skipped.
            Freshness::MovedOn if freshness.skips() => Ok(Enriched::Skip),
            _ => Ok(Enriched::Deliver(Some(entity))),
        }
    }

    fn variables(&self, event: &Event) -> Result<BTreeMap<String, VariableValue>, DispatchError> {
        if self.variables.is_empty() {
            return Ok(BTreeMap::new());
        }
        let view = View::of(event)?;
        let filled = self.variables.iter().map(|(name, template)| {
            Ok((name.clone(), self.query.value(name, template.fill(&view)?)))
        });
        filled.collect()
    }
}
