//! Tells the queue that a delivery is alive, for as long as somebody works on it.

use std::time::Duration;

use queue::{QueueError, Ticket};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The signs of life of one delivery, three to a lease.
///
/// One delivery has one heartbeat from its handing out to its end: where every wait began
/// to count anew, several short ones would add up to more than a lease. The first sign is
/// due at once, because nobody knows for how long the delivery lay in the queue's hands.
#[derive(Debug)]
pub(crate) struct Heartbeat(Interval);

impl Heartbeat {
    pub(crate) fn new(lease: Duration) -> Self {
        let mut ticks = interval(lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(ticks)
    }

    /// Runs `work` while telling the queue that the delivery is alive.
    ///
    /// `None` if the queue gave the delivery to somebody else: then the result
    /// would not count, and `work` is dropped.
    pub(crate) async fn during<T>(
        &mut self,
        ticket: &mut Ticket,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                // Work that is done at once needs no sign.
                biased;
                done = &mut work => return Some(done),
                _ = self.0.tick() => {
                    if let Err(QueueError::LeaseLost) = ticket.progress().await {
                        return None;
                    }
                }
            }
        }
    }
}
