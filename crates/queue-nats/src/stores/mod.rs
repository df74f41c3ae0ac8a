//! The stores of a cluster, each in a stream of its own.

mod accepted;
mod attempts;
mod facts;
pub(crate) mod forgotten;
pub(crate) mod health;
pub(crate) mod history;
mod indexing;
pub(crate) mod letters;
pub(crate) mod quarantined;
mod rejected;
mod replay;
pub(crate) mod routes;
mod scan;

use std::sync::Arc;

use event_model::{Event, EventId};
use futures::future::BoxFuture;
use queue::{
    DeadLetters, FactAccess, FactStore, History, Pause, Position, Quarantine, QueueError,
    RejectedStore, ReplayOutcome, RouteState, Stores, StoresHealth,
};

use crate::failure::failed;
use crate::names::{ASK_AGAIN, WORKING};
use crate::shared::Shared;
use crate::stores::replay::ReplayMode;
pub(crate) use crate::stores::scan::{Scan, Stored};

/// The stores of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct JetStreamStores(pub(crate) Arc<Shared>);

impl FactAccess for JetStreamStores {
    fn facts(&self) -> &dyn FactStore {
        self
    }
}

impl Stores for JetStreamStores {
    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn quarantine(&self) -> &dyn Quarantine {
        self
    }

    fn history(&self) -> &dyn History {
        self
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        let waiting_limit = self.0.monitor.waiting_limit();
        Box::pin(health::health(&self.0.link, &self.0.servers, waiting_limit))
    }

    fn publish_if_new(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        Box::pin(async move {
            let receipt = self.0.publish_unless_present(&event).await?;
            Ok(receipt.duplicate)
        })
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        Box::pin(routes::states(&self.0))
    }

    fn recent_routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        Box::pin(async move { routes::recent_states(&self.0).await })
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(routes::forget(&self.0, route))
    }

    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            routes::set_paused(&self.0, route, pause).await?;
            // The part of a pause that the servers can't store.
            let value = pause
                .and_then(|pause| serde_json::to_vec(pause).ok())
                .unwrap_or_default();
            self.set(&routes::pause_mark(route), value.into()).await
        })
    }

    fn retry_now<'a>(
        &'a self,
        route: &'a str,
        event: EventId,
    ) -> BoxFuture<'a, Result<u64, QueueError>> {
        Box::pin(routes::retry_now(&self.0, route, event))
    }

    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            const ASKING: &str = "asking dispatchers to ask a destination";
            let wish = format!("{ASK_AGAIN}{route}");
            let link = &self.0.link;
            link.wait()
                .await
                .map_err(|error| QueueError::unavailable(ASKING, error))?;
            link.client
                .publish(WORKING, wish.into())
                .await
                .map_err(failed(ASKING))?;
            link.client.flush().await.map_err(failed(ASKING))
        })
    }

    fn refused(&self) -> &dyn RejectedStore {
        self
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        Box::pin(self.replay_all(route, events, again, ReplayMode::Fresh))
    }

    fn preview_replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        Box::pin(self.replay_all(route, events, again, ReplayMode::Preview))
    }

    fn number_replay<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<u32, QueueError>> {
        Box::pin(replay::take_number(&self.0, route))
    }

    fn replay_as<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
        number: u32,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        Box::pin(self.replay_all(route, events, again, ReplayMode::Reserved(number)))
    }
}
