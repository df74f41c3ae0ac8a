//! Who asks for a route's events, and what each has in hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;
use wire::v1;
use wire::v1::subscribe_request::settle::Outcome;
use wire::v1::subscribe_response::{Delivered, Response};

use crate::settings::SubscriptionSettings;

/// Most deliveries that one subscriber may have in hand.
pub(crate) const MAX_CREDITS: u32 = 1000;

/// Most subscribers of one route, in one process.
const MAX_SUBSCRIBERS: usize = 256;

/// Answers on their way to a subscriber: its deliveries, and as many words about
/// those that expired unread.
const ANSWERS: usize = 2 * MAX_CREDITS as usize;

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
    in_hand: HashMap<u64, Open>,
    /// It reads nothing: its stream is to end.
    given_up: Arc<Notify>,
    /// When it was given something: who waits longest is next.
    given: u64,
}

/// A delivery in somebody's hand, as the line knows it.
#[derive(Debug)]
struct Open {
    outcome: oneshot::Sender<Outcome>,
    /// When the handler last said that it is at work.
    progress: Option<Instant>,
}

impl Subscriber {
    fn room(&self) -> u32 {
        self.credits.saturating_sub(u32::try_from(self.in_hand.len()).unwrap_or(u32::MAX))
    }
}

/// A delivery in a subscriber's hand. Dropping it unsettled takes it back, and tells the
/// subscriber.
#[derive(Debug)]
pub(crate) struct InHand {
    line: Arc<Line>,
    subscriber: u64,
    number: u64,
    /// What becomes of it; closed where the subscriber went away.
    pub(crate) outcome: oneshot::Receiver<Outcome>,
}

impl Line {
    pub(crate) fn new(settings: SubscriptionSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// How long a delivery may be in hand, without progress and in all.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (self.settings.timeout(), self.settings.longest())
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

    /// Says that somebody came, went, or takes more or less. Called with the lock that
    /// it was changed under.
    fn capacity_changed(&self, subscribers: &Subscribers) {
        let capacity: u32 = subscribers.all.values().map(|subscriber| subscriber.credits).sum();
        self.capacity.send_if_modified(|now| std::mem::replace(now, capacity as usize) != capacity as usize);
        self.room.notify_waiters();
    }

    /// Gives a delivery to whoever has most room. Handed back if nobody has, or who had
    /// does not read.
    pub(crate) fn give(self: &Arc<Self>, mut delivered: Delivered) -> Result<InHand, Box<Delivered>> {
        let mut subscribers = self.lock();
        subscribers.count += 1;
        let number = subscribers.count;
        let with_room = subscribers.all.iter_mut().filter(|(_, subscriber)| subscriber.room() > 0);
        let chosen = with_room.max_by_key(|(_, it)| (it.room(), std::cmp::Reverse(it.given)));
        let Some((id, chosen)) = chosen else { return Err(Box::new(delivered)) };
        let subscriber = *id;
        let Ok(place) = chosen.answers.clone().try_reserve_owned() else {
            // It went away, or reads nothing: what it has in hand comes back.
            let _ = subscribers.all.remove(&subscriber).map(|gone| gone.given_up.notify_one());
            self.capacity_changed(&subscribers);
            return Err(Box::new(delivered));
        };
        delivered.number = number;
        place.send(Ok(v1::SubscribeResponse { response: Some(Response::Delivered(delivered)) }));
        chosen.given = number;
        let (settle, outcome) = oneshot::channel();
        chosen.in_hand.insert(number, Open { outcome: settle, progress: None });
        Ok(InHand { line: Arc::clone(self), subscriber, number, outcome })
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
        Some((Seat { line: Arc::clone(self), id, answers, given_up }, received))
    }
}

impl InHand {
    /// When the handler last said that it is at work.
    pub(crate) fn progress(&self) -> Option<Instant> {
        self.line.lock().all.get(&self.subscriber)?.in_hand.get(&self.number)?.progress
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut subscribers = self.line.lock();
        if let Some(subscriber) = subscribers.all.get_mut(&self.subscriber)
            && subscriber.in_hand.remove(&self.number).is_some()
        {
            // Not settled: it was taken back.
            let response = Response::Expired(v1::subscribe_response::Expired { numbers: vec![self.number] });
            let _ = subscriber.answers.try_send(Ok(v1::SubscribeResponse { response: Some(response) }));
        }
        drop(subscribers);
        self.line.room.notify_waiters();
    }
}

/// A subscriber's place. Dropping it gives back what is in hand.
#[derive(Debug)]
pub(crate) struct Seat {
    line: Arc<Line>,
    id: u64,
    pub(crate) answers: mpsc::Sender<Answer>,
    /// Fires when it reads nothing.
    pub(crate) given_up: Arc<Notify>,
}

impl Seat {
    fn with<T>(&self, change: impl FnOnce(&mut Subscriber) -> T) -> Option<T> {
        self.line.lock().all.get_mut(&self.id).map(change)
    }

    /// How many may be in hand from now on.
    pub(crate) fn set_credits(&self, credits: u32) {
        let mut subscribers = self.line.lock();
        if let Some(subscriber) = subscribers.all.get_mut(&self.id) {
            subscriber.credits = credits;
        }
        self.line.capacity_changed(&subscribers);
    }

    /// What became of a delivery; of one that is not in hand it means nothing.
    pub(crate) fn settle(&self, number: u64, outcome: Outcome) {
        let open = self.with(|subscriber| subscriber.in_hand.remove(&number)).flatten();
        let _ = open.map(|open| open.outcome.send(outcome));
    }

    /// Its handler is at work.
    pub(crate) fn progress(&self, number: u64) {
        self.with(|subscriber| {
            if let Some(open) = subscriber.in_hand.get_mut(&number) {
                open.progress = Some(Instant::now());
            }
        });
    }

    /// Whether there is nothing in hand; also when this one was given up.
    pub(crate) fn is_empty(&self) -> bool {
        self.with(|subscriber| subscriber.in_hand.is_empty()).unwrap_or(true)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut subscribers = self.line.lock();
        subscribers.all.remove(&self.id);
        self.line.capacity_changed(&subscribers);
    }
}
