//! The role that a queue has for a dispatcher: routes are joined here, and deliveries taken.

use std::fmt;

use event_model::{EventId, FluentKey, Timestamp};
use futures::future::BoxFuture;

use crate::same_id::{Claim, Granted};
use crate::{Delivery, Look, QueueError, Route, Twin};

/// Where deliveries come from.
///
/// ```
/// use queue::{QueueError, Route, Source};
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
    /// Says that these routes are about to be joined, together: where their matches differ
    /// from those before, an event may move from one to another, and whoever serves them with
    /// the matches before leaves it to neither. Joining without is right for one route alone.
    fn announce<'a>(&'a self, routes: &'a [Route]) -> BoxFuture<'a, Result<(), QueueError>> {
        // Where nobody else serves them, nobody is to be told.
        let _ = routes;
        Box::pin(futures::future::ready(Ok(())))
    }

    /// Joins `route`, creating it at its start when it is first seen.
    /// Consumers of one name share its deliveries.
    fn subscribe(&self, route: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>>;

    /// Whether deliveries of the routes that are joined here can be fetched and settled
    /// now, tried out without taking or changing anything: what makes a dispatcher
    /// ready. Asked every few seconds.
    fn probe(&self) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Shows others how this process's routes stand:
    /// [`RouteState::working`](crate::RouteState::working).
    fn show_status(&self, look: Look);

    /// The event of this key that was reconciled, if one was, and the one of them that `route`
    /// has delivered.
    fn reconciled_duplicate<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
    ) -> BoxFuture<'a, Result<Option<Twin>, QueueError>>;

    /// The event of this key that `route` has delivered, if it has one: only routes that want one
    /// of them ask.
    fn same_id_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
    ) -> BoxFuture<'a, Result<Option<EventId>, QueueError>>;

    /// Asks whether `route` may attempt one of the events of this key now, and has the others
    /// wait until `until`.
    fn claim_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        now_until: (Timestamp, Timestamp),
    ) -> BoxFuture<'a, Result<Claim, QueueError>>;

    /// Says that the attempt that was granted this has failed: it keeps no other back.
    fn release_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        granted: Granted,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Notes, durably, that `route` has delivered this one: it stands for the others of its key.
    fn note_same_id_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Notes, durably, that `route` has delivered one of the events of this key.
    fn note_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>>;
}

const _: fn(&dyn Source) = |_| {};

/// One reader of a route.
pub trait Consumer: fmt::Debug + Send {
    /// Waits for at least one delivery and takes at most `permits`.
    ///
    /// Each delivery's attempt is recorded before it is handed out, so an
    /// attempt that kills the process is known after the restart.
    /// Cancel-safe: what a dropped call had taken comes back. What is due again and what
    /// is new take turns: neither waits for the other to end.
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>>;

    /// The same for one delivery, by which is asked whether a destination is back: a first
    /// attempt where one waits, since what failed before may be why it failed.
    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>>;
}

const _: fn(&dyn Consumer) = |_| {};
