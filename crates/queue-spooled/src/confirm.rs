//! Confirmation: rows are removed once the queue still has them when it is asked again, and sent
//! again if it has lost them. No row is removed by the clock alone.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{AcknowledgedRow, UnconfirmedRow};
use event_model::{Clock, Event, Timestamp};
use futures::StreamExt;
use queue::{Horizon, Presence, QueueError, REMOVED_AFTER, Receipt, Upstream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::store::File;

/// Number of rows examined together.
const CHUNK: usize = 512;

/// Number of rows whose presence is asked for at once, since the queue has other work.
const AT_ONCE: usize = 16;

/// Shortest and longest interval between two checks for rows that are due.
const OFTEN: Duration = Duration::from_millis(500);
const SELDOM: Duration = Duration::from_secs(10);

/// Parts that confirmation needs.
#[derive(Clone, Debug)]
pub(crate) struct PresenceCheck {
    pub(crate) spool: Arc<File>,
    pub(crate) queue: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keep: Duration,
}

/// Result of a confirmation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PresenceCounts {
    /// Number of events that the queue still has, and that were removed here.
    pub(crate) held: u64,
    /// Number of events that the queue had lost, and that were sent again.
    pub(crate) refed: u64,
}

pub(crate) async fn run(confirming: PresenceCheck, closing: CancellationToken) {
    let every = (confirming.keep / 10).clamp(OFTEN, SELDOM);
    let confirm = async {
        loop {
            sleep(every).await;
            match confirming.confirm_due().await {
                Ok(confirmed) if confirmed.refed > 0 => {
                    tracing::error!(
                        refed = confirmed.refed,
                        "the queue had lost events that it acknowledged: given again"
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "what the queue acknowledged can't be read back now")
                }
            }
        }
    };
    closing.run_until_cancelled(confirm).await;
}

impl PresenceCheck {
    async fn confirm_due(&self) -> Result<PresenceCounts, QueueError> {
        let horizon = self.queue.horizon().await?;
        // A queue that was recreated, or ends before the positions that it acknowledged, has
        // forgotten events: then no row waits for its time. The second horizon is read after the
        // acknowledged rows, since events stored in between would look forgotten otherwise.
        let (highest, has_others) = self.spool.acknowledged_in(horizon.epoch.clone()).await?;
        let now = self.queue.horizon().await?;
        let has_forgotten = has_others || (now.epoch == horizon.epoch && highest > now.last);
        let keep = if has_forgotten {
            Duration::ZERO
        } else {
            self.keep
        };
        let before = self
            .clock
            .now()
            .saturating_sub(keep)
            .unwrap_or(Timestamp::MIN);
        self.confirm(before, &horizon).await
    }

    /// Confirms every event that was acknowledged before `before`.
    pub(crate) async fn confirm(
        &self,
        before: Timestamp,
        horizon: &Horizon,
    ) -> Result<PresenceCounts, QueueError> {
        let mut after = (i64::MIN, 0);
        let mut confirmed = PresenceCounts::default();
        let mut failed = None;
        loop {
            let rows = self.spool.unconfirmed(before, after, CHUNK).await?;
            let Some(last) = rows.last() else { break };
            after = last.place;
            // Rows that can't be confirmed now must not keep the others from being removed.
            if let Err(error) = self.confirm_some(rows, horizon, &mut confirmed).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(confirmed), Err)
    }

    async fn confirm_some(
        &self,
        rows: Vec<UnconfirmedRow>,
        horizon: &Horizon,
        confirmed: &mut PresenceCounts,
    ) -> Result<(), QueueError> {
        let (held, lost) = self.read_back(rows, horizon).await?;
        confirmed.held += held.len() as u64;
        self.spool.remove(held).await?;
        for row in lost {
            confirmed.refed += u64::from(self.give_again(row).await?);
        }
        Ok(())
    }

    async fn read_back(
        &self,
        rows: Vec<UnconfirmedRow>,
        horizon: &Horizon,
    ) -> Result<(Vec<i64>, Vec<i64>), QueueError> {
        let mut held = Vec::new();
        let mut lost = Vec::new();
        let mut answers = futures::stream::iter(rows.into_iter().map(|row| async move {
            let same_life = row.at.epoch == horizon.epoch;
            let is_safe = same_life && self.check_safe(&row).await?;
            Ok::<_, QueueError>((row.at.row, is_safe))
        }))
        .buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            let (row, is_held) = answer?;
            if is_held {
                held.push(row)
            } else {
                lost.push(row)
            }
        }
        lost.sort_unstable();
        Ok((held, lost))
    }

    /// Whether the queue has the event of `row`, or has had it for so long that every route may
    /// have settled it.
    async fn check_safe(&self, row: &UnconfirmedRow) -> Result<bool, QueueError> {
        Ok(match self.queue.presence(row.at.position, row.id).await? {
            Presence::Present => true,
            Presence::Missing => false,
            Presence::Removed => row
                .acknowledged_at
                .saturating_add(REMOVED_AFTER)
                .is_ok_and(|at| at <= self.clock.now()),
        })
    }

    /// Sends an event again; returns whether the queue did not have it.
    async fn give_again(&self, row: i64) -> Result<bool, QueueError> {
        let Some(event) = self.spool.event(row).await? else {
            tracing::error!(
                row,
                "an event that the queue has lost is damaged in the spool too"
            );
            self.spool.mark_unsendable(row).await?;
            return Ok(false);
        };
        let given = match self.publish_lost(event.republished()).await {
            // The event was accepted before, so the servers' settings have changed since.
            Err(QueueError::TooLarge) => {
                tracing::error!(
                    row,
                    "an event that the queue has lost is larger than it takes now: set aside in the spool"
                );
                self.spool.mark_unsendable(row).await?;
                return Ok(false);
            }
            given => given?,
        };
        let Receipt {
            duplicate,
            epoch,
            position,
        } = given;
        self.spool.acknowledged(vec![AcknowledgedRow {
            row,
            epoch,
            position,
        }]);
        // A duplicate that is present is another gateway's copy of the same event.
        Ok(!duplicate)
    }

    /// Publishes an event that the queue has lost, even if the queue still knows its id.
    async fn publish_lost(&self, event: Event) -> Result<Receipt, QueueError> {
        let receipt = self.queue.publish(event.clone()).await?;
        let is_there = !receipt.duplicate
            || self.queue.presence(receipt.position, event.id()).await? == Presence::Present;
        if is_there {
            Ok(receipt)
        } else {
            self.queue.republish(event).await
        }
    }
}
