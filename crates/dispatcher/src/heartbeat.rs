//! The heartbeat: extends a delivery's lease while its attempt waits or runs.

use std::time::Duration;

use queue::{QueueError, Ticket};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

/// Heartbeat of one delivery, three times in a lease.
///
/// A delivery has one heartbeat from being handed out to its end: if every wait began its own
/// count, several short ones would add up to more than a lease. The first beat comes early: a
/// delivery may have been in the queue's hands for a quarter of its lease. Most attempts are over
/// before that, and cost no message.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    ticks: Interval,
    longest_silence: Duration,
}

impl Heartbeat {
    pub(crate) fn new(lease: Duration) -> Self {
        let longest_silence = lease / 3;
        let mut ticks = interval_at(Instant::now() + lease / 12, longest_silence);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            longest_silence,
        }
    }

    /// Runs `work` while extending the lease.
    ///
    /// `None` if the queue gave the delivery to another process: then the result would not count,
    /// and `work` is dropped.
    pub(crate) async fn during<T>(
        &mut self,
        ticket: &mut Ticket,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                // Work that is done at once needs no beat.
                biased;
                done = &mut work => return Some(done),
                _ = self.ticks.tick() => {
                    if let Err(QueueError::LeaseLost) = ticket.progress().await {
                        return None;
                    }
                }
            }
        }
    }

    /// Has the queue record something about the delivery. The lease can't be extended meanwhile:
    /// so it is extended before, and recording has until the next beat is due.
    pub(crate) async fn record(
        &mut self,
        ticket: &mut Ticket,
        record: impl AsyncFnOnce(&mut Ticket) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        ticket.progress().await?;
        self.ticks.reset();
        match timeout(self.longest_silence, record(ticket)).await {
            Ok(recorded) => recorded,
            Err(elapsed) => Err(QueueError::unavailable(
                "recording whether an attempt runs alone",
                elapsed,
            )),
        }
    }
}
