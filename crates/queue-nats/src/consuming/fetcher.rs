//! The task behind a consumer: requests no more than is wanted, extends the leases of deliveries
//! that wait to be taken, and gives back the rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_nats::{Message, Subject, Subscriber};
use event_model::Timestamp;
use futures::{FutureExt, StreamExt};
use queue::{Position, QueueError, Route};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connect::NatsConnection;
use crate::consuming::consumer::FetchRequest;
use crate::consuming::floor::{SettledFloor, settled};
use crate::consuming::match_change::present;
use crate::consuming::pull_consumer::{Fetched, PullConsumer};
use crate::consuming::route_consumer::{Decoded, PendingDelivery, RedeliveryLookup, RouteConsumer};
use crate::failure::failed;
use crate::streams::{RETRIES, Shard, StreamName};

/// Most deliveries that are handed out together.
pub(super) const BATCH: usize = 512;

/// Redeliveries that are looked up at once; further ones wait.
const LOOKUPS: usize = 64;

/// Time without a caller after which fetched deliveries go back to the server, together with what
/// was requested there: another process may want them. A breaker may have opened here, a
/// subscriber may have left, or every permit may be taken.
const UNWANTED_FOR: Duration = Duration::from_secs(2);

/// Longest age of the news that a route is not paused, for handing out deliveries.
const UNPAUSED_FOR: Duration = Duration::from_secs(1);

/// Number of ticks without a message after which the server is asked for a consumer's state.
const QUIET_TICKS: u32 = 3;

/// Longest wait for any step: ticks come sooner.
const UNTIL_TICK: Duration = Duration::from_mins(1);

/// Fetches deliveries for one consumer.
pub(crate) struct Fetcher {
    pub(super) taking: Arc<RouteConsumer>,
    pub(super) route: Route,
    pub(super) wants: mpsc::Receiver<FetchRequest>,
    pub(super) want: Option<FetchRequest>,
    pub(super) events: PullConsumer,
    pub(super) retries: PullConsumer,
    pub(super) waiting: VecDeque<PendingDelivery>,
    /// Redeliveries that are being looked up; `redelivered` has those that wait for it.
    pub(super) lookups: JoinSet<RedeliveryLookup>,
    pub(super) redelivered: VecDeque<PendingDelivery>,
    /// Cancels the lookups.
    pub(super) looking: CancellationToken,
    /// Time since which no caller waits.
    pub(super) unwanted: Option<Instant>,
    /// Time since which events can't be settled, for want of room.
    pub(super) blocked: Option<Instant>,
    /// Whether less was requested than is wanted, for want of memory.
    pub(super) is_short: bool,
    /// Time at which the server last said that the route is not paused.
    pub(super) unpaused: Instant,
    /// Permits to put deliveries away until their key may be known: they are bounded like those in
    /// hand.
    pub(super) put_away: Arc<Semaphore>,
    pub(super) key_said: Option<Instant>,
    /// Messages that the route does not match.
    pub(super) not_for_us: Vec<Subject>,
    /// Whether another dispatcher has since joined the route with another match.
    pub(super) is_superseded: bool,
    /// Time at which the server was last asked who joined.
    pub(super) joined_known: Option<Instant>,
    /// Until this time nobody settles what the route does not match: matches are about to change.
    pub(super) held_until: Option<Timestamp>,
    /// Number of ticks for which nobody has taken anything with that match.
    pub(super) abandoned: u32,
    /// Whether anything came since the last tick, and the number of ticks without anything.
    pub(super) has_come: bool,
    pub(super) quiet_ticks: u32,
    /// Shows other processes that somebody with our match is here, also while nothing is
    /// requested: the breaker may be open for a while. A process that joins with another match
    /// announces it here.
    pub(super) presence: Subscriber,
    /// Everything up to here is settled, as far as the server has said.
    pub(super) settled: Option<Position>,
    pub(super) floor: SettledFloor,
    /// Epoch number of the stream in which that holds.
    pub(super) life: u64,
}

enum Step {
    Wanted(Option<FetchRequest>),
    Event(Fetched),
    Retry(Fetched),
    LookedUp(RedeliveryLookup),
    Tick,
    /// Something is overdue: no caller for long, or a request without a sign of life.
    Due,
    Changed,
    Connected,
    /// Somebody may be joining with another match.
    Joining,
    Close,
}

impl Fetcher {
    pub(crate) async fn open(
        taking: RouteConsumer,
        route: Route,
        wants: mpsc::Receiver<FetchRequest>,
    ) -> Result<Self, QueueError> {
        let link = &taking.shared.link;
        let life = taking.shared.monitor.epoch_number();
        let events = PullConsumer::open(link, Shard::ONLY.events(), &route.name).await?;
        let retries = PullConsumer::open(link, RETRIES, &route.name).await?;
        let here = present(link, &route.name, &route.filter.digest());
        let presence = link
            .client
            .subscribe(here)
            .await
            .map_err(failed("showing that a route is served"))?;
        Ok(Self {
            presence,
            taking: Arc::new(taking),
            route,
            wants,
            want: None,
            events,
            retries,
            waiting: VecDeque::new(),
            lookups: JoinSet::new(),
            redelivered: VecDeque::new(),
            looking: CancellationToken::new(),
            unwanted: None,
            blocked: None,
            is_short: false,
            unpaused: Instant::now(),
            put_away: Arc::new(Semaphore::new(BATCH)),
            key_said: None,
            not_for_us: Vec::new(),
            is_superseded: false,
            joined_known: None,
            held_until: None,
            abandoned: 0,
            has_come: true,
            quiet_ticks: 0,
            settled: None,
            floor: SettledFloor::default(),
            life,
        })
    }

    pub(super) fn link(&self) -> NatsConnection {
        self.taking.shared.link.clone()
    }

    /// Runs until the consumer is dropped or the queue closes.
    pub(crate) async fn run(mut self) {
        // A quarter of the lease: a delivery that is handed out then still has a twelfth of it
        // before its own first heartbeat.
        let mut ticks = interval(self.route.lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connected = self.link().connected;
        connected.mark_unchanged();
        loop {
            self.deliver().await;
            self.ask().await;
            match self.step(&mut ticks, &mut connected).await {
                Step::Wanted(Some(want)) => self.want = Some(want),
                Step::Wanted(None) | Step::Close => break,
                Step::Event(came) => self.handle(self.events.stream, came).await,
                Step::Retry(came) => self.handle(self.retries.stream, came).await,
                Step::LookedUp(RedeliveryLookup::Delivery(taken)) => self.looked_up(taken).await,
                Step::LookedUp(_) | Step::Changed => {}
                Step::Tick => self.tick().await,
                Step::Due => self.overdue().await,
                Step::Connected => {
                    self.reset().await;
                    self.see_who_joined().await;
                }
                Step::Joining => self.see_who_joined().await,
            }
        }
        self.wind_down().await;
    }

    async fn step(
        &mut self,
        ticks: &mut Interval,
        connected: &mut tokio::sync::watch::Receiver<u64>,
    ) -> Step {
        let closing = self.taking.shared.closing.clone();
        let due = self.due();
        let blocked = Arc::clone(&self.taking.blocked);
        let in_hand = Arc::clone(&self.taking.in_hand);
        let unwanted = async {
            match &mut self.want {
                Some(want) => want.answer.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => Step::Close,
            want = self.wants.recv() => Step::Wanted(want),
            () = unwanted => {
                self.want = None;
                Step::Changed
            }
            Ok(()) = connected.changed() => Step::Connected,
            Some(_) = self.presence.next() => Step::Joining,
            _ = ticks.tick() => Step::Tick,
            () = sleep_until(due) => Step::Due,
            () = blocked.changed() => Step::Changed,
            () = in_hand.freed(), if self.is_short => Step::Changed,
            Some(Ok(looked_up)) = self.lookups.join_next() => Step::LookedUp(looked_up),
            came = self.retries.next() => Step::Retry(came),
            came = self.events.next() => Step::Event(came),
        }
    }

    /// Returns when something is to be done even if nothing comes.
    fn due(&self) -> Instant {
        let holds = !self.waiting.is_empty() || self.events.has_asked() || self.retries.has_asked();
        let unwanted = [self.unwanted, self.blocked]
            .into_iter()
            .flatten()
            .filter(|_| holds)
            .map(|since| since + self.unwanted_for())
            .min();
        let again = [self.events.not_before(), self.retries.not_before()];
        let again = again
            .into_iter()
            .filter(|at| *at > Instant::now() && self.is_wanted())
            .min();
        let new_until = self.want.as_ref().and_then(FetchRequest::only_new_until);
        let due = [
            unwanted,
            again,
            new_until,
            self.events.silent_at(),
            self.retries.silent_at(),
        ];
        due.into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + UNTIL_TICK)
    }

    fn unwanted_for(&self) -> Duration {
        UNWANTED_FOR.min(self.route.lease)
    }

    async fn overdue(&mut self) {
        if self
            .unwanted
            .is_some_and(|since| since.elapsed() >= self.unwanted_for())
        {
            self.give_back().await;
        }
        if self
            .blocked
            .is_some_and(|since| since.elapsed() >= self.unwanted_for())
        {
            self.leave_to_others().await;
            self.blocked = None;
        }
        let now = Instant::now();
        let is_silent = |source: &PullConsumer| source.silent_at().is_some_and(|at| at <= now);
        if is_silent(&self.events) || is_silent(&self.retries) {
            tracing::debug!(
                route = self.route.name,
                "nothing is heard of what was asked: asking again"
            );
            self.reset().await;
        }
    }

    /// Whether a caller waits for deliveries.
    fn is_wanted(&self) -> bool {
        self.want
            .as_ref()
            .is_some_and(|want| !want.answer.is_closed())
    }

    /// Whether there is no room to settle what comes from the stream of events. What comes from
    /// the retries is delivered all the same: it takes no more room there than it has, and makes
    /// room if its destination is back.
    fn is_blocked(&self) -> bool {
        self.taking.blocked.is_blocked()
    }

    /// Notes that events which are here can't be handed out, since they could not be settled.
    fn note_blocked(&mut self) {
        let stream = self.events.stream;
        let is_here = |taken: &PendingDelivery| taken.stream() == stream;
        let holds = self.waiting.iter().any(is_here)
            || self.redelivered.iter().any(is_here)
            || self.events.has_asked() && !self.events.is_brief();
        self.blocked = match self.is_blocked() && holds {
            true => self.blocked.or_else(|| Some(Instant::now())),
            false => None,
        };
    }

    /// Answers the waiting callers, if there is something for them.
    async fn deliver(&mut self) {
        self.waiting.retain(|taken| !taken.is_lost());
        self.note_blocked();
        if !self.is_wanted() {
            self.unwanted.get_or_insert_with(Instant::now);
            return;
        }
        self.unwanted = None;
        if !self.waiting.iter().any(|taken| self.may_be_taken(taken))
            || !self.confirm_unpaused().await
        {
            return;
        }
        let (mut ready, held): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|taken| self.may_be_taken(taken));
        let chosen = self.want.as_ref().and_then(|want| want.choose(&mut ready));
        self.waiting = ready;
        self.waiting.extend(held);
        let Some(taken) = chosen else { return };
        let Some(want) = self.want.take() else { return };
        let handing_out = Arc::clone(&self.taking).deliver_all(taken, want.answer);
        self.taking.shared.tasks.spawn(handing_out);
    }

    fn may_be_taken(&self, taken: &PendingDelivery) -> bool {
        !self.is_blocked() || taken.stream() != self.events.stream
    }

    /// Whether the waiting deliveries may be handed out. The server sends nothing of a paused
    /// route: a message that came just now shows that it is not paused.
    async fn confirm_unpaused(&mut self) -> bool {
        let is_news = |at: Instant| at.elapsed() < UNPAUSED_FOR;
        if is_news(self.unpaused) || self.waiting.iter().all(|taken| is_news(taken.since)) {
            return true;
        }
        let asked = Instant::now();
        match crate::api::consumer_info(&self.link(), self.events.stream, &self.route.name).await {
            Ok(info) if info.paused => {
                self.give_back().await;
                false
            }
            Ok(_) => {
                self.unpaused = asked;
                true
            }
            // Asked again with the next step; the leases are extended meanwhile.
            Err(_) => false,
        }
    }

    async fn ask(&mut self) {
        self.look_up();
        self.is_short = false;
        let Some(want) = self.want.as_ref().filter(|_| self.is_wanted()) else {
            return;
        };
        let is_for_new = want.only_new_until().is_some();
        let waiting = self
            .waiting
            .iter()
            .filter(|taken| self.may_be_taken(taken) && (!is_for_new || taken.is_new()))
            .count();
        let looked_up = self.lookups.len() + self.redelivered.len();
        let permits = want.permits.min(BATCH);
        let wanted = permits.saturating_sub(waiting + looked_up);
        // Lookups that hang must not keep new events from coming.
        let new = permits.saturating_sub(waiting + looked_up.saturating_sub(LOOKUPS));
        let link = self.link();
        let takes_events = !self.is_superseded && !self.is_blocked();
        let events = takes_events.then_some(&mut self.events);
        let retries = (!is_for_new).then_some(&mut self.retries);
        let sources = [(retries, wanted), (events, new)];
        for (source, wanted) in sources {
            let Some(source) = source else { continue };
            let allowed = self.taking.in_hand.allowed(wanted);
            self.is_short |= allowed == 0 && wanted > 0;
            if let Err(error) = source.ask(&link, allowed).await {
                tracing::debug!(route = self.route.name, %error, "deliveries can't be asked for now");
            }
        }
    }

    /// Begins to look up redeliveries, as many as may be looked up at once.
    fn look_up(&mut self) {
        while self.lookups.len() < LOOKUPS {
            let Some(taken) = self.redelivered.pop_front() else {
                return;
            };
            if !taken.is_lost() {
                let looking = Arc::clone(&self.taking).look_up(taken, self.looking.clone());
                self.lookups.spawn(looking);
            }
        }
    }

    /// Takes a message that came, and all others that are there without waiting.
    async fn handle(&mut self, stream: StreamName, first: Fetched) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            match next {
                Some(Fetched::Message(message)) => self.take(stream, message).await,
                Some(Fetched::Nothing) => {}
                Some(Fetched::Deleted) => self.rejoin(stream).await,
                None => break,
            }
            let source = if stream == self.events.stream {
                &mut self.events
            } else {
                &mut self.retries
            };
            next = source.next().now_or_never();
        }
        self.dismiss().await;
    }

    pub(super) async fn take(&mut self, stream: StreamName, message: Message) {
        self.has_come = true;
        if let Some(reply) = message
            .reply
            .clone()
            .filter(|_| self.is_left_to_others(stream))
        {
            // It was requested before the route was left to others.
            return self.taking.give_back(reply).await;
        }
        match self.taking.decode(stream, message).await {
            Decoded::Delivery(taken) => {
                self.source(stream).note_known();
                self.waiting.push_back(*taken);
            }
            Decoded::Redelivery(taken) => {
                self.source(stream).note_known();
                self.redelivered.push_back(*taken);
            }
            Decoded::Unverifiable(taken, why) => self.key_unknown(*taken, why).await,
            Decoded::NotForUs(reply) => self.not_for_us.push(reply),
            Decoded::NoRoom => self.source(stream).pause(),
            Decoded::Nothing => {}
        }
    }

    /// Returns the consumer on this stream.
    pub(super) fn source(&mut self, stream: StreamName) -> &mut PullConsumer {
        match stream == self.events.stream {
            true => &mut self.events,
            false => &mut self.retries,
        }
    }

    async fn tick(&mut self) {
        if !self.link().is_connected() {
            return;
        }
        for taken in self.waiting.iter_mut().chain(&mut self.redelivered) {
            if let Some(until) = self.taking.extend_lease(taken).await {
                taken.kept(until);
            }
        }
        // A route for which nothing comes is checked now and then.
        self.quiet_ticks = if self.has_come {
            0
        } else {
            self.quiet_ticks + 1
        };
        self.has_come = false;
        if !self.is_superseded && !self.quiet_ticks.is_multiple_of(QUIET_TICKS) {
            return;
        }
        let life = self.taking.shared.monitor.epoch_number();
        let asked = Instant::now();
        match crate::api::consumer_info(&self.link(), self.events.stream, &self.route.name).await {
            Ok(info) => {
                if info.paused {
                    self.give_back().await;
                } else {
                    self.unpaused = asked;
                }
                (self.settled, self.life) = (settled(&info), life);
                self.note_floor(&info, false);
                self.observe_filter_owner(&info).await;
                self.reclaim(&info).await;
            }
            Err(error) if error.is_missing() => self.rejoin(self.events.stream).await,
            Err(_) => {}
        }
    }

    async fn reset(&mut self) {
        let link = self.link();
        let retries = self.retries.reset(&link).await.unwrap_or_default();
        let events = self.events.reset(&link).await.unwrap_or_default();
        for (stream, rest) in [(self.retries.stream, retries), (self.events.stream, events)] {
            for message in rest {
                self.take(stream, message).await;
            }
        }
        self.dismiss().await;
    }

    pub(super) fn note_floor(&self, info: &Info, is_last: bool) {
        if let Some(settled) = settled(info) {
            self.floor
                .note(&self.taking.shared, &self.route.name, settled, is_last);
        }
    }
}
