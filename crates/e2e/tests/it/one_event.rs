//! See and act on one event: by whatever name a person has of it, its body, a try now; and a
//! destination that is mended is asked at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::deployment::{Deployment, Plan};
use serde_json::Value;
use simulator::{Retry, Sender};

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

/// Long enough that nothing happens by itself in a test.
const SLOW: &str = "retry: { initial: 1h, max-delay: 2h, max-elapsed: 3d }";

async fn broken() -> (Sink, Arc<AtomicBool>) {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let sink = Sink::answering(move |_, _| {
        status(if mended.load(Ordering::Relaxed) {
            200
        } else {
            503
        })
    });
    (sink.await, is_mended)
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_any_of_its_names_and_its_body_is_what_was_signed() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let sent = signed("E", "BODY_1");
    let id = pipeline.accept(&sent).await;
    until("it is delivered", || sink.len() == 1).await;
    let own = serde_json::from_slice::<Value>(&sent.body).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for name in [&*own, &*id, &id[..8], "BODY_1"] {
        let found = pipeline.json(&["events", "show", name]);
        assert_eq!(found[0]["eventId"], id, "{name}: {found}");
        let body = pipeline.command(&["events", "body", name]);
        assert_eq!(body.stdout, sent.body.to_vec(), "{name}: {body:?}");
    }
    let none = pipeline.command(&["events", "body", "nobody's"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        said(&none).contains("no event of `nobody's` is kept"),
        "{none:?}"
    );
    let audit = pipeline.json(&["audit"]);
    assert_eq!(
        (&audit[0]["action"], &audit[0]["outcome"]),
        (
            &"GetEventBody".into(),
            &"no event of `nobody's` is kept; was it refused, or is it older than the retention?"
                .into()
        )
    );
    assert!(
        !audit.to_string().contains("accountId"),
        "what was read is not in it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_tried_now_unless_its_route_is_paused() {
    let (sink, is_mended) = broken().await;
    let pipeline = Pipeline::start(&sink.route("all", &format!("match: {{}}, {SLOW}")));
    let id = pipeline.accept(&signed("E", "NOW_1")).await;
    until("it has failed", || sink.len() == 1).await;
    until("it waits", || {
        pipeline
            .json(&["events", "show", &id])
            .to_string()
            .contains("waiting")
    })
    .await;

    assert!(
        pipeline
            .command(&["routes", "pause", "all"])
            .status
            .success()
    );
    let refused = pipeline.command(&["deliveries", "retry", &id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("route all is paused"),
        "{refused:?}"
    );
    assert!(
        pipeline
            .command(&["routes", "resume", "all"])
            .status
            .success()
    );

    let nope = pipeline.command(&["deliveries", "retry", &id, "--route", "al"]);
    assert!(said(&nope).contains("did you mean `all`"), "{nope:?}");
    is_mended.store(true, Ordering::Relaxed);
    let tried = pipeline.command(&["deliveries", "retry", "NOW_1"]);
    assert!(
        tried.status.success() && said(&tried).contains("due now on all"),
        "{tried:?}"
    );
    until("it is tried", || sink.len() == 2).await;
    assert_eq!(sink.requests()[1].header("fluent-attempt"), "2");
    until("it is done", || {
        pipeline
            .json(&["events", "show", &id])
            .to_string()
            .contains("\"done\"")
    })
    .await;
    let over = pipeline.command(&["deliveries", "retry", &id]);
    assert!(
        said(&over).contains("nothing of it waits for a retry: all is done with it"),
        "{over:?}"
    );
    assert!(
        pipeline.json(&["deliveries"]).as_array().unwrap().len() >= 2,
        "the list is where it was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_route_asks_a_destination_at_once_that_its_breaker_left_alone() {
    let (sink, is_mended) = broken().await;
    let breaker = "breaker: { failures: 3, cooldown: 30m, max-cooldown: 1h }";
    let retry = "retry: { initial: 100ms, max-delay: 200ms, max-elapsed: 1h }";
    let pipeline = Pipeline::start(&sink.route("all", &format!("match: {{}}, {retry}, {breaker}")));
    for reference in ["BREAKS", "TOO", "AND_THIS"] {
        pipeline.accept(&signed("E", reference)).await;
    }
    let is_open = || {
        pipeline
            .json(&["routes", "list"])
            .to_string()
            .contains("\"open\"")
    };
    until("its breaker is open", is_open).await;
    is_mended.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let resumed = pipeline.command(&["routes", "resume", "all"]);
    assert!(
        said(&resumed).contains("it was not paused; its breaker was open"),
        "{resumed:?}"
    );
    until("it is asked", || {
        pipeline
            .json(&["events", "show", "BREAKS"])
            .to_string()
            .contains("\"done\"")
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_mins(3),
        "{:?}",
        began.elapsed()
    );
    until("its breaker is closed", || !is_open()).await;
    let again = pipeline.json(&["routes", "resume", "all"]);
    assert_eq!(
        (&again["wasPaused"], &again["breakersClosed"]),
        (&false.into(), &0.into()),
        "{again}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_for_a_time_says_why_and_ends_by_itself() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let paused = pipeline.command(&[
        "routes",
        "pause",
        "all",
        "--for",
        "20s",
        "--reason",
        "they deploy",
    ]);
    assert!(paused.status.success(), "{paused:?}");
    pipeline.accept(&signed("E", "PAUSED")).await;
    let words = said(&pipeline.command(&["routes", "list"]));
    assert!(
        words.contains("until") && words.contains("they deploy"),
        "{words}"
    );
    let later = pipeline.json(&["status"])["later"].to_string();
    assert!(
        later.contains("FluentRoutePaused") && later.contains("they deploy"),
        "{later}"
    );
    // It holds over a restart, and ends in the next process.
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    assert!(pipeline.json(&["routes", "list"])[0]["paused"] == true || !sink.is_empty());
    until("it goes on by itself", || sink.len() == 1).await;
    let route = pipeline.json(&["routes", "list"])[0].clone();
    assert_eq!(
        (&route["paused"], &route["pause"]),
        (&false.into(), &Value::Null),
        "{route}"
    );
    let wrong = pipeline.command(&["routes", "pause", "all", "--for", "soon"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_it_is_the_same() {
    let (sink, is_mended) = broken().await;
    let breaker = "breaker: { failures: 2, cooldown: 30m, max-cooldown: 1h }";
    let routes = format!(
        "{}{}",
        sink.route("slow", &format!("match: {{ event: WAITS }}, start: beginning, {SLOW}")),
        sink.route("breaks", &format!("match: {{ event: BREAKS }}, start: beginning, retry: {{ initial: 100ms, max-delay: 200ms, max-elapsed: 1h }}, {breaker}"))
    );
    let deployment = Deployment::start(Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    });
    let sender = Sender::new(deployment.urls().remove(0), Retry::Never).unwrap();
    let patience = Duration::from_secs(60);
    let waits = signed("WAITS", "C_1");
    let breaks = signed("BREAKS", "C_2");
    for sent in [&waits, &breaks, &signed("BREAKS", "C_3")] {
        assert_eq!(sender.send(sent).await.answer.unwrap().status, 200);
    }
    let show = |reference: &str| deployment.json(&["events", "show", reference]).to_string();
    e2e::deployment::until("one waits", patience, || show("C_1").contains("waiting")).await;
    let list = || deployment.json(&["routes", "list"]).to_string();
    e2e::deployment::until("the other's breaker is open", patience, || {
        list().contains("\"open\"")
    })
    .await;
    let own = serde_json::from_slice::<Value>(&waits.body).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(show(&own).contains("waiting"), "by Fluent's own id");
    let body = deployment.command("operator", &["events", "body", &own]);
    assert_eq!(body.stdout, waits.body.to_vec(), "{body:?}");

    is_mended.store(true, Ordering::Relaxed);
    let tried = deployment.command("operator", &["deliveries", "retry", &own]);
    assert!(
        tried.status.success() && said(&tried).contains("due now on slow"),
        "{tried:?}"
    );
    e2e::deployment::until("it is done", patience, || show("C_1").contains("\"done\"")).await;
    let resumed = deployment.command("operator", &["routes", "resume", "breaks"]);
    assert!(
        said(&resumed).contains("its breaker was open"),
        "{resumed:?}"
    );
    e2e::deployment::until("it is asked at once", patience, || {
        show("C_2").contains("\"done\"")
    })
    .await;

    let pause = [
        "routes", "pause", "slow", "--for", "15s", "--reason", "a look",
    ];
    assert!(deployment.command("operator", &pause).status.success());
    assert!(list().contains("a look"), "{}", list());
    e2e::deployment::until("it ends by itself", patience, || !list().contains("a look")).await;
}
