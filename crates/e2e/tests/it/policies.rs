//! A route's rate, breaker and pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::deployment::{Deployment, Plan};
use queue::PAUSES_WITHIN;
use serde_json::{Value, json};

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{HANGS, SLOW, Sink, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    let sink = Sink::open().await;
    let routes = [
        sink.route("slow", "match: {}, rate: { events: 20, per: 1s, burst: 5 }"),
        sink.route("fast", "match: {}"),
    ];
    let pipeline = Pipeline::start(&routes.concat());
    let began = Instant::now();
    for number in 0..45 {
        pipeline.accept(&signed("E", &format!("R_{number}"))).await;
    }
    let count = |route: &str| {
        sink.requests()
            .iter()
            .filter(|request| request.path == format!("/{route}"))
            .count()
    };
    until("the other route is done", || count("fast") == 45).await;
    until("this one too, in its own time", || count("slow") == 45).await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(1950),
        "5 at once, then 40 at 20 a second: {took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_leaves_a_failing_destination_alone_and_burns_no_attempts() {
    const COOLDOWN: Duration = Duration::from_millis(400);
    let (is_back, failures) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (back, failed) = (Arc::clone(&is_back), Arc::clone(&failures));
    let sink = Sink::answering(move |_, _| {
        let is_back = back.load(Ordering::Relaxed);
        failed.fetch_add(usize::from(!is_back), Ordering::Relaxed);
        status(if is_back { 200 } else { 503 })
    })
    .await;
    let policy = "match: {}, concurrency: 1, breaker: { failures: 3, cooldown: 400ms, max-cooldown: 400ms }, retry: { initial: 100ms, max-delay: 200ms, max-elapsed: 1h }";
    let pipeline = Pipeline::start(&sink.route("all", policy));
    for number in 0..30 {
        pipeline.accept(&signed("E", &format!("B_{number}"))).await;
    }
    until("it opened", || pipeline.log().contains("left alone")).await;
    // While it stays away, one attempt for each rest, whatever waits.
    let before = sink.len();
    let began = Instant::now();
    until("it asked again", || sink.len() >= before + 4).await;
    let asked = u32::try_from(sink.len() - before).unwrap();
    assert!(
        began.elapsed() >= (asked - 1) * COOLDOWN,
        "{asked} attempts within {:?}",
        began.elapsed()
    );
    is_back.store(true, Ordering::Relaxed);
    until("all arrived", || sink.counts().len() == 30).await;
    until("it closed", || {
        pipeline.log().contains("the destination is back")
    })
    .await;
    let failures = failures.load(Ordering::Relaxed);
    assert_eq!(
        sink.len(),
        failures + 30,
        "one attempt each, once it was back"
    );
    assert_eq!(pipeline.json(&["dead-letters", "list"]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_fails_for_ever_delays_no_other() {
    let sink = Sink::answering(|request, _| {
        let is_poison = String::from_utf8_lossy(&request.body).contains("POISON");
        status(if is_poison { 503 } else { 200 })
    })
    .await;
    let retry = "retry: { initial: 50ms, max-delay: 100ms, max-elapsed: 1h }";
    let pipeline = Pipeline::start(&sink.route("all", &format!("match: {{}}, {retry}")));
    pipeline.accept(&signed("E", "POISON")).await;
    for number in 0..5 {
        let tried = sink.len();
        until("it was tried ten times more", || sink.len() >= tried + 10).await;
        let reference = format!("GOOD_{number}");
        pipeline.accept(&signed("E", &reference)).await;
        let is_there = || {
            sink.requests().iter().any(|sent| {
                sent.body
                    .as_ref()
                    .windows(reference.len())
                    .any(|part| part == reference.as_bytes())
            })
        };
        // The one that fails would keep it for an hour.
        until("the other is there", is_there).await;
    }
    assert!(!pipeline.log().contains("left alone"), "{}", pipeline.log());
}

fn state(found: &Value, route: &str) -> bool {
    let routes = found.as_array().unwrap();
    routes.iter().find(|state| state["route"] == route).unwrap()["paused"]
        .as_bool()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_route_holds_its_events_until_it_is_resumed() {
    let sink = Sink::open().await;
    let other = Sink::open().await;
    let routes = sink.route("all", "match: {}") + &other.route("other", "match: {}");
    let mut pipeline = Pipeline::start(&routes);
    assert!(
        pipeline
            .command(&["routes", "pause", "all"])
            .status
            .success()
    );
    // From then on nothing begins: the time is the promise.
    tokio::time::sleep(PAUSES_WITHIN).await;
    pipeline.accept(&signed("E", "P_1")).await;
    assert!(state(&pipeline.json(&["routes", "list"]), "all"));
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    pipeline.accept(&signed("E", "P_2")).await;
    until("a route that is not paused has both", || other.len() == 2).await;
    assert_eq!(sink.len(), 0, "also after a restart");
    assert!(
        pipeline
            .command(&["routes", "resume", "all"])
            .status
            .success()
    );
    until("both arrived", || sink.len() == 2).await;
    assert!(
        sink.requests()
            .iter()
            .all(|request| request.header("fluent-attempt") == "1")
    );
    let unknown = pipeline.command(&["routes", "pause", "nowhere"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_the_operator_pauses_every_dispatcher() {
    let sink = Sink::open().await;
    let other = Sink::open().await;
    let plan = Plan {
        servers: 1,
        gateways: 1,
        ..Plan::new(sink.route("all", "match: {}") + &other.route("other", "match: {}"))
    };
    let deployment = Deployment::start(plan);
    let paused = deployment.command("operator", &["routes", "pause", "all"]);
    assert!(paused.status.success(), "{paused:?}");
    // From then on nothing begins: the time is the promise.
    tokio::time::sleep(PAUSES_WITHIN).await;
    let sender =
        simulator::Sender::new(deployment.gateways[0].url(), simulator::Retry::Never).unwrap();
    assert_eq!(
        sender
            .send(&signed("E", "P_1"))
            .await
            .answer
            .unwrap()
            .status,
        200
    );
    assert!(state(&deployment.json(&["routes", "list"]), "all"));
    until("a route that is not paused has it", || other.len() == 1).await;
    assert_eq!(sink.len(), 0);
    assert!(
        deployment
            .command("operator", &["routes", "resume", "all"])
            .status
            .success()
    );
    until("it arrived", || sink.len() == 1).await;
    assert_eq!(sink.requests()[0].header("fluent-attempt"), "1");
}

fn working(found: &Value, route: &str) -> Vec<(Value, Value)> {
    let routes = found.as_array().unwrap();
    let state = routes.iter().find(|state| state["route"] == route).unwrap();
    let working = state["processes"].as_array().unwrap();
    working
        .iter()
        .map(|working| (working["breaker"].clone(), working["throttled"].clone()))
        .collect()
}

const HELD: &str = "match: {}, breaker: { failures: 2, cooldown: 60s, max-cooldown: 60s }, retry: { initial: 100ms, max-delay: 200ms, max-elapsed: 1h }";
const PACED: &str = "match: {}, rate: { events: 1, per: 60s, burst: 1 }";

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_route_back_is_seen() {
    let fails = Sink::answering(|_, _| status(503)).await;
    let well = Sink::open().await;
    let routes =
        fails.route("fails", HELD) + &well.route("paced", PACED) + &well.route("well", "match: {}");
    let pipeline = Pipeline::start(&routes);
    for number in 0..4 {
        pipeline.accept(&signed("E", &format!("S_{number}"))).await;
    }
    let stand = |route: &str| working(&pipeline.json(&["routes", "list"]), route);
    until("it is left alone", || {
        stand("fails") == [(json!("open"), json!(false))]
    })
    .await;
    until("it is held", || {
        stand("paced") == [(json!("closed"), json!(true))]
    })
    .await;
    assert_eq!(stand("well"), [(json!("closed"), json!(false))]);
    let said = pipeline.command(&["routes", "list"]).stdout;
    let said = String::from_utf8(said).unwrap();
    for expected in [
        "fails: left alone until 20",
        "held to its rate",
        "delivering",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let mut pipeline = pipeline;
    pipeline.kill();
    assert_eq!(
        working(&pipeline.json(&["routes", "list"]), "fails"),
        [],
        "who died says nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_it_is_seen_of_every_process() {
    let fails = Sink::answering(|_, _| status(503)).await;
    let plan = Plan {
        servers: 1,
        gateways: 1,
        ..Plan::new(fails.route("fails", HELD))
    };
    let mut deployment = Deployment::start(plan);
    let stand = |deployment: &Deployment| working(&deployment.json(&["routes", "list"]), "fails");
    let both = vec![(json!("closed"), json!(false)); 2];
    until("both deliver", || stand(&deployment) == both).await;
    let sender =
        simulator::Sender::new(deployment.gateways[0].url(), simulator::Retry::Never).unwrap();
    for number in 0..20 {
        let sent = sender.send(&signed("E", &format!("C_{number}"))).await;
        assert_eq!(sent.answer.unwrap().status, 200);
    }
    until("somebody leaves it alone", || {
        stand(&deployment).contains(&(json!("open"), json!(false)))
    })
    .await;
    deployment
        .dispatchers
        .iter_mut()
        .for_each(|dispatcher| assert_eq!(dispatcher.stop(), Some(0)));
    assert_eq!(stand(&deployment), [], "who is gone says nothing");
}

/// How long half of the events took to the good route, beside three that are not: what holds one
/// up there holds up all that come after it.
#[expect(clippy::print_stdout, reason = "figures of a test")]
async fn neighbours(queue: &str, send: impl AsyncFn(String), sinks: &[Sink; 4]) -> Duration {
    let mut took = Vec::new();
    for number in 0..100 {
        let began = Instant::now();
        send(format!("N_{number}")).await;
        until("the good one has it", || sinks[0].counts().len() > number).await;
        took.push(began.elapsed());
    }
    assert!(
        sinks[1..].iter().all(|sink| !sink.is_empty()),
        "the others were asked too"
    );
    let [p50, p99] = [50, 99].map(|percent| e2e::ledger::percentile(&took, percent));
    println!(
        "{queue}: from accepted to delivered beside three bad routes, p50 {p50:?}, p99 {p99:?}"
    );
    p50
}

/// One that answers, one that hangs, one that is slow, one that fails.
async fn neighbourhood() -> ([Sink; 4], String) {
    let sinks = [
        Sink::open().await,
        Sink::answering(|_, _| status(HANGS)).await,
        Sink::answering(|_, _| status(SLOW)).await,
        Sink::answering(|_, _| status(500)).await,
    ];
    let names = ["good", "hangs", "slow", "fails"];
    let all = "match: {}, start: beginning, concurrency: 4";
    (
        sinks.clone(),
        names
            .iter()
            .zip(&sinks)
            .map(|(name, sink)| sink.route(name, all))
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_hangs_is_slow_or_fails_delays_no_other() {
    let (sinks, routes) = neighbourhood().await;
    let pipeline = Pipeline::start(&routes);
    let send = async |reference: String| drop(pipeline.accept(&signed("E", &reference)).await);
    let took = neighbours("embedded", send, &sinks).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_it_delays_no_other_either() {
    let (sinks, routes) = neighbourhood().await;
    let deployment = Deployment::start(Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    });
    let sender =
        simulator::Sender::new(deployment.gateways[0].url(), simulator::Retry::Never).unwrap();
    let send = async |reference: String| {
        let answer = sender.send(&signed("E", &reference)).await.answer.unwrap();
        assert_eq!(answer.status, 200);
    };
    let took = neighbours("JetStream", send, &sinks).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}
