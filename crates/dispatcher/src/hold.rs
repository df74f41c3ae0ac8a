use queue::{QueueError, Ticket};
use tokio::time::{MissedTickBehavior, interval};

use crate::LEASE;

/// Runs `work` while telling the queue that the delivery is alive.
///
/// `None` if the queue gave the delivery to somebody else: then the result
/// would not count, and `work` is dropped.
pub(crate) async fn hold<T>(ticket: &mut Ticket, work: impl Future<Output = T>) -> Option<T> {
    let mut ticks = interval(LEASE / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            // Work that is done at once needs no timer.
            biased;
            done = &mut work => return Some(done),
            _ = ticks.tick() => {
                if let Err(QueueError::LeaseLost) = ticket.progress().await {
                    return None;
                }
            }
        }
    }
}
