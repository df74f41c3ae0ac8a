//! A whole route with a queue in memory, and a clock that the test controls.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dispatch::{AnyDispatcher, DispatchError, Done};
use event_model::SystemClock;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use process::{Readiness, StageWork};
use queue::{Consumer, Disposition};
use settings::{RateSettings, RetrySettings, RouteSettings, Routes, SettingsTree};
use tokio::time::{Instant, timeout};

use super::*;
use crate::notify::OutcomeHooks;
use crate::testing::{BrokenConsumer, FakeQueue, LEASE, ScriptedDispatcher, TestClock, route};
use crate::{RouteSelection, RunningRoutes, join_routes};

mod same_id;

const SECOND: Duration = Duration::from_secs(1);

fn open_route(
    settings: RouteSettings,
    consumer: impl Consumer + 'static,
    dispatcher: ScriptedDispatcher,
) -> OpenRoute {
    let opened = OpenedRoutes {
        dispatcher: AnyDispatcher::of(dispatcher),
        enrichment: None,
        then: OutcomeHooks::default(),
    };
    OpenRoute {
        settings,
        opened,
        dedup: None,
        same_id: None,
        consumer: Box::new(consumer),
        lease: LEASE,
    }
}

fn start(route: OpenRoute) -> Shutdown {
    let shutdown = Shutdown::manual(SECOND);
    let dispatching = RunningRoutes {
        routes: vec![route],
        unrouted: None,
        registry: StatusRegistry::default(),
        clock: Arc::new(TestClock),
    };
    dispatching.start(&shutdown);
    shutdown
}

fn start_route(
    settings: RouteSettings,
    consumer: impl Consumer + 'static,
    dispatcher: ScriptedDispatcher,
) -> Shutdown {
    start(open_route(settings, consumer, dispatcher))
}

fn unavailable() -> DispatchError {
    DispatchError::Transient {
        action: "testing",
        retry_after: None,
        status: Some(503),
        source: "x".into(),
    }
}

/// Returns when the event of this ref was done.
fn done_at(queue: &FakeQueue, reference: &str) -> Option<Instant> {
    let is_it = |(ended, disposition, _): &&(String, Disposition, Instant)| {
        ended == reference && *disposition == Disposition::Done
    };
    queue.ended().iter().find(is_it).map(|(_, _, at)| *at)
}

#[tokio::test(start_paused = true)]
async fn one_event_that_fails_for_ever_on_a_quiet_route_delays_no_other() {
    let queue = FakeQueue::default();
    let dispatcher = ScriptedDispatcher::new(|event| {
        let is_poison = event.fields().entity_ref.as_deref() == Some("poison");
        async move {
            if is_poison {
                Err(unavailable())
            } else {
                Ok(Done::default())
            }
        }
    });
    let quick = RetrySettings {
        max_delay: SECOND,
        ..RetrySettings::default()
    };
    start_route(
        RouteSettings {
            retry: quick,
            ..route("r")
        },
        queue.clone(),
        dispatcher,
    );
    queue.publish("poison");
    for number in 0..120 {
        sleep(30 * SECOND).await;
        let published = Instant::now();
        queue.publish(&number.to_string());
        sleep(SECOND).await;
        let done = done_at(&queue, &number.to_string()).expect("it is done at once");
        assert!(done - published < SECOND / 10, "{:?}", done - published);
    }
}

/// Each of them would be scheduled again, and given up once it has waited for too long.
#[tokio::test(start_paused = true)]
async fn a_destination_that_can_not_be_asked_leaves_the_backlog_in_the_queue() {
    const BACKLOG: usize = 500;
    let queue = FakeQueue::default();
    (0..BACKLOG).for_each(|number| queue.publish(&number.to_string()));
    let can_be_asked = Arc::new(AtomicBool::new(false));
    let is_there = Arc::clone(&can_be_asked);
    let tried = Arc::new(Mutex::new(HashSet::new()));
    let begun = Arc::clone(&tried);
    let dispatcher = ScriptedDispatcher::new(move |event| {
        begun.lock().unwrap().insert(event.id());
        let is_there = is_there.load(Ordering::Relaxed);
        async move {
            if is_there {
                return Ok(Done::default());
            }
            Err(DispatchError::not_asked("testing", None, "no password"))
        }
    });
    let settings = route("r");
    let concurrency = settings.concurrency;
    start_route(settings, queue.clone(), dispatcher);
    sleep(600 * SECOND).await;
    let begun = tried.lock().unwrap().len();
    // As many as were in hand, and one for each probe, of which the longest rest is 30 s.
    assert!(begun > 0 && begun < concurrency + 60, "{begun}");
    can_be_asked.store(true, Ordering::Relaxed);
    sleep(300 * SECOND).await;
    let done =
        |(_, disposition, _): &&(String, Disposition, Instant)| *disposition == Disposition::Done;
    assert_eq!(queue.ended().iter().filter(done).count(), BACKLOG);
}

/// Deliveries that wait for a suspect would count as crashed with it, and would all begin at once
/// behind it, whatever the rate.
#[tokio::test(start_paused = true)]
async fn nothing_is_taken_while_a_suspect_runs_alone() {
    for is_asked_before in [false, true] {
        let queue = FakeQueue::default();
        let isolation = Isolation::default();
        let dispatcher = ScriptedDispatcher::done_after(Duration::ZERO);
        let ten = NonZeroU32::new(10).unwrap();
        let rate = RateSettings {
            events: ten,
            per: SECOND,
            burst: ten,
        };
        let settings = RouteSettings {
            rate: Some(rate),
            concurrency: 256,
            ..route("r")
        };
        let shutdown = Shutdown::manual(SECOND);
        let running = run(
            open_route(settings, queue.clone(), dispatcher),
            isolation.clone(),
            StatusRegistry::default(),
            Arc::new(TestClock),
            shutdown.clone(),
        );
        let checked = async {
            if is_asked_before {
                // Long enough for the route to wait for deliveries.
                sleep(SECOND).await;
            }
            let suspect = isolation.enter(2).await;
            (0..100).for_each(|number| queue.publish(&number.to_string()));
            sleep(3 * SECOND).await;
            assert_eq!(queue.waiting(), 100, "asked before: {is_asked_before}");
            drop(suspect);
            sleep(SECOND / 2).await;
            let begun = queue.ended().len();
            assert!((1..=20).contains(&begun), "{begun} began at once");
            sleep(20 * SECOND).await;
            assert_eq!(queue.ended().len(), 100, "all come");
        };
        tokio::select! {
            () = running => panic!("the route ended"),
            () = checked => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn once_the_breaker_is_open_no_more_is_attempted_than_was_asked_for() {
    const CONCURRENCY: usize = 4;
    let queue = FakeQueue::default();
    let begun = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&begun);
    let dispatcher = ScriptedDispatcher::new(move |_| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(SECOND / 10 + SECOND / 100 * number).await;
            Err(unavailable())
        }
    });
    (0..100).for_each(|number| queue.publish(&number.to_string()));
    let shutdown = start_route(
        RouteSettings {
            concurrency: CONCURRENCY,
            ..route("r")
        },
        queue,
        dispatcher,
    );
    // It opens with the fifth failure, a quarter of a second after the beginning.
    sleep(SECOND).await;
    let first = begun.load(Ordering::Relaxed);
    assert!(first <= 5 + CONCURRENCY as u32, "{first}");
    sleep(9 * SECOND).await;
    let probes = begun.load(Ordering::Relaxed) - first;
    assert!(
        (1..=3).contains(&probes),
        "one after each rest of 1, 2 and 4 s: {probes}"
    );
    shutdown.finish().await;
}

/// A consumer that fails every other time.
#[derive(Debug)]
struct Interrupted {
    queue: FakeQueue,
    calls: u32,
}

impl Consumer for Interrupted {
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.calls += 1;
        match self.calls.is_multiple_of(2) {
            true => ready(Err(QueueError::unavailable("testing", "no connection"))).boxed(),
            false => self.queue.next(permits),
        }
    }

    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.next(1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_attempts_no_more_than_its_rate_and_a_burst_also_where_its_queue_comes_and_goes() {
    const EACH: Duration = Duration::from_secs(20);
    const BURST: u64 = 3;
    let number = |number| NonZeroU32::new(number).unwrap();
    let rate = RateSettings {
        events: number(3),
        per: EACH * 3,
        burst: number(3),
    };
    let queue = FakeQueue::default();
    let began = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&began);
    let dispatcher = ScriptedDispatcher::new(move |_| {
        noted.lock().unwrap().push(Instant::now());
        async { Ok(Done::default()) }
    });
    (0..100).for_each(|number| queue.publish(&number.to_string()));
    let consumer = Interrupted {
        queue: queue.clone(),
        calls: 0,
    };
    start_route(
        RouteSettings {
            rate: Some(rate),
            ..route("r")
        },
        consumer,
        dispatcher,
    );
    sleep(EACH * 30).await;
    let began = began.lock().unwrap().clone();
    assert!(began.len() >= 20, "the rate is used: {}", began.len());
    for (index, from) in began.iter().enumerate() {
        for (count, until) in began[index..].iter().enumerate() {
            let count = count as u64 + 1;
            let time = *until - *from;
            let most = time.as_secs() / EACH.as_secs() + BURST;
            assert!(count <= most, "{count} in {time:?}, {most} may");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_well_for_what_is_new_is_found_so_beside_many_that_fail() {
    let queue = FakeQueue::default();
    let dispatcher = ScriptedDispatcher::new(|event| {
        let is_poison = event
            .fields()
            .entity_ref
            .as_deref()
            .is_some_and(|it| it.starts_with("poison"));
        async move {
            if is_poison {
                Err(unavailable())
            } else {
                Ok(Done::default())
            }
        }
    });
    let quick = RetrySettings {
        max_delay: SECOND,
        ..RetrySettings::default()
    };
    let settings = RouteSettings {
        retry: quick,
        concurrency: 4,
        ..route("r")
    };
    let breaker = settings.breaker.expect("one by default");
    start_route(settings, queue.clone(), dispatcher);
    (0..300).for_each(|number| queue.publish_for(&format!("poison {number}"), 2));
    sleep(60 * SECOND).await;
    queue.publish("well");
    let published = Instant::now();
    sleep(breaker.max_cooldown * 2).await;
    let done = done_at(&queue, "well").expect("it is done by the next probe");
    assert!(
        done - published <= breaker.max_cooldown,
        "{:?}",
        done - published
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_up_while_a_destination_is_left_alone() {
    let queue = FakeQueue::default();
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let dispatcher = ScriptedDispatcher::new(move |_| {
        let is_back = back.load(Ordering::Relaxed);
        async move {
            if is_back {
                Ok(Done::default())
            } else {
                Err(unavailable())
            }
        }
    });
    let retry = RetrySettings {
        attempts: Some(3),
        max_elapsed: 60 * SECOND,
        ..RetrySettings::default()
    };
    start_route(
        RouteSettings {
            retry,
            ..route("r")
        },
        queue.clone(),
        dispatcher,
    );
    (0..20).for_each(|number| queue.publish(&number.to_string()));
    sleep(6 * 3600 * SECOND).await;
    assert_eq!(
        queue.ended(),
        [],
        "it is away for six hours, longer than any budget"
    );
    is_back.store(true, Ordering::Relaxed);
    sleep(2 * 3600 * SECOND).await;
    assert!(
        queue
            .ended()
            .iter()
            .all(|(_, disposition, _)| *disposition == Disposition::Done)
    );
    assert_eq!(queue.ended().len(), 20);
}

#[tokio::test]
async fn a_route_that_ends_ends_the_process_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let queue = embedded(folder.path()).await;
    for broken in [BrokenConsumer::Panics, BrokenConsumer::IsClosed] {
        let shutdown = start_route(route("r"), broken, ScriptedDispatcher::done_after(SECOND));
        let readiness = Readiness::new(&shutdown);
        let stopped = process::until_stopped(
            &queue.lifecycle,
            StageWork::Delivering(Arc::clone(&queue.source)),
            &readiness,
            &shutdown,
        );
        let ended = timeout(60 * SECOND, stopped)
            .await
            .expect("the process ends");
        let said = ended.expect_err("with an error").to_string();
        assert!(
            said.contains("the task of route r ended"),
            "{broken:?}: {said}"
        );
        assert!(!readiness.get(), "{broken:?}");
        shutdown.finish().await;
    }
    queue.lifecycle.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_ends_with_its_process_is_no_error() {
    let shutdown = start_route(
        route("r"),
        FakeQueue::default(),
        ScriptedDispatcher::done_after(SECOND),
    );
    sleep(SECOND).await;
    shutdown.finish().await;
    assert!(
        timeout(SECOND, shutdown.critical_task_ended())
            .await
            .is_err()
    );
}

/// Opens the embedded queue in this folder, with the machine's clock.
async fn embedded(folder: &Path) -> queues::OpenedQueue {
    let path = folder.join("queue.db");
    let yaml = format!(
        "fluent-connect: {{ accounts: [], queue: {{ path: {} }} }}",
        path.display()
    );
    let tree = SettingsTree::parse(Path::new("application.yml"), &yaml, []).unwrap();
    queues::open(&tree.queue().unwrap(), "test", Arc::new(SystemClock))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_outlasts_its_lease_in_a_real_queue_is_made_once() {
    // Who stands still for as long loses it.
    const BRIEF: Duration = Duration::from_secs(3);
    let folder = tempfile::tempdir().unwrap();
    let queue = embedded(folder.path()).await;
    queue
        .intake
        .publish(queue::conformance::event("E", "slow"))
        .await
        .unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let dispatcher = ScriptedDispatcher::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(BRIEF * 3).await;
            Ok(Done::default())
        }
    });
    let opened = open_route(route("r"), FakeQueue::default(), dispatcher).opened;
    let routes = Routes(vec![route("r")]);
    let selection = RouteSelection::everything();
    let clock = Arc::new(SystemClock);
    let joined = join_routes(
        &routes,
        &selection,
        vec![opened],
        &queue.source,
        clock,
        BRIEF,
    )
    .await
    .unwrap();
    let shutdown = Shutdown::manual(SECOND);
    joined.start(&shutdown);
    let is_done = async || {
        let stories = queue.stores.history().find("slow", 1).await.unwrap();
        stories.iter().any(|story| {
            story
                .steps
                .iter()
                .any(|step| format!("{step:?}").contains("Done"))
        })
    };
    let done = async {
        while !is_done().await {
            sleep(SECOND / 10).await;
        }
    };
    timeout(60 * SECOND, done).await.expect("it is done");
    // Long enough for a lost lease to be seen.
    sleep(BRIEF + SECOND).await;
    assert_eq!(count.load(Ordering::Relaxed), 1);
    shutdown.finish().await;
    queue.lifecycle.close().await;
}
