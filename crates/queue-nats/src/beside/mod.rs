//! What is kept beside the events, for people: each in a stream of its own.

mod attempts;
pub(crate) mod health;
pub(crate) mod history;
mod indexing;
pub(crate) mod letters;
mod marks;
pub(crate) mod quarantined;
mod refused;
mod replay;
pub(crate) mod routes;
mod scan;

use std::sync::Arc;

use event_model::Event;
use futures::future::BoxFuture;
use queue::{
    DeadLetters, History, Marks, Quarantine, QueueError, RefusedHold, Replayed, RouteState, Stores,
    StoresHealth,
};

use crate::shared::Shared;

/// The stores of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Beside(pub(crate) Arc<Shared>);

impl Stores for Beside {
    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn quarantine(&self) -> &dyn Quarantine {
        self
    }

    fn history(&self) -> &dyn History {
        self
    }

    fn marks(&self) -> &dyn Marks {
        self
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        Box::pin(health::health(&self.0.link, &self.0.servers))
    }

    fn admit(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        Box::pin(async move {
            let epoch = self.0.standing.epoch().await?;
            Ok(self.0.publisher.publish_one(&event, &epoch).await?.duplicate)
        })
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        Box::pin(routes::states(&self.0))
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(routes::forget(&self.0, route))
    }

    fn set_paused<'a>(&'a self, route: &'a str, paused: bool) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(routes::set_paused(&self.0, route, paused))
    }

    fn refused(&self) -> &dyn RefusedHold {
        self
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(u64, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Replayed>, QueueError>> {
        Box::pin(self.replay_all(route, events, again))
    }
}
