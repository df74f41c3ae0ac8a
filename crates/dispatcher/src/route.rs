//! The loop of one route: takes a permit, then a delivery for it.

use std::sync::Arc;
use std::time::Duration;

use event_model::Clock;
use process::Shutdown;
use queue::{Delivery, QueueError};
use telemetry::ErrorChain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::attempt::AttemptRunner;
use crate::breaker::{Breaker, BreakerAttempt, FetchQuota};
use crate::capacity::Capacity;
use crate::isolation::Isolation;
use crate::note_retry::NoteRetry;
use crate::rate_limit::RateLimiter;
use crate::route_status::{RegisteredRoute, StatusRegistry};
use crate::{OpenRoute, OpenedRoutes};

/// Pause after the queue failed to hand out deliveries.
const REST: Duration = Duration::from_secs(1);

/// Delivers until draining begins or the queue closes, then waits for running attempts and closes
/// the dispatcher.
pub(crate) async fn run(
    route: OpenRoute,
    isolation: Isolation,
    registry: StatusRegistry,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) {
    let OpenRoute {
        settings,
        opened,
        dedup,
        same_id,
        mut consumer,
        lease,
    } = route;
    let OpenedRoutes {
        dispatcher,
        enrichment,
        then,
    } = opened;
    let concurrency = settings.concurrency;
    let free = Arc::new(Semaphore::new(concurrency));
    let mut capacity = Capacity::new(dispatcher.capacity(), concurrency);
    let name = settings.name.clone();
    let mut rate_limiter = RateLimiter::new(settings.rate);
    let breaker = Arc::new(Breaker::new(&name, settings.breaker));
    registry.register(RegisteredRoute {
        route: name.clone(),
        breaker: Arc::clone(&breaker),
        throttled: rate_limiter.throttled(),
    });
    let attempting = Arc::new(AttemptRunner {
        settings,
        dispatcher: dispatcher.clone(),
        enrichment,
        then: then.clone(),
        dedup,
        same_id,
        notes: NoteRetry::new(shutdown.hard_stop()),
        isolation,
        breaker,
        clock,
        lease,
        hard_stop: shutdown.hard_stop(),
    });
    let draining = shutdown.draining();
    loop {
        let next = async {
            let mut places = take(&free).await;
            capacity.bound(&free, &mut places).await;
            places.truncate(rate_limiter.permits(places.len()).await);
            let quota = attempting.breaker.ready().await;
            // What is handed out while a suspect runs alone could not begin.
            attempting.isolation.opened().await;
            attempting.notes.written().await;
            let next = match quota {
                FetchQuota::AsEver => consumer.next(places.len()),
                FetchQuota::ForAProbe => {
                    places.truncate(1);
                    consumer.next_to_probe()
                }
            };
            let deliveries = tokio::select! {
                deliveries = next => deliveries,
                // More was requested than there is capacity for: permits are given back, and the
                // loop asks again.
                () = capacity.exceeded(&free) => Ok(Vec::new()),
                () = attempting.isolation.closed() => Ok(Vec::new()),
                () = attempting.notes.blocked() => Ok(Vec::new()),
            };
            (deliveries, places)
        };
        let Some((deliveries, places)) = draining.run_until_cancelled(next).await else {
            break;
        };
        match deliveries {
            Ok(deliveries) => {
                rate_limiter.consume(deliveries.len());
                start(&attempting, deliveries, places, &shutdown);
            }
            Err(QueueError::Closed | QueueError::Failed(_)) => break,
            Err(error) => {
                tracing::error!(route = name, error = %ErrorChain(&error), "no deliveries");
                sleep(REST).await;
            }
        }
    }
    // Deliveries that were fetched and not begun go to other processes, however long running
    // attempts take.
    drop(consumer);
    // With every permit back, nothing is in flight.
    let all = u32::try_from(concurrency).unwrap_or(u32::MAX);
    let _ = free.acquire_many(all).await;
    dispatcher.close().await;
    then.close().await;
}

/// Waits for one permit, and takes all others that are free.
async fn take(places: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let mut taken = Vec::new();
    // The semaphore is never closed.
    taken.extend(Arc::clone(places).acquire_owned().await.ok());
    while let Ok(place) = Arc::clone(places).try_acquire_owned() {
        taken.push(place);
    }
    taken
}

fn start(
    attempting: &Arc<AttemptRunner>,
    deliveries: Vec<Delivery>,
    places: Vec<OwnedSemaphorePermit>,
    shutdown: &Shutdown,
) {
    for (delivery, place) in deliveries.into_iter().zip(places) {
        let begun = BreakerAttempt::on(&attempting.breaker, delivery.event.id());
        let attempting = Arc::clone(attempting);
        shutdown.spawn(async move {
            attempting.run(delivery, begun).await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests;
