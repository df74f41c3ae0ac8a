//! Unrouted events become dead letters and are counted, so that a forgotten route is noticed
//! before customers notice it.

use std::sync::Arc;
use std::time::Duration;

use dispatch::CancellationToken;
use event_model::Clock;
use process::Shutdown;
use queue::{
    Attempt, Consumer, DeadReason, Delivery, Disposition, Outcome, QueueError, Route, Settlement,
    StartPosition, UNROUTED,
};
use settings::Routes;
use telemetry::{ErrorChain, metrics};
use tokio::time::sleep;

use crate::attempt::settle;
use crate::everything_else;

/// Events that are settled together.
const BATCH: usize = 64;

/// Pause after the queue failed to hand out deliveries.
const REST: Duration = Duration::from_secs(1);

/// Returns the reserved route: events that none of these routes matches.
pub(crate) fn route(routes: &Routes, lease: Duration) -> Route {
    Route {
        name: UNROUTED.to_owned(),
        filter: everything_else(routes),
        start: StartPosition::Now,
        lease,
    }
}

pub(crate) async fn run(
    mut consumer: Box<dyn Consumer>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) {
    let draining = shutdown.draining();
    let hard_stop = shutdown.hard_stop();
    while let Some(next) = draining.run_until_cancelled(consumer.next(BATCH)).await {
        match next {
            Ok(deliveries) => keep(deliveries, &*clock, &hard_stop).await,
            Err(QueueError::Closed | QueueError::Failed(_)) => return,
            Err(error) => {
                tracing::error!(route = UNROUTED, error = %ErrorChain(&error), "no deliveries");
                sleep(REST).await;
            }
        }
    }
}

async fn keep(deliveries: Vec<Delivery>, clock: &dyn Clock, hard_stop: &CancellationToken) {
    let settled = deliveries.into_iter().map(|delivery| {
        tracing::warn!(event.id = %delivery.event.id(), event.name = delivery.event.name(), "no route matches: kept as unrouted");
        let attempt = Attempt {
            started_at: clock.now(),
            took: Duration::ZERO,
            outcome: Outcome::Unrouted,
            status: None,
            detail: None,
        };
        metrics::DEAD_LETTERS.add(1, [UNROUTED.into(), DeadReason::Unrouted.as_str().into()]);
        let settlement = Settlement { disposition: Disposition::Dead(DeadReason::Unrouted), asked: false, attempt };
        settle(delivery.ticket, settlement, UNROUTED, hard_stop)
    });
    futures::future::join_all(settled).await;
}
