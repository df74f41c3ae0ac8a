//! Settling a delivery after its attempt.

use std::time::Duration;

use dispatch::CancellationToken;
use queue::{QueueError, SettleError, Settlement, Ticket};
use telemetry::{ErrorChain, metrics};
use tokio::time::sleep;

/// Number of tries to settle, and the pause between. After that the delivery goes back to the
/// queue: the event may be delivered twice, and is never lost.
const SETTLE_TRIES: u32 = 5;
const SETTLE_AGAIN: Duration = Duration::from_millis(300);

/// Longest time for settling once the process has to stop. A healthy queue settles in less, and
/// giving back what is not settled takes time as well.
const SETTLE_AT_HARD_STOP: Duration = Duration::from_millis(200);

/// Settles, and tries again for a while. If the process has to stop, the delivery is given back
/// instead: a queue that does not answer must not make it look like a crash.
pub(crate) async fn settle(
    ticket: Ticket,
    settlement: Settlement,
    route: &str,
    hard_stop: &CancellationToken,
) {
    let stopped = async {
        hard_stop.cancelled().await;
        sleep(SETTLE_AT_HARD_STOP).await;
    };
    tokio::select! {
        biased;
        () = settle_unhurried(ticket, settlement, route) => {}
        () = stopped => {
            metrics::UNSETTLED.add(1, [route.to_owned().into()]);
            tracing::warn!(route, "not settled before the process stops: the delivery is given back");
        }
    }
}

async fn settle_unhurried(mut ticket: Ticket, settlement: Settlement, route: &str) {
    for _ in 0..SETTLE_TRIES {
        match ticket.settle(settlement.clone()).await {
            Ok(()) => return,
            Err(SettleError {
                source: QueueError::LeaseLost,
                ..
            }) => {
                metrics::UNSETTLED.add(1, [route.to_owned().into()]);
                return tracing::warn!(route, "settled too late: somebody else has the delivery");
            }
            Err(unsettled) => {
                tracing::error!(route, error = %ErrorChain(&unsettled), "delivery not settled");
                ticket = unsettled.ticket;
                sleep(SETTLE_AGAIN).await;
            }
        }
    }
    metrics::UNSETTLED.add(1, [route.to_owned().into()]);
}
