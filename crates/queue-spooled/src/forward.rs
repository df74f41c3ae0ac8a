//! Forwarding events from the spool to the queue, in order. Each lane has one group on its way at
//! a time; all events of an entity take the same lane, so none overtakes another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::store::{AcknowledgedRow, File, Waiter};
use event_model::Event;
use queue::{OnForwarded, Presence, QueueError, Receipt, Upstream};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Number of lanes, which is the number of groups on their way at once: while one waits for its
/// answer, the others leave. It divides the number of buckets.
pub(crate) const LANES: u8 = 4;

/// Largest number of events in a lane's memory; further ones are read from the file when their
/// turn comes.
const WAITING: usize = 1024;

/// Largest number of bytes of bodies in a lane's memory.
const WAITING_BYTES: usize = 8 << 20;

/// Largest number of events sent together.
const GROUP: usize = 256;

/// First and longest delay after the queue did not accept something.
const AGAIN: Duration = Duration::from_millis(50);
pub(crate) const AGAIN_MAX: Duration = Duration::from_secs(2);

/// The callback for events whose sender did not wait for the queue, once it is set.
pub(crate) type ForwardedHook = OnceLock<OnForwarded>;

/// An event in a lane, with the sender that waits for its receipt.
pub(crate) struct QueuedRow {
    row: i64,
    event: Event,
    waiter: Option<Waiter>,
}

/// The entrances of all lanes, and the state of each.
#[derive(Debug)]
pub(crate) struct Lanes {
    entrances: Vec<mpsc::Sender<QueuedRow>>,
    /// For each lane, whether the file has further events than memory.
    are_behind: Vec<AtomicBool>,
    more: Vec<Notify>,
    /// For each lane, whether an answer of the queue is late, and none has come since. A sender
    /// that comes now would wait for the same answer.
    are_overdue: Vec<AtomicBool>,
    /// For each lane, the bytes of bodies in memory.
    bytes: Vec<AtomicUsize>,
}

impl Lanes {
    pub(crate) fn new() -> (Self, Vec<mpsc::Receiver<QueuedRow>>) {
        let (entrances, exits) = (0..LANES).map(|_| mpsc::channel(WAITING)).unzip();
        // The last process may have left events in the file.
        let are_behind = (0..LANES).map(|_| AtomicBool::new(true)).collect();
        let more = (0..LANES).map(|_| Notify::new()).collect();
        let are_overdue = (0..LANES).map(|_| AtomicBool::new(false)).collect();
        let bytes = (0..LANES).map(|_| AtomicUsize::new(0)).collect();
        (
            Self {
                entrances,
                are_behind,
                more,
                are_overdue,
                bytes,
            },
            exits,
        )
    }

    /// Whether waiting for the queue's answer on `event` is useless now.
    pub(crate) fn is_overdue(&self, event: &Event) -> bool {
        self.are_overdue[lane_of(event)].load(Ordering::Relaxed)
    }

    /// Records that the queue's answer on `event` did not come in time: no sender in its lane
    /// waits until an answer comes.
    pub(crate) fn note_overdue(&self, event: &Event) {
        self.are_overdue[lane_of(event)].store(true, Ordering::Relaxed);
    }

    /// Puts an event into its lane. Called in the order of rows, by one thread.
    pub(crate) fn send(&self, row: i64, event: Event, waiter: Option<Waiter>) {
        let lane = lane_of(&event);
        if self.are_behind[lane].load(Ordering::Acquire) {
            return;
        }
        let bytes = event.body().len();
        let held = self.bytes[lane].fetch_add(bytes, Ordering::AcqRel) + bytes;
        if held > WAITING_BYTES
            || self.entrances[lane]
                .try_send(QueuedRow { row, event, waiter })
                .is_err()
        {
            self.bytes[lane].fetch_sub(bytes, Ordering::AcqRel);
            self.are_behind[lane].store(true, Ordering::Release);
            self.more[lane].notify_one();
        }
    }
}

fn lane_of(event: &Event) -> usize {
    usize::from(event.bucket() % LANES)
}

/// One lane, which forwards its events in order.
pub(crate) struct Lane {
    number: usize,
    lanes: Arc<Lanes>,
    inbox: mpsc::Receiver<QueuedRow>,
    spool: Arc<File>,
    queue: Arc<dyn Upstream>,
    is_away: Arc<AtomicBool>,
    told: Arc<ForwardedHook>,
    /// The row up to which every row of this lane was sent.
    sent: i64,
}

impl Lane {
    pub(crate) fn new(
        number: usize,
        lanes: Arc<Lanes>,
        inbox: mpsc::Receiver<QueuedRow>,
        spool: &Arc<File>,
        queue: &Arc<dyn Upstream>,
        is_away: &Arc<AtomicBool>,
        told: &Arc<ForwardedHook>,
    ) -> Self {
        let spool = Arc::clone(spool);
        let queue = Arc::clone(queue);
        let is_away = Arc::clone(is_away);
        Self {
            number,
            lanes,
            inbox,
            spool,
            queue,
            is_away,
            told: Arc::clone(told),
            sent: 0,
        }
    }

    pub(crate) async fn run(mut self, closing: CancellationToken) {
        closing.clone().run_until_cancelled(self.forward()).await;
    }

    async fn forward(&mut self) {
        let lanes = Arc::clone(&self.lanes);
        let mut group = Vec::with_capacity(GROUP);
        loop {
            // Events in memory were stored before those that are only in the file.
            if self.is_behind() && self.inbox.is_empty() {
                self.catch_up().await;
            }
            tokio::select! {
                biased;
                taken = self.inbox.recv_many(&mut group, GROUP) => if taken == 0 { return },
                () = lanes.more[self.number].notified() => {}
            }
            let bytes: usize = group
                .iter()
                .map(|item: &QueuedRow| item.event.body().len())
                .sum();
            self.send(std::mem::take(&mut group)).await;
            lanes.bytes[self.number].fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    fn is_behind(&self) -> bool {
        self.lanes.are_behind[self.number].load(Ordering::Acquire)
    }

    /// Sends the events that are only in the file, and then accepts events in memory again.
    async fn catch_up(&mut self) {
        self.send_from_file().await;
        self.lanes.are_behind[self.number].store(false, Ordering::Release);
        // Events that were stored between the last read and the change.
        self.send_from_file().await;
    }

    async fn send_from_file(&mut self) {
        let lane = u8::try_from(self.number).unwrap_or(0);
        loop {
            match self.spool.unsent(lane, LANES, self.sent, GROUP).await {
                Ok(rows) if rows.is_empty() => return,
                Ok(rows) => {
                    let item = |(row, event)| QueuedRow {
                        row,
                        event,
                        waiter: None,
                    };
                    self.send(rows.into_iter().map(item).collect()).await;
                }
                // Also at closing: then this task is cancelled.
                Err(error) => {
                    tracing::error!(%error, "the spool can't be read");
                    sleep(AGAIN_MAX).await;
                }
            }
        }
    }

    /// Sends these events in this order, however long it takes.
    async fn send(&mut self, mut items: Vec<QueuedRow>) {
        items.retain(|item| item.row > self.sent);
        let (events, mut rest): (Vec<Event>, VecDeque<(i64, Option<Waiter>)>) = items
            .into_iter()
            .map(|item| (item.event, (item.row, item.waiter)))
            .unzip();
        let mut wait = AGAIN;
        while !rest.is_empty() {
            let left = &events[events.len() - rest.len()..];
            let published = self.queue.publish_many(left).await;
            if !published.receipts.is_empty() {
                wait = AGAIN;
                self.lanes.are_overdue[self.number].store(false, Ordering::Relaxed);
            }
            let noted = self.note(left, published.receipts, &mut rest).await;
            match noted.err().or(published.error) {
                None => self.is_away.store(false, Ordering::Relaxed),
                Some(QueueError::TooLarge) => self.put_aside(&mut rest).await,
                Some(error) => {
                    // The events are safe in the spool, so no sender need wait any longer.
                    rest.iter_mut().for_each(|(_, waiter)| drop(waiter.take()));
                    self.say_away(&error);
                    sleep(wait).await;
                    wait = (wait * 2).min(AGAIN_MAX);
                }
            }
        }
    }

    async fn note(
        &mut self,
        sent: &[Event],
        receipts: Vec<Receipt>,
        rest: &mut VecDeque<(i64, Option<Waiter>)>,
    ) -> Result<(), QueueError> {
        let mut acknowledged = Vec::with_capacity(receipts.len());
        let mut failed = None;
        for (event, receipt) in sent.iter().zip(receipts) {
            let receipt = match settled(&*self.queue, event, receipt).await {
                Ok(receipt) => receipt,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let Some((row, waiter)) = rest.pop_front() else {
                break;
            };
            acknowledged.push(AcknowledgedRow {
                row,
                epoch: receipt.epoch.clone(),
                position: receipt.position,
            });
            // If the sender no longer waits for the receipt, the hook is notified of the event.
            let is_heard = waiter.is_some_and(|waiter| waiter.send(receipt).is_ok());
            if let Some(told) = self.told.get().filter(|_| !is_heard) {
                told(event);
            }
            self.sent = row;
        }
        self.spool.acknowledged(acknowledged);
        failed.map_or(Ok(()), Err)
    }

    fn say_away(&self, error: &QueueError) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            let error = error as &dyn std::error::Error;
            tracing::error!(
                error,
                "the queue takes nothing: events are kept in the spool until it does"
            );
        }
    }

    /// Marks the first event as unsendable, since one that can't be stored must not hold up the
    /// others.
    async fn put_aside(&mut self, rest: &mut VecDeque<(i64, Option<Waiter>)>) {
        let Some((row, _)) = rest.pop_front() else {
            return;
        };
        tracing::error!(
            row,
            "the queue does not take an event of this size: set aside in the spool; `fluent-webhooks cluster check` says why"
        );
        let _ = self.spool.mark_unsendable(row).await;
        self.sent = row;
    }
}

/// Accepts a receipt if the queue has the event, and publishes the event again if it knows the id
/// but has lost the event. A duplicate that was perhaps removed is accepted until it is
/// confirmed.
pub(crate) async fn settled(
    queue: &dyn Upstream,
    event: &Event,
    receipt: Receipt,
) -> Result<Receipt, QueueError> {
    if !receipt.duplicate
        || queue.presence(receipt.position, event.id()).await? != Presence::Missing
    {
        return Ok(receipt);
    }
    tracing::warn!(event.id = %event.id(), position = %receipt.position, "the queue knows an event that it has lost: given again");
    queue.republish(event.clone().republished()).await
}
