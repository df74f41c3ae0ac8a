//! Stores that behave as the real ones do, but for one event that can't be replayed, or for jobs
//! that have little room.

use std::sync::Arc;

use event_model::{Bytes, Event, EventId, Timestamp};
use futures::future::BoxFuture;
use queue::{
    DeadLetters, Fact, FactAccess, FactStore, History, Pause, Position, Quarantine, QueueError,
    RejectedStore, ReplayOutcome, RouteState, Stores, StoresHealth,
};

#[derive(Debug)]
pub(crate) struct OddStores {
    pub(crate) stores: Arc<dyn Stores>,
    /// An event that no replay takes, and whether trying again may help.
    pub(crate) stubborn: Option<(EventId, bool)>,
    /// Most bytes of all facts of jobs together.
    pub(crate) room: usize,
}

impl OddStores {
    async fn ensure_room(&self, name: &str, value: &Bytes) -> Result<(), QueueError> {
        let mut bytes = value.len();
        for word in ["job", "job-part", "job-open"] {
            let facts = self.stores.facts().entries(word).await?;
            let others = facts.iter().filter(|fact| fact.name != name);
            bytes += others.map(|fact| fact.value.len()).sum::<usize>();
        }
        match bytes > self.room && name.starts_with("job") && !value.is_empty() {
            true => Err(QueueError::Full),
            false => Ok(()),
        }
    }
}

impl FactAccess for OddStores {
    fn facts(&self) -> &dyn FactStore {
        self
    }
}

impl FactStore for OddStores {
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, QueueError>> {
        self.stores.facts().get(name)
    }

    fn set<'a>(&'a self, name: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            self.ensure_room(name, &value).await?;
            self.stores.facts().set(name, value).await
        })
    }

    fn get_versioned<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<(Bytes, u64)>, QueueError>> {
        self.stores.facts().get_versioned(name)
    }

    fn compare_and_set<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        version: u64,
    ) -> BoxFuture<'a, Result<bool, QueueError>> {
        Box::pin(async move {
            self.ensure_room(name, &value).await?;
            self.stores
                .facts()
                .compare_and_set(name, value, version)
                .await
        })
    }

    fn entries<'a>(&'a self, word: &'a str) -> BoxFuture<'a, Result<Vec<Fact>, QueueError>> {
        self.stores.facts().entries(word)
    }

    fn now(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        self.stores.facts().now()
    }

    fn unset<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.stores.facts().unset(name)
    }
}

impl Stores for OddStores {
    fn history(&self) -> &dyn History {
        self.stores.history()
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        self.stores.dead_letters()
    }

    fn quarantine(&self) -> &dyn Quarantine {
        self.stores.quarantine()
    }

    fn refused(&self) -> &dyn RejectedStore {
        self.stores.refused()
    }

    fn publish_if_new(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        self.stores.publish_if_new(event)
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        self.stores.health()
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.stores.routes()
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.stores.forget(route)
    }

    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        self.stores.set_paused(route, pause)
    }

    fn retry_now<'a>(
        &'a self,
        route: &'a str,
        event: EventId,
    ) -> BoxFuture<'a, Result<u64, QueueError>> {
        self.stores.retry_now(route, event)
    }

    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.stores.close_breakers(route)
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.stores.replay(route, events, again)
    }

    fn preview_replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.stores.preview_replay(route, events, again)
    }

    fn number_replay<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<u32, QueueError>> {
        self.stores.number_replay(route)
    }

    fn replay_as<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
        number: u32,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        Box::pin(async move {
            if let Some((stubborn, may_pass)) = self.stubborn
                && events.iter().any(|(_, event)| event.id() == stubborn)
            {
                return Err(match may_pass {
                    true => QueueError::unavailable("replaying", "a stubborn event"),
                    false => QueueError::TooLarge,
                });
            }
            self.stores.replay_as(route, events, again, number).await
        })
    }
}
