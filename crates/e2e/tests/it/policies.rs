//! A route's rate, breaker and pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::deployment::{Deployment, Plan};
use queue::PAUSES_WITHIN;
use serde_json::{Value, json};

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

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
    let count =
        |route: &str| sink.requests().iter().filter(|request| request.path == format!("/{route}")).count();
    until("the other route is done", || count("fast") == 45).await;
    until("this one too, in its own time", || count("slow") == 45).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "5 at once, then 40 at 20 a second: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_leaves_a_failing_destination_alone_and_burns_no_attempts() {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let sink =
        Sink::answering(move |_, _| status(if back.load(Ordering::Relaxed) { 200 } else { 503 })).await;
    let policy = "match: {}, concurrency: 1, breaker: { failures: 3, rest: 400ms, longest-rest: 400ms }, retry: { first: 100ms, ceiling: 200ms, for: 1h }";
    let pipeline = Pipeline::start(&sink.route("all", policy));
    for number in 0..30 {
        pipeline.accept(&signed("E", &format!("B_{number}"))).await;
    }
    until("it opened", || pipeline.log().contains("left alone")).await;
    // While it stays away, one attempt for each rest, whatever waits.
    let (before, began) = (sink.len(), Instant::now());
    until("it asked again", || sink.len() >= before + 4).await;
    assert!(began.elapsed() >= Duration::from_millis(3 * 400), "four attempts are three rests apart");
    is_back.store(true, Ordering::Relaxed);
    until("all arrived", || sink.counts().len() == 30).await;
    until("it closed", || pipeline.log().contains("the destination is back")).await;
    let first_time = sink.counts().values().filter(|count| **count == 1).count();
    assert!(first_time >= 20, "{first_time} of 30 needed one attempt: the others stood for them");
    assert_eq!(pipeline.json(&["dead-letters", "list"]), json!([]));
}

fn state(found: &Value, route: &str) -> bool {
    let routes = found.as_array().unwrap();
    routes.iter().find(|state| state["name"] == route).unwrap()["paused"].as_bool().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_route_holds_its_events_until_it_is_resumed() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    assert!(pipeline.command(&["routes", "pause", "all"]).status.success());
    tokio::time::sleep(PAUSES_WITHIN).await;
    pipeline.accept(&signed("E", "P_1")).await;
    assert!(state(&pipeline.json(&["routes", "list"]), "all"));
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    pipeline.accept(&signed("E", "P_2")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sink.len(), 0, "also after a restart");
    assert!(pipeline.command(&["routes", "resume", "all"]).status.success());
    until("both arrived", || sink.len() == 2).await;
    assert!(sink.requests().iter().all(|request| request.header("fluent-attempt") == "1"));
    let unknown = pipeline.command(&["routes", "pause", "nowhere"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_the_operator_pauses_every_dispatcher() {
    let sink = Sink::open().await;
    let plan = Plan { servers: 1, gateways: 1, ..Plan::new(sink.route("all", "match: {}")) };
    let deployment = Deployment::start(plan);
    let paused = deployment.command("operator", &["routes", "pause", "all"]);
    assert!(paused.status.success(), "{paused:?}");
    tokio::time::sleep(PAUSES_WITHIN).await;
    let sender = simulator::Sender::new(deployment.gateways[0].url(), simulator::Retry::Never).unwrap();
    assert_eq!(sender.send(&signed("E", "P_1")).await.answer.unwrap().status, 200);
    assert!(state(&deployment.json(&["routes", "list"]), "all"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sink.len(), 0);
    assert!(deployment.command("operator", &["routes", "resume", "all"]).status.success());
    until("it arrived", || sink.len() == 1).await;
    assert_eq!(sink.requests()[0].header("fluent-attempt"), "1");
}
