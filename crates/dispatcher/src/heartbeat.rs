//! Tells the queue that a delivery is alive, for as long as somebody works on it.

use std::time::Duration;

use queue::{QueueError, Ticket};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

/// The signs of life of one delivery, three to a lease.
///
/// One delivery has one heartbeat from its handing out to its end: where every wait began
/// to count anew, several short ones would add up to more than a lease. The first sign is
/// due soon: a delivery may have lain in the queue's hands for a quarter of its lease, and
/// most attempts are over before a sign is worth its message.
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
        Self { ticks, longest_silence }
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
                _ = self.ticks.tick() => {
                    if let Err(QueueError::LeaseLost) = ticket.progress().await {
                        return None;
                    }
                }
            }
        }
    }

    /// Has the queue record something of the delivery, which can't be told meanwhile that it
    /// is alive: so it is told before, and recording has until the next sign is due.
    pub(crate) async fn record(
        &mut self,
        ticket: &mut Ticket,
        record: impl AsyncFnOnce(&mut Ticket) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        ticket.progress().await?;
        self.ticks.reset();
        match timeout(self.longest_silence, record(ticket)).await {
            Ok(recorded) => recorded,
            Err(elapsed) => Err(QueueError::unavailable("recording whether an attempt runs alone", elapsed)),
        }
    }
}
