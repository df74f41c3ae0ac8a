//! The role of a queue that a dispatcher uses: join routes, take deliveries.

use std::fmt;

use event_model::{EventId, FluentKey, Timestamp};
use futures::future::BoxFuture;

use crate::same_id::{Claim, GrantedClaim};
use crate::{Delivery, QueueError, ReconciledPair, Route, StatusSource};

/// Hands out deliveries of routes.
///
/// ```
/// use fluent_queue::{QueueError, Route, Source};
///
/// /// Takes what waits for a route, and gives it back untouched.
/// async fn peek(source: &dyn Source, route: Route) -> Result<Vec<String>, QueueError> {
///     let name = route.name.clone();
///     let mut consumer = source.subscribe(route).await?;
///     let deliveries = consumer.next(8).await?;
///     // A ticket that is dropped unsettled gives its delivery back.
///     Ok(deliveries.iter().map(|delivery| delivery.id(&name)).collect())
/// }
/// ```
pub trait Source: fmt::Debug + Send + Sync {
    /// Announces that these routes are about to be joined together. If their matches differ from
    /// the ones served before, an event may move from one route to another, and a process with
    /// the earlier matches leaves it to neither. A single route may be joined without this.
    fn announce<'a>(&'a self, routes: &'a [Route]) -> BoxFuture<'a, Result<(), QueueError>> {
        // Without other processes there is nobody to notify.
        let _ = routes;
        Box::pin(futures::future::ready(Ok(())))
    }

    /// Joins `route`, and creates it at its start if it is new. Consumers of one name share its
    /// deliveries.
    fn subscribe(&self, route: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>>;

    /// Checks, without taking or changing anything, that deliveries of the joined routes can be
    /// fetched and settled now, by which a dispatcher is ready. Called every few seconds.
    fn probe(&self) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Sets the source of what this process reports about its routes:
    /// [`RouteState::working`](crate::RouteState::working).
    fn show_status(&self, look: StatusSource);

    /// The event of this key that was reconciled, if one was, and the event of this key that
    /// `route` has delivered.
    fn reconciled_duplicate<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
    ) -> BoxFuture<'a, Result<Option<ReconciledPair>, QueueError>>;

    /// The event of this key that `route` has delivered, if any. Only asked for routes that want
    /// one event for each key.
    fn same_id_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
    ) -> BoxFuture<'a, Result<Option<EventId>, QueueError>>;

    /// Asks whether `route` may attempt an event of this key now; if so, the others of the key
    /// wait until the second of the two times.
    fn claim_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        now_until: (Timestamp, Timestamp),
    ) -> BoxFuture<'a, Result<Claim, QueueError>>;

    /// Releases the claim of an attempt that has failed, so that it keeps no other back.
    fn release_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        granted: GrantedClaim,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Records durably that `route` has delivered this event, which stands for the others of its
    /// key.
    fn note_same_id_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Records durably that `route` has delivered one of the events of this key.
    fn note_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>>;
}

const _: fn(&dyn Source) = |_| {};

/// A reader of a route's deliveries.
pub trait Consumer: fmt::Debug + Send {
    /// Waits for at least one delivery and takes at most `permits`.
    ///
    /// Each attempt is recorded before its delivery is handed out, so an attempt that crashes the
    /// process is known after the restart. Cancel-safe: what a dropped call had taken comes back.
    /// Deliveries that are due again and new ones take turns: neither waits for the other to end.
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>>;

    /// Waits for one delivery, to find out whether a destination is back: a first attempt if one
    /// waits, since a delivery that failed before may itself be the cause.
    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>>;
}

const _: fn(&dyn Consumer) = |_| {};
