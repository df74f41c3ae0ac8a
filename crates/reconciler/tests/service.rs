//! The service: where it goes on, what it looks at again, and that no account waits for another.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use event_model::{
    Account, Accounts as Listed, Clock, Environment, Event, EventId, FixedClock, FluentKey,
    SystemClock, Timestamp,
};
use fluent_api::{
    Accounts, Client, Credentials, Limits, LoginLedger, MemoryLedger, Options, ReadSecret,
};
use fluent_reconciler::{
    MissingEvent, Mode, Observer, ReconcileError, Reconciler, Summary, Window,
};
use futures::future::BoxFuture;
use queue::conformance::event;
use queue::facts::{compared_until, set_compared_until};
use queue::{
    AttemptPage, AttemptQuery, DeadLetters, FactAccess, FactStore, History, Intake, MatchFields,
    Pause, Position, Quarantine, QueueError, ReceivedKeys, ReceivedPage, ReceivedQuery,
    RejectedStore, ReplayOutcome, RouteState, StartPosition, Stores, StoresHealth,
};
use queue_embedded::Embedded;
use settings::{
    ApiAccount, ApiSettings, OnSameId, ReconcileSettings, RetrySettings, RouteSettings, Routes,
    SecretFile,
};
use simulator::api::{Fluent, LOGIN, Sending, World};
use tempfile::TempDir;

const PLACE: &str = "sandbox.ACME";

/// A queue, a Fluent and their settings, since two hours ago.
struct Here {
    queue: Embedded,
    settings: ReconcileSettings,
    apis: Accounts,
    listed: Listed,
    _folder: TempDir,
}

fn ago(minutes: u64) -> Timestamp {
    SystemClock
        .now()
        .checked_sub(Duration::from_mins(minutes))
        .unwrap()
}

fn ledger() -> Arc<dyn LoginLedger> {
    Arc::new(MemoryLedger::new(|| SystemClock.now()))
}

fn client(account: &str, fluent: &Fluent) -> Client {
    let secret = || -> ReadSecret { Arc::new(|| Ok(LOGIN.to_owned())) };
    let username = LOGIN.to_owned();
    let client_id = LOGIN.to_owned();
    let credentials = Credentials {
        username,
        password: secret(),
        client_id,
        client_secret: secret(),
    };
    let limits = Limits {
        per_second: NonZeroU32::new(1000).unwrap(),
        ..Limits::default()
    };
    Client::new(Options {
        base: fluent.url().parse().unwrap(),
        account: account.to_owned(),
        environment: "sandbox".to_owned(),
        credentials,
        limits,
        ledger: ledger(),
    })
    .unwrap()
}

fn account(name: &str, url: &str) -> ApiAccount {
    let nothing = || SecretFile {
        file: PathBuf::new(),
    };
    let api = ApiSettings {
        url: None,
        username: String::new(),
        password: nothing(),
        client_id: String::new(),
        client_secret: nothing(),
        concurrency: NonZeroU32::MIN,
        requests_per_second: NonZeroU32::MIN,
        timeout: Duration::from_secs(10),
    };
    ApiAccount {
        name: name.to_owned(),
        environment: Environment::Sandbox,
        url: url.parse().unwrap(),
        api,
    }
}

async fn fluent(account: &str) -> Fluent {
    Fluent::open(([127, 0, 0, 1], 0).into(), World::new(account, 34))
        .await
        .unwrap()
}

/// Makes an event of so many minutes ago that was not received; returns Fluent's id of it.
fn lose(fluent: &Fluent, minutes: u64) -> String {
    let order = fluent.world().place_order();
    fluent
        .world()
        .webhook_of("E", &order, Duration::from_mins(minutes), Sending::Failed);
    fluent
        .world()
        .log()
        .iter()
        .rfind(|record| record["name"] == "E")
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

impl Here {
    fn new(fluents: &[(&str, &Fluent)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = queue_embedded::Options::new(folder.path().join("queue.db"));
        // The last two hours are known: nothing was received.
        let queue = Embedded::open(options, Arc::new(FixedClock(ago(120)))).unwrap();
        let key = || "sydney_sandbox".parse().unwrap();
        let listed = fluents.iter().map(|(name, _)| Account {
            name: (*name).to_owned(),
            key: key(),
            retailers: None,
        });
        let settings = ReconcileSettings {
            seal: None,
            event_names: vec!["E".to_owned()],
            accounts: fluents
                .iter()
                .map(|(name, fluent)| account(name, &fluent.url()))
                .collect(),
            interval: Duration::from_millis(200),
            lookback: Duration::from_hours(1),
            min_age: Duration::from_mins(2),
        };
        let with = |apis: Accounts, (name, fluent): &(&str, &Fluent)| {
            apis.with(name, "sandbox", client(name, fluent))
        };
        let apis = fluents.iter().fold(Accounts::default(), with);
        Self {
            queue,
            settings,
            apis,
            listed: Listed::new(listed),
            _folder: folder,
        }
    }

    /// Returns Fluent's ids of the events that were admitted.
    async fn admitted(&self) -> Vec<String> {
        let all = ReceivedQuery {
            from: ago(10_000),
            until: Timestamp::MAX,
            after: Position::START,
            limit: 100,
        };
        let page = self.queue.stores().history().received(all).await.unwrap();
        page.events
            .iter()
            .filter_map(|(_, event)| event.fields().fluent_event_id.clone())
            .collect()
    }

    /// Serves until these are admitted.
    async fn serve_until(&self, admitted: &[&String]) {
        let until = async {
            self.wait_for(admitted).await;
            // Once more, for events that should not be admitted.
            tokio::time::sleep(self.settings.interval * 3).await;
        };
        self.serve_by(Arc::new(SystemClock), until).await;
    }

    async fn wait_for(&self, admitted: &[&String]) {
        let began = Instant::now();
        loop {
            let found = self.admitted().await;
            if admitted.iter().all(|id| found.contains(id)) {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "not admitted: {admitted:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Serves by this clock until `until` resolves.
    async fn serve_by(&self, clock: Arc<dyn Clock>, until: impl Future<Output = ()>) {
        self.serve_with(clock, |reconciler| reconciler, until).await;
    }

    async fn serve_with(
        &self,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(Reconciler<'_>) -> Reconciler<'_>,
        until: impl Future<Output = ()>,
    ) {
        let routes = routes();
        let reconciler = Reconciler::new(
            &self.queue,
            &self.settings,
            &self.apis,
            &self.listed,
            &routes,
            clock,
        );
        let reconciler = change(reconciler);
        tokio::select! {
            () = fluent_reconciler::serve(&reconciler) => {}
            () = until => {}
        }
    }
}

/// Returns a route that takes what was reconciled.
fn routes() -> Routes {
    let origin = vec!["webhook".to_owned(), "reconciled".to_owned()];
    Routes(vec![RouteSettings {
        name: "r".to_owned(),
        terms: MatchFields {
            origin,
            ..MatchFields::default()
        },
        repeated: Vec::new(),
        start: StartPosition::Now,
        concurrency: 1,
        retry: RetrySettings::default(),
        rate: None,
        breaker: None,
        enrich: None,
        entity_check: None,
        same_id: OnSameId::Deliver,
        dispatcher: "log".to_owned(),
        table: serde_json::json!({}),
        on_success: None,
        on_dead_letter: None,
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_it_was() {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let before = lose(&fluent, 50);
    let after = lose(&fluent, 5);
    set_compared_until(here.queue.facts(), PLACE, ago(20))
        .await
        .unwrap();
    here.serve_until(&[&after]).await;
    assert!(
        !here.admitted().await.contains(&before),
        "that was compared by somebody before"
    );
    let now = compared_until(here.queue.facts(), PLACE)
        .await
        .unwrap()
        .unwrap();
    assert!(now > ago(3) && now <= ago(2), "{now}");
}

/// Counts how often everything since a time was read, and not only what came meanwhile.
#[derive(Debug)]
struct Counting<'q> {
    queue: &'q Embedded,
    passes: AtomicU32,
    /// Keys that headers of messages name, which are of no genuine event.
    named: Vec<FluentKey>,
    /// Number of minutes that retention takes away whenever somebody asks what is kept.
    pruned: u32,
    asked: AtomicU32,
}

impl<'q> Counting<'q> {
    fn new(queue: &'q Embedded) -> Self {
        Self {
            queue,
            passes: AtomicU32::new(0),
            named: Vec::new(),
            pruned: 0,
            asked: AtomicU32::new(0),
        }
    }
}

impl History for Counting<'_> {
    fn received_keys(
        &self,
        query: ReceivedQuery,
    ) -> BoxFuture<'_, Result<ReceivedKeys, QueueError>> {
        self.passes
            .fetch_add(u32::from(query.after == Position::START), Ordering::Relaxed);
        let is_first = query.after == Position::START;
        Box::pin(async move {
            let mut page = self.queue.history().received_keys(query).await?;
            if is_first {
                let position = |number| Position::new(0, number).unwrap();
                let named = (1..).zip(&self.named);
                let named = named.map(|(number, key)| (position(number), *key));
                page.keys.extend(named);
            }
            Ok(page)
        })
    }

    fn genuine_keys(
        &self,
        keys: Vec<(Position, FluentKey)>,
    ) -> BoxFuture<'_, Result<Vec<FluentKey>, QueueError>> {
        let genuine = keys.into_iter().map(|(_, key)| key);
        let genuine = genuine.filter(|key| !self.named.contains(key)).collect();
        Box::pin(std::future::ready(Ok(genuine)))
    }

    fn received(&self, query: ReceivedQuery) -> BoxFuture<'_, Result<ReceivedPage, QueueError>> {
        self.queue.history().received(query)
    }

    fn complete_since(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let pruned = Duration::from_mins(u64::from(asked * self.pruned));
        Box::pin(async move {
            let since = self.queue.history().complete_since().await?;
            Ok(since.checked_add(pruned).unwrap())
        })
    }

    fn find_before<'a>(
        &'a self,
        reference: &'a str,
        before: Option<Position>,
        limit: usize,
    ) -> BoxFuture<'a, Result<queue::StoryPage, QueueError>> {
        self.queue.history().find_before(reference, before, limit)
    }

    fn event_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Event>, QueueError>> {
        self.queue.history().event_at(position)
    }

    fn event<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Event>, QueueError>> {
        self.queue.history().event(reference)
    }

    fn accepted(
        &self,
        query: queue::AcceptedQuery,
    ) -> BoxFuture<'_, Result<queue::AcceptedPage, QueueError>> {
        self.queue.history().accepted(query)
    }

    fn attempts(&self, query: AttemptQuery) -> BoxFuture<'_, Result<AttemptPage, QueueError>> {
        self.queue.history().attempts(query)
    }
}

impl FactAccess for Counting<'_> {
    fn facts(&self) -> &dyn FactStore {
        self.queue.facts()
    }
}

impl Stores for Counting<'_> {
    fn history(&self) -> &dyn History {
        self
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        self.queue.dead_letters()
    }

    fn quarantine(&self) -> &dyn Quarantine {
        self.queue.stores().quarantine()
    }

    fn refused(&self) -> &dyn RejectedStore {
        self.queue.refused()
    }

    fn publish_if_new(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        self.queue.publish_if_new(event)
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        self.queue.stores().health()
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        Stores::routes(self.queue)
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.queue.forget(route)
    }

    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        self.queue.set_paused(route, pause)
    }

    fn retry_now<'a>(
        &'a self,
        route: &'a str,
        event: EventId,
    ) -> BoxFuture<'a, Result<u64, QueueError>> {
        self.queue.retry_now(route, event)
    }

    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.queue.close_breakers(route)
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.queue.replay(route, events, again)
    }

    fn preview_replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.queue.preview_replay(route, events, again)
    }

    fn number_replay<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<u32, QueueError>> {
        self.queue.number_replay(route)
    }

    fn replay_as<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
        number: u32,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.queue.replay_as(route, events, again, number)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_goes_on_meanwhile_stops_no_comparison() {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let removed = lose(&fluent, 119);
    let kept = lose(&fluent, 70);
    // Everything is kept since two hours ago, which is where it goes on.
    set_compared_until(here.queue.facts(), PLACE, ago(180))
        .await
        .unwrap();
    let stores = Counting {
        pruned: 1,
        ..Counting::new(&here.queue)
    };
    let routes = routes();
    let clock = Arc::new(SystemClock);
    let reconciler = Reconciler::new(
        &stores,
        &here.settings,
        &here.apis,
        &here.listed,
        &routes,
        clock,
    );
    let compared = async {
        here.wait_for(&[&kept]).await;
        while compared_until(here.queue.facts(), PLACE)
            .await
            .unwrap()
            .is_none_or(|to| to < ago(5))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = fluent_reconciler::serve(&reconciler) => {}
        () = compared => {}
    }
    assert!(
        !here.admitted().await.contains(&removed),
        "whether it came is not known any more"
    );
}

/// Compares what is kept and a bit before, while retention goes on.
async fn compare_at_the_edge(before: u64) -> (Result<(), ReconcileError>, Summary, Vec<String>) {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let removed = lose(&fluent, 119);
    let kept = lose(&fluent, 70);
    let stores = Counting {
        pruned: 1,
        ..Counting::new(&here.queue)
    };
    let routes = routes();
    let clock = Arc::new(SystemClock);
    let reconciler = Reconciler::new(
        &stores,
        &here.settings,
        &here.apis,
        &here.listed,
        &routes,
        clock,
    );
    let since = reconciler.earliest().await.unwrap();
    let window = Window {
        from: since.checked_sub(Duration::from_mins(before)).unwrap(),
        until: ago(5),
    };
    let mut tally = Summary::default();
    let mut told = Told::default();
    let account = &here.settings.accounts[0];
    let mode = Mode::default();
    let compared = reconciler
        .compare(account, window, mode, &mut tally, &mut told)
        .await;
    assert!(!told.0.contains(&removed), "{told:?}");
    told.0.iter_mut().for_each(|id| {
        *id = if *id == kept {
            "kept".to_owned()
        } else {
            id.clone()
        }
    });
    (compared, tally, told.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_where_it_was_told_to_begin_is_told_what_is_left_out() {
    let (compared, tally, told) = compare_at_the_edge(0).await;
    compared.unwrap();
    assert_eq!(told, ["kept"]);
    assert_eq!((tally.logged, tally.received, tally.missing), (1, 0, 1));
    let left_out = tally.known_since.unwrap();
    assert!(left_out > ago(120) && left_out < ago(105), "{left_out}");
    let (compared, tally, told) = compare_at_the_edge(30).await;
    assert!(
        matches!(compared, Err(ReconcileError::Unknown { .. })),
        "{compared:?}"
    );
    assert_eq!((told.len(), tally), (0, Summary::default()));
}

#[derive(Debug, Default)]
struct Told(Vec<String>);

impl Observer for Told {
    fn missing(&mut self, missing: MissingEvent) {
        self.0.push(missing.fluent_event_id);
    }

    fn read(&mut self, _: Timestamp) {}
}

const TEN_YEARS: Duration = Duration::from_hours(10 * 365 * 24);

/// A clock that is so many minutes behind until a time has passed.
#[derive(Debug)]
struct BehindClock(u64, Arc<AtomicBool>);

impl Clock for BehindClock {
    fn now(&self) -> Timestamp {
        if self.1.load(Ordering::SeqCst) {
            ago(0)
        } else {
            ago(self.0)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compared_by_a_clock_a_little_ahead_is_compared_again() {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let has_passed = Arc::new(AtomicBool::new(false));
    // Twenty minutes ago the machine's clock was fifteen ahead.
    let clock = Arc::new(BehindClock(5, Arc::clone(&has_passed)));
    let steady = Arc::new(BehindClock(20, Arc::clone(&has_passed)));
    let until = async {
        let before = lose(&fluent, 30);
        here.wait_for(&[&before]).await;
        while compared_until(here.queue.facts(), PLACE)
            .await
            .unwrap()
            .is_none_or(|to| to < ago(8))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let after = lose(&fluent, 19);
        has_passed.store(true, Ordering::SeqCst);
        here.wait_for(&[&after]).await;
    };
    here.serve_with(
        clock,
        |reconciler| reconciler.with_steady_clock(steady),
        until,
    )
    .await;
}

/// The machine's clock, or one ten years ahead.
#[derive(Debug, Default)]
struct AheadClock(AtomicBool);

impl Clock for AheadClock {
    fn now(&self) -> Timestamp {
        let ahead = if self.0.load(Ordering::SeqCst) {
            TEN_YEARS
        } else {
            Duration::ZERO
        };
        SystemClock.now().checked_add(ahead).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_for_a_while_leaves_no_time_out() {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let clock = Arc::new(AheadClock::default());
    let before = lose(&fluent, 30);
    let until = async {
        here.wait_for(&[&before]).await;
        clock.0.store(true, Ordering::SeqCst);
        while compared_until(here.queue.facts(), PLACE)
            .await
            .unwrap()
            .is_none_or(|to| to < SystemClock.now())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        clock.0.store(false, Ordering::SeqCst);
        let after = lose(&fluent, 5);
        here.wait_for(&[&after]).await;
    };
    let serving: Arc<dyn Clock> = Arc::<AheadClock>::clone(&clock);
    here.serve_by(serving, until).await;
    // Another process finds the position that the wrong clock has made.
    set_compared_until(
        here.queue.facts(),
        PLACE,
        SystemClock.now().checked_add(TEN_YEARS).unwrap(),
    )
    .await
    .unwrap();
    let later = lose(&fluent, 10);
    here.serve_until(&[&later]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_is_read_once_for_all_hours() {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let lost = [110, 70, 40, 10].map(|minutes| lose(&fluent, minutes));
    // Without an event that was received, there is nothing to go on from.
    here.queue.publish(event("F", "came")).await.unwrap();
    // Somebody who can write to the queue names one of them, so that it is not missed.
    let named = FluentKey::of(Environment::Sandbox, "ACME", &lost[0], "E");
    let stores = Counting {
        queue: &here.queue,
        named: vec![named],
        ..Counting::new(&here.queue)
    };
    let clock = Arc::new(SystemClock);
    let routes = Routes(Vec::new());
    let reconciler = Reconciler::new(
        &stores,
        &here.settings,
        &here.apis,
        &here.listed,
        &routes,
        clock,
    );
    let window = Window {
        from: ago(119),
        until: ago(5),
    };
    let mut tally = Summary::default();
    let mut told = Told::default();
    let account = &here.settings.accounts[0];
    let compared = reconciler
        .compare(account, window, Mode::default(), &mut tally, &mut told)
        .await;
    compared.unwrap();
    assert_eq!((told.0, tally.logged, tally.missing), (lost.to_vec(), 4, 4));
    assert_eq!(stores.passes.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_log_shows_late_is_found() {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let first = lose(&fluent, 30);
    here.serve_until(&[&first]).await;
    // Written eight minutes ago, and visible only now.
    let late = lose(&fluent, 8);
    here.serve_until(&[&late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fluent_works_on_is_looked_at_again() {
    let fluent = fluent("ACME").await;
    let here = Here::new(&[("ACME", &fluent)]);
    let pending = lose(&fluent, 40);
    let other = lose(&fluent, 30);
    fluent
        .world()
        .set_in_log(&pending, "eventStatus", "PENDING".into());
    here.serve_until(&[&other]).await;
    assert!(!here.admitted().await.contains(&pending));
    fluent
        .world()
        .set_in_log(&pending, "eventStatus", "SUCCESS".into());
    here.serve_until(&[&pending]).await;
    assert_eq!(here.admitted().await.len(), 2, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_answer_keeps_no_other_waiting() {
    let slow = fluent("SLOW").await;
    let quick = fluent("QUICK").await;
    slow.behave(|behaviour| behaviour.latency = Duration::from_secs(60));
    let here = Here::new(&[("SLOW", &slow), ("QUICK", &quick)]);
    let lost = lose(&quick, 10);
    here.serve_until(&[&lost]).await;
}
