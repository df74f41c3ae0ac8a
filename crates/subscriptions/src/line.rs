//! Who asks for a route's events, and what each has in hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, watch};
use tonic::Status;
use wire::v1;
use wire::v1::subscribe_response::Response;

use crate::settings::SubscriptionSettings;

/// Most deliveries that one subscriber may have in hand.
pub(crate) const MAX_CREDITS: u32 = 1000;

/// Most subscribers of one route, in one process.
const MAX_SUBSCRIBERS: usize = 256;

/// Answers on their way to a subscriber: its deliveries, and as many words about
/// those that expired unread.
const ANSWERS: usize = 2 * MAX_CREDITS as usize;

/// What a handler said of a delivery.
#[derive(Debug)]
pub(crate) enum Said {
    /// It is at work.
    Progress,
    /// What became of it.
    Settled(v1::subscribe_request::settle::Outcome),
}

/// What a delivery's handler says may wait: one sign of progress, and the end.
const SAID: usize = 2;

pub(crate) type Answer = Result<v1::SubscribeResponse, Status>;

/// One route's subscribers.
#[derive(Debug, Default)]
pub(crate) struct Line {
    settings: SubscriptionSettings,
    subscribers: Mutex<Subscribers>,
    /// How much all of them can have in hand.
    capacity: watch::Sender<usize>,
    /// Somebody may have room.
    room: Notify,
}

#[derive(Debug, Default)]
struct Subscribers {
    /// Rises with everybody that comes, and everything that is given.
    count: u64,
    all: HashMap<u64, Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    answers: mpsc::Sender<Answer>,
    credits: u32,
    in_hand: HashMap<u64, mpsc::Sender<Said>>,
    /// When it was given something: who waits longest is next.
    given: u64,
}

impl Subscriber {
    fn room(&self) -> u32 {
        self.credits.saturating_sub(u32::try_from(self.in_hand.len()).unwrap_or(u32::MAX))
    }
}

/// A delivery in a subscriber's hand. Dropping it takes it back.
#[derive(Debug)]
pub(crate) struct InHand {
    line: Arc<Line>,
    subscriber: u64,
    number: u64,
    pub(crate) said: mpsc::Receiver<Said>,
}

impl Line {
    pub(crate) fn new(settings: SubscriptionSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// How long a delivery may be in hand, without progress and in all.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (self.settings.timeout, self.settings.longest)
    }

    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much all subscribers together can have in hand, as it changes.
    pub(crate) fn capacity(&self) -> watch::Receiver<usize> {
        self.capacity.subscribe()
    }

    /// Waits until something has changed; ask again after that.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Says what has changed. Called with the lock that it was changed under.
    fn has_changed(&self, subscribers: &Subscribers) {
        let capacity: u32 = subscribers.all.values().map(|subscriber| subscriber.credits).sum();
        self.capacity.send_if_modified(|now| std::mem::replace(now, capacity as usize) != capacity as usize);
        self.room.notify_waiters();
    }

    /// Gives a delivery to whoever has most room. `None` if nobody has, or who had
    /// does not read.
    pub(crate) fn give(
        self: &Arc<Self>,
        answer: impl FnOnce(u64) -> v1::SubscribeResponse,
    ) -> Option<InHand> {
        let mut subscribers = self.lock();
        subscribers.count += 1;
        let number = subscribers.count;
        let with_room = subscribers.all.iter_mut().filter(|(_, subscriber)| subscriber.room() > 0);
        let (id, chosen) = with_room.max_by_key(|(_, it)| (it.room(), std::cmp::Reverse(it.given)))?;
        let id = *id;
        if chosen.answers.try_send(Ok(answer(number))).is_err() {
            // It went away, or reads nothing: what it has in hand comes back.
            subscribers.all.remove(&id);
            self.has_changed(&subscribers);
            return None;
        }
        chosen.given = number;
        let (say, said) = mpsc::channel(SAID);
        chosen.in_hand.insert(number, say);
        Some(InHand { line: Arc::clone(self), subscriber: id, number, said })
    }

    /// Somebody comes. `None` where too many are here.
    pub(crate) fn join(self: &Arc<Self>, credits: u32) -> Option<(Seat, mpsc::Receiver<Answer>)> {
        let (answers, received) = mpsc::channel(ANSWERS);
        let mut subscribers = self.lock();
        if subscribers.all.len() >= MAX_SUBSCRIBERS {
            return None;
        }
        subscribers.count += 1;
        let id = subscribers.count;
        let subscriber = Subscriber { answers: answers.clone(), credits, in_hand: HashMap::new(), given: id };
        subscribers.all.insert(id, subscriber);
        self.has_changed(&subscribers);
        Some((Seat { line: Arc::clone(self), id, answers }, received))
    }
}

impl InHand {
    /// Takes it back, and tells the subscriber.
    pub(crate) fn expire(self) {
        let response = Response::Expired(v1::subscribe_response::Expired { numbers: vec![self.number] });
        if let Some(subscriber) = self.line.lock().all.get(&self.subscriber) {
            let _ = subscriber.answers.try_send(Ok(v1::SubscribeResponse { response: Some(response) }));
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut subscribers = self.line.lock();
        if let Some(subscriber) = subscribers.all.get_mut(&self.subscriber) {
            subscriber.in_hand.remove(&self.number);
        }
        self.line.has_changed(&subscribers);
    }
}

/// A subscriber's place. Dropping it gives back what is in hand.
#[derive(Debug)]
pub(crate) struct Seat {
    line: Arc<Line>,
    id: u64,
    pub(crate) answers: mpsc::Sender<Answer>,
}

impl Seat {
    fn with<T>(&self, change: impl FnOnce(&mut Subscriber) -> T) -> Option<T> {
        let mut subscribers = self.line.lock();
        let changed = subscribers.all.get_mut(&self.id).map(change);
        self.line.has_changed(&subscribers);
        changed
    }

    /// How many may be in hand from now on.
    pub(crate) fn set_credits(&self, credits: u32) {
        self.with(|subscriber| subscriber.credits = credits);
    }

    /// What was said of a delivery; of one that is not in hand it means nothing.
    pub(crate) fn say(&self, number: u64, said: Said) {
        self.with(|subscriber| match said {
            Said::Settled(_) => {
                let _ = subscriber.in_hand.remove(&number).map(|say| say.try_send(said));
            }
            Said::Progress => {
                // One sign is enough, and leaves room for the end.
                let idle = subscriber.in_hand.get(&number).filter(|say| say.capacity() == SAID);
                let _ = idle.map(|say| say.try_send(said));
            }
        });
    }

    /// Whether there is nothing in hand; also when this one was given up.
    pub(crate) fn is_empty(&self) -> bool {
        self.with(|subscriber| subscriber.in_hand.is_empty()).unwrap_or(true)
    }

    /// Whether it was given up.
    pub(crate) fn is_lost(&self) -> bool {
        self.with(|_| ()).is_none()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut subscribers = self.line.lock();
        subscribers.all.remove(&self.id);
        self.line.has_changed(&subscribers);
    }
}
