//! The subscribers of a route, and the deliveries that each has in progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1;
use proto::v1::subscribe_request::settle::Outcome;
use proto::v1::subscribe_response::{Delivered, Response};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::settings::SubscriptionSettings;

/// Most deliveries that one subscriber may have in progress.
pub(crate) const MAX_CREDITS: u32 = 1000;

/// Most subscribers of one route, in one process.
const MAX_SUBSCRIBERS: usize = 256;

/// Answers on their way to a subscriber: its deliveries, and as many notices of deliveries that
/// expired unread.
const ANSWERS: usize = 2 * MAX_CREDITS as usize;

pub(crate) type Answer = Result<v1::SubscribeResponse, Status>;

/// The subscribers of one route.
#[derive(Debug, Default)]
pub(crate) struct SubscriberPool {
    settings: SubscriptionSettings,
    subscribers: Mutex<Subscribers>,
    /// The sum of all subscribers' credits.
    capacity: watch::Sender<usize>,
    /// Notified when a subscriber may have room.
    room: Notify,
}

#[derive(Debug, Default)]
struct Subscribers {
    /// Rises with each subscriber that joins, and each delivery that is handed out.
    count: u64,
    all: HashMap<u64, Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    answers: mpsc::Sender<Answer>,
    credits: u32,
    in_hand: HashMap<u64, OpenDelivery>,
    /// Notified if the subscriber reads nothing, so that its stream ends.
    given_up: Arc<Notify>,
    /// The count at its last delivery: with equal room, the one that has waited longest is next.
    given: u64,
}

/// A delivery in progress at a subscriber, as the pool sees it.
#[derive(Debug)]
struct OpenDelivery {
    outcome: oneshot::Sender<Outcome>,
    /// Time of the handler's last sign of progress.
    progress: Option<Instant>,
}

impl Subscriber {
    fn room(&self) -> u32 {
        self.credits
            .saturating_sub(u32::try_from(self.in_hand.len()).unwrap_or(u32::MAX))
    }
}

/// A delivery in progress at a subscriber. Dropping it before it is settled takes it back, and
/// the subscriber is told that it expired.
#[derive(Debug)]
pub(crate) struct Outstanding {
    line: Arc<SubscriberPool>,
    subscriber: u64,
    number: u64,
    /// The outcome of the delivery. Closed if the subscriber goes away.
    pub(crate) outcome: oneshot::Receiver<Outcome>,
}

impl SubscriberPool {
    pub(crate) fn new(settings: SubscriptionSettings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Longest time that a delivery may be in progress: without a sign of progress, and in all.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (self.settings.timeout(), self.settings.longest())
    }

    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum of all subscribers' credits, as it changes.
    pub(crate) fn capacity(&self) -> watch::Receiver<usize> {
        self.capacity.subscribe()
    }

    /// Waits until a subscriber may have room. The caller checks again after that.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Publishes the sum of credits after a subscriber came, went or changed its credits. Called
    /// with the lock under which that was changed.
    fn capacity_changed(&self, subscribers: &Subscribers) {
        let capacity: u32 = subscribers
            .all
            .values()
            .map(|subscriber| subscriber.credits)
            .sum();
        self.capacity
            .send_if_modified(|now| std::mem::replace(now, capacity as usize) != capacity as usize);
        self.room.notify_waiters();
    }

    /// Hands a delivery to the subscriber with most room. Gives it back if no subscriber has
    /// room, or if the chosen one does not read.
    pub(crate) fn assign(
        self: &Arc<Self>,
        mut delivered: Delivered,
    ) -> Result<Outstanding, Box<Delivered>> {
        let mut subscribers = self.lock();
        subscribers.count += 1;
        let number = subscribers.count;
        let with_room = subscribers
            .all
            .iter_mut()
            .filter(|(_, subscriber)| subscriber.room() > 0);
        let chosen = with_room.max_by_key(|(_, it)| (it.room(), std::cmp::Reverse(it.given)));
        let Some((id, chosen)) = chosen else {
            return Err(Box::new(delivered));
        };
        let subscriber = *id;
        let Ok(place) = chosen.answers.clone().try_reserve_owned() else {
            // The subscriber went away or does not read: its deliveries come again.
            let _ = subscribers
                .all
                .remove(&subscriber)
                .map(|gone| gone.given_up.notify_one());
            self.capacity_changed(&subscribers);
            return Err(Box::new(delivered));
        };
        delivered.number = number;
        place.send(Ok(v1::SubscribeResponse {
            response: Some(Response::Delivered(delivered)),
        }));
        chosen.given = number;
        let (settle, outcome) = oneshot::channel();
        chosen.in_hand.insert(
            number,
            OpenDelivery {
                outcome: settle,
                progress: None,
            },
        );
        Ok(Outstanding {
            line: Arc::clone(self),
            subscriber,
            number,
            outcome,
        })
    }

    /// Adds a subscriber. `None` if there are too many.
    pub(crate) fn join(
        self: &Arc<Self>,
        credits: u32,
    ) -> Option<(SubscriberHandle, mpsc::Receiver<Answer>)> {
        let (answers, received) = mpsc::channel(ANSWERS);
        let mut subscribers = self.lock();
        if subscribers.all.len() >= MAX_SUBSCRIBERS {
            return None;
        }
        subscribers.count += 1;
        let id = subscribers.count;
        let given_up = Arc::new(Notify::new());
        let subscriber = Subscriber {
            answers: answers.clone(),
            credits,
            in_hand: HashMap::new(),
            given_up: Arc::clone(&given_up),
            given: id,
        };
        subscribers.all.insert(id, subscriber);
        self.capacity_changed(&subscribers);
        Some((
            SubscriberHandle {
                line: Arc::clone(self),
                id,
                answers,
                given_up,
            },
            received,
        ))
    }
}

impl Outstanding {
    /// Time of the handler's last sign of progress.
    pub(crate) fn progress(&self) -> Option<Instant> {
        self.line
            .lock()
            .all
            .get(&self.subscriber)?
            .in_hand
            .get(&self.number)?
            .progress
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        let mut subscribers = self.line.lock();
        if let Some(subscriber) = subscribers.all.get_mut(&self.subscriber)
            && subscriber.in_hand.remove(&self.number).is_some()
        {
            // The delivery was not settled, so it was taken back.
            let response = Response::Expired(v1::subscribe_response::Expired {
                numbers: vec![self.number],
            });
            let _ = subscriber.answers.try_send(Ok(v1::SubscribeResponse {
                response: Some(response),
            }));
        }
        drop(subscribers);
        self.line.room.notify_waiters();
    }
}

/// A subscriber in the pool. Dropping it gives back its deliveries.
#[derive(Debug)]
pub(crate) struct SubscriberHandle {
    line: Arc<SubscriberPool>,
    id: u64,
    pub(crate) answers: mpsc::Sender<Answer>,
    /// Notified if the subscriber reads nothing.
    pub(crate) given_up: Arc<Notify>,
}

impl SubscriberHandle {
    fn with<T>(&self, change: impl FnOnce(&mut Subscriber) -> T) -> Option<T> {
        self.line.lock().all.get_mut(&self.id).map(change)
    }

    /// Sets the number of deliveries that may be in progress.
    pub(crate) fn set_credits(&self, credits: u32) {
        let mut subscribers = self.line.lock();
        if let Some(subscriber) = subscribers.all.get_mut(&self.id) {
            subscriber.credits = credits;
        }
        self.line.capacity_changed(&subscribers);
    }

    /// Settles a delivery. Has no effect if it is not in progress at this subscriber.
    pub(crate) fn settle(&self, number: u64, outcome: Outcome) {
        let open = self
            .with(|subscriber| subscriber.in_hand.remove(&number))
            .flatten();
        let _ = open.map(|open| open.outcome.send(outcome));
    }

    /// Notes a sign of progress for a delivery.
    pub(crate) fn progress(&self, number: u64) {
        self.with(|subscriber| {
            if let Some(open) = subscriber.in_hand.get_mut(&number) {
                open.progress = Some(Instant::now());
            }
        });
    }

    /// True if no delivery is in progress, also if the subscriber is gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.with(|subscriber| subscriber.in_hand.is_empty())
            .unwrap_or(true)
    }
}

impl Drop for SubscriberHandle {
    fn drop(&mut self) {
        let mut subscribers = self.line.lock();
        subscribers.all.remove(&self.id);
        self.line.capacity_changed(&subscribers);
    }
}
