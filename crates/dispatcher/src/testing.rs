//! Doubles for this crate's tests: a scripted dispatcher, a lease that records what happens to
//! it, and a queue that hands out what a test puts into it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dispatch::{
    AnyDispatcher, BoxError, CancellationToken, Context, DispatchError, Dispatcher, Done,
    OpenContext,
};
use event_model::{Clock, Event, Timestamp};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use queue::conformance::event;
use queue::{
    Consumer, Delivery, Disposition, Lease, MatchFields, Position, QueueError, Settlement,
    StartPosition, Ticket,
};
use settings::{BreakerSettings, OnSameId, RetrySettings, RouteSettings};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::attempt::AttemptRunner;
use crate::breaker::Breaker;
use crate::isolation::Isolation;
use crate::note_retry::NoteRetry;
use crate::notify::OutcomeHooks;

/// Lease of the deliveries in these tests.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// Record of what happened to one delivery.
#[derive(Debug, Default)]
pub(crate) struct ScriptedOutcome {
    /// Times at which it was handed out, its lease extended, and it was settled.
    pub(crate) signs: Vec<Instant>,
    pub(crate) settled: Vec<Settlement>,
    /// Each value that was recorded for whether it runs exclusively.
    pub(crate) alone: Vec<bool>,
    /// Whether it was recorded that it waits for its turn, and not yet that it begins.
    pub(crate) is_waiting: bool,
    pub(crate) is_given_back: bool,
}

/// A lease that is lost when it is not extended for its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeLease {
    pub(crate) fate: Arc<Mutex<ScriptedOutcome>>,
    /// Time that the queue takes to settle.
    pub(crate) settles_in: Duration,
    /// Time that it takes to record whether an attempt runs exclusively.
    pub(crate) records_in: Duration,
    /// Whether settling fails.
    pub(crate) is_away: bool,
}

impl FakeLease {
    pub(crate) fn fate<T>(&self, look: impl FnOnce(&mut ScriptedOutcome) -> T) -> T {
        look(&mut lock(&self.fate))
    }

    /// Makes a delivery with this lease.
    pub(crate) fn delivery(&self, reference: &str, deaths: u32) -> Delivery {
        self.fate(|fate| fate.signs.push(Instant::now()));
        Delivery {
            event: Arc::new(event("E", reference)),
            position: Position::START,
            redrive: 0,
            attempt: deaths + 1,
            first_attempt_at: TestClock.now(),
            deaths,
            asked: 0,
            asks_match: false,
            matched: None,
            ticket: Ticket::new(HeldLease(self.clone())),
        }
    }

    /// Returns the longest time without a heartbeat, up to the settlement.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.fate(|fate| {
            fate.signs
                .windows(2)
                .map(|signs| signs[1] - signs[0])
                .max()
                .unwrap_or_default()
        })
    }

    fn check(&self) -> Result<(), QueueError> {
        let is_over =
            self.fate(|fate| fate.signs.last().is_none_or(|last| last.elapsed() >= LEASE));
        if is_over {
            Err(QueueError::LeaseLost)
        } else {
            Ok(())
        }
    }
}

/// Deliveries of one route in memory: one that is settled `Again` comes again when it is due.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeQueue(Arc<InMemory>);

#[derive(Debug, Default)]
struct InMemory {
    waiting: Mutex<Vec<Waiting>>,
    /// Ref of each event that was done or became a dead letter, and when.
    ended: Mutex<Vec<(String, Disposition, Instant)>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
struct Waiting {
    event: Arc<Event>,
    due: Instant,
    attempt: u32,
    asked: u32,
    first_attempt_at: Timestamp,
}

impl FakeQueue {
    pub(crate) fn publish(&self, reference: &str) {
        self.publish_for(reference, 1);
    }

    /// Publishes an event whose next attempt has this number.
    pub(crate) fn publish_for(&self, reference: &str, attempt: u32) {
        let first_attempt_at = TestClock.now();
        let event = Arc::new(event("E", reference));
        self.put(Waiting {
            event,
            due: Instant::now(),
            attempt,
            asked: 0,
            first_attempt_at,
        });
    }

    pub(crate) fn ended(&self) -> Vec<(String, Disposition, Instant)> {
        lock(&self.0.ended).clone()
    }

    /// Number of events that nobody has taken.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.0.waiting).len()
    }

    fn put(&self, waiting: Waiting) {
        lock(&self.0.waiting).push(waiting);
        self.0.changed.notify_waiters();
    }

    fn take(&self, permits: usize, is_probe: bool) -> Vec<Waiting> {
        let mut waiting = lock(&self.0.waiting);
        waiting.sort_by_key(|waiting| (is_probe && waiting.attempt > 1, waiting.due));
        let due = waiting
            .iter()
            .take_while(|waiting| waiting.due <= Instant::now())
            .count();
        waiting.drain(..due.min(permits)).collect()
    }

    fn next_due(&self) -> Option<Instant> {
        lock(&self.0.waiting)
            .iter()
            .map(|waiting| waiting.due)
            .min()
    }

    fn hand_out(&self, waiting: Waiting) -> Delivery {
        Delivery {
            event: Arc::clone(&waiting.event),
            position: Position::START,
            redrive: 0,
            attempt: waiting.attempt,
            asked: waiting.asked,
            first_attempt_at: waiting.first_attempt_at,
            deaths: 0,
            asks_match: false,
            matched: None,
            ticket: Ticket::new(InMemoryLease {
                queue: self.clone(),
                waiting: Some(waiting),
            }),
        }
    }
}

impl Consumer for FakeQueue {
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.wait_for(permits, false)
    }

    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.wait_for(1, true)
    }
}

impl FakeQueue {
    fn wait_for(
        &mut self,
        permits: usize,
        is_probe: bool,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        async move {
            loop {
                let changed = self.0.changed.notified();
                let taken = self.take(permits, is_probe);
                if !taken.is_empty() {
                    return Ok(taken
                        .into_iter()
                        .map(|waiting| self.hand_out(waiting))
                        .collect());
                }
                match self.next_due() {
                    Some(due) => drop(timeout_at(due, changed).await),
                    None => changed.await,
                }
            }
        }
        .boxed()
    }
}

/// Behaviour of a consumer that is asked for deliveries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BrokenConsumer {
    Panics,
    IsClosed,
}

impl Consumer for BrokenConsumer {
    fn next(&mut self, _: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        match self {
            Self::Panics => panic!("a fault of the queue's"),
            Self::IsClosed => ready(Err(QueueError::Closed)).boxed(),
        }
    }

    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.next(1)
    }
}

#[derive(Debug)]
struct InMemoryLease {
    queue: FakeQueue,
    waiting: Option<Waiting>,
}

impl Lease for InMemoryLease {
    fn settle(&mut self, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        if let Some(waiting) = self.waiting.take() {
            let now = Instant::now();
            match settlement.disposition {
                Disposition::Again(wait) => self.queue.put(Waiting {
                    due: now + wait,
                    attempt: waiting.attempt + 1,
                    asked: waiting.asked + u32::from(settlement.asked),
                    ..waiting
                }),
                disposition => {
                    let reference = waiting
                        .event
                        .fields()
                        .entity_ref
                        .clone()
                        .unwrap_or_default();
                    lock(&self.queue.0.ended).push((reference, disposition, now));
                }
            }
        }
        ready(Ok(())).boxed()
    }

    fn progress(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        ready(Ok(())).boxed()
    }

    fn mark_waiting(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        ready(Ok(())).boxed()
    }

    fn mark_exclusive(&mut self, _: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        ready(Ok(())).boxed()
    }
}

impl Drop for InMemoryLease {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.queue.put(waiting);
        }
    }
}

#[derive(Debug)]
struct HeldLease(FakeLease);

impl Lease for HeldLease {
    fn settle(&mut self, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            sleep(self.0.settles_in).await;
            self.0.check()?;
            if self.0.is_away {
                return Err(QueueError::unavailable("settling", "the queue is away"));
            }
            self.0.fate(|fate| {
                fate.signs.push(Instant::now());
                fate.settled.push(settlement);
            });
            Ok(())
        }
        .boxed()
    }

    fn progress(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        let said = self.0.check();
        self.0
            .fate(|fate| fate.signs.extend(said.is_ok().then(Instant::now)));
        ready(said).boxed()
    }

    fn mark_waiting(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        self.0.fate(|fate| fate.is_waiting = true);
        ready(Ok(())).boxed()
    }

    fn mark_exclusive(&mut self, is_alone: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            sleep(self.0.records_in).await;
            self.0.fate(|fate| {
                fate.is_waiting = false;
                fate.alone.push(is_alone);
            });
            Ok(())
        }
        .boxed()
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.0
            .fate(|fate| fate.is_given_back = fate.settled.is_empty());
    }
}

/// Answer of a [`ScriptedDispatcher`] to an event.
type Answer = dyn Fn(&Event) -> BoxFuture<'static, Result<Done, DispatchError>> + Send + Sync;

/// Answers as a test says.
pub(crate) struct ScriptedDispatcher(Box<Answer>);

impl ScriptedDispatcher {
    pub(crate) fn new<F>(answer: impl Fn(&Event) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Done, DispatchError>> + Send + 'static,
    {
        Self(Box::new(move |event| answer(event).boxed()))
    }

    /// Delivers every event, after this time.
    pub(crate) fn done_after(time: Duration) -> Self {
        Self::new(move |_| async move {
            sleep(time).await;
            Ok(Done::default())
        })
    }
}

impl fmt::Debug for ScriptedDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted(..)")
    }
}

impl Dispatcher for ScriptedDispatcher {
    const KIND: &'static str = "scripted";
    type Settings = serde_json::Value;

    async fn open(_: serde_json::Value, _: &OpenContext) -> Result<Self, BoxError> {
        Err("a test makes it".into())
    }

    async fn dispatch(&self, event: &Event, _: &Context) -> Result<Done, DispatchError> {
        (self.0)(event).await
    }

    fn timeout(&self) -> Duration {
        Duration::from_hours(2)
    }
}

/// The clock of the runtime, which a test may stop and advance.
#[derive(Debug)]
pub(crate) struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let began = *BEGAN.get_or_init(Instant::now);
        let since = Instant::now().saturating_duration_since(began);
        Timestamp::from_second(1_790_000_000)
            .unwrap_or_default()
            .saturating_add(since)
            .unwrap_or_default()
    }
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a route that matches everything.
pub(crate) fn route(name: &str) -> RouteSettings {
    RouteSettings {
        repeated: Vec::new(),
        name: name.to_owned(),
        terms: MatchFields::default(),
        start: StartPosition::Beginning,
        concurrency: 16,
        retry: RetrySettings::default(),
        rate: None,
        breaker: Some(BreakerSettings::default()),
        same_id: OnSameId::Deliver,
        enrich: None,
        entity_check: None,
        on_success: None,
        on_dead_letter: None,
        dispatcher: ScriptedDispatcher::KIND.to_owned(),
        table: serde_json::json!({}),
    }
}

/// Makes attempts with this dispatcher, under the permits of `isolation`.
pub(crate) fn attempting(
    dispatcher: ScriptedDispatcher,
    isolation: &Isolation,
    hard_stop: &CancellationToken,
) -> AttemptRunner {
    let settings = route("r");
    let breaker = Arc::new(Breaker::new("r", settings.breaker));
    AttemptRunner {
        settings,
        dispatcher: AnyDispatcher::of(dispatcher),
        enrichment: None,
        then: OutcomeHooks::default(),
        dedup: None,
        same_id: None,
        notes: NoteRetry::new(hard_stop.clone()),
        isolation: isolation.clone(),
        breaker,
        clock: Arc::new(TestClock),
        lease: LEASE,
        hard_stop: hard_stop.clone(),
    }
}
