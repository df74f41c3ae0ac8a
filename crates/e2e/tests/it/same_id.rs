//! One event of Fluent's that comes with two bodies.

use std::time::Duration;

use e2e::deployment::{Deployment, Plan, until as until_within};
use serde_json::Value;
use simulator::{Retry, Sender, SignedBody};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, free_ports, http, signed, until};
use crate::sink::Sink;

const SKIP: &str = "match: {}, start: beginning, same-id: skip, retry: { initial: 100ms, max-delay: 1s, max-elapsed: 1h }";
const PATIENCE: Duration = Duration::from_secs(90);

/// The same event, made anew for a retry: its id and name, and another body.
fn made_anew(first: &SignedBody) -> SignedBody {
    let mut body: Value = serde_json::from_slice(&first.body).unwrap();
    body["attributes"]["madeAnew"] = true.into();
    SANDBOX.sign(body.to_string()).unwrap()
}

fn is_skipped(story: &Value, route: &str, other: &str) -> bool {
    let steps = story["attempts"].as_array().unwrap();
    let says = format!("skipped: event {other} ");
    steps.iter().any(|step| {
        step["route"] == route
            && step["detail"]
                .as_str()
                .is_some_and(|detail| detail.starts_with(&says))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bodies_of_one_event_are_counted_and_shown_and_a_route_may_have_one_of_them() {
    let one = Sink::open().await;
    let both = Sink::open().await;
    let routes = one.route("one", SKIP) + &both.route("both", "match: {}, start: beginning");
    let [metrics] = free_ports();
    let mut pipeline = Pipeline::prepare(&routes);
    pipeline.more = format!("  operator: {{ http: \"{metrics}\" }}\n");
    pipeline.write_settings(&routes);
    pipeline.run();
    let first = signed("OrderStatusChange", "TOLD_TWICE");
    let one_id = pipeline.accept(&first).await;
    until("the first is delivered", || {
        one.len() == 1 && both.len() == 1
    })
    .await;
    let again = pipeline.accept(&made_anew(&first)).await;
    assert_ne!(one_id, again);
    until("the second is skipped on one route", || {
        let stories = pipeline.json(&["events", "show", &again]);
        both.len() == 2 && is_skipped(&stories[0], "one", &one_id)
    })
    .await;
    assert_eq!(one.len(), 1);

    for (event, other) in [(&one_id, &again), (&again, &one_id)] {
        let story = &pipeline.json(&["events", "show", event])[0];
        assert_eq!(story["sameId"][0]["eventId"], **other, "{story}");
        assert_eq!(story["sameId"].as_array().map(Vec::len), Some(1));
    }
    let stories = pipeline.json(&["events", "show", "TOLD_TWICE"]);
    assert_eq!(stories[0]["sameId"][0]["eventId"], one_id, "{stories}");
    let text = pipeline.command(&["events", "show", &one_id]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains(&format!("same id   {again}, arrived at ")),
        "{text}"
    );
    let scrape = http(
        metrics,
        "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
    );
    let counts = |name: &str| {
        scrape
            .lines()
            .any(|line| line.starts_with(name) && line.ends_with(" 1"))
    };
    assert!(counts("fluent_webhooks_same_id_total{"), "{scrape}");
    assert!(counts("fluent_attempts_skipped_total{"), "{scrape}");

    // A retry of the very same bytes is a duplicate, as ever, and counts as no other.
    let answer = pipeline
        .sender(Retry::Never)
        .send(&first)
        .await
        .answer
        .unwrap();
    assert_eq!(answer.body["duplicate"], true);
    let replayed = pipeline.json(&["replay", "--route", "one", "--from", "1h", "--yes"]);
    assert_eq!(
        replayed["succeeded"], 0,
        "the route is done with both: {replayed}"
    );
    pipeline.json(&[
        "replay", "--route", "one", "--from", "1h", "--again", "--yes",
    ]);
    until("a person wants both", || one.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_two_gateways_may_each_have_one_of_them() {
    let sink = Sink::open().await;
    let plan = Plan {
        servers: 1,
        gateways: 2,
        dispatchers: 2,
        ..Plan::new(sink.route("one", SKIP))
    };
    let deployment = Deployment::start(plan);
    let senders: Vec<_> = deployment
        .urls()
        .into_iter()
        .map(|url| Sender::new(url, Retry::Connection).unwrap())
        .collect();
    let mut pairs = Vec::new();
    for number in 0..20 {
        let first = signed("OrderStatusChange", &format!("TWICE_{number}"));
        let second = made_anew(&first);
        let (a, b) = tokio::join!(senders[0].send(&first), senders[1].send(&second));
        let id = |sent: simulator::Attempted| {
            sent.answer.unwrap().body["eventId"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        pairs.push((id(a), id(b)));
    }
    until_within(
        "of each pair one is delivered and one skipped",
        PATIENCE,
        || {
            pairs.iter().all(|(a, b)| {
                let stories = [a, b].map(|id| deployment.json(&["events", "show", id])[0].clone());
                is_skipped(&stories[0], "one", b) != is_skipped(&stories[1], "one", a)
            })
        },
    )
    .await;
    assert_eq!(sink.len(), pairs.len(), "one of each");
    for service in deployment.gateways.iter().chain(&deployment.dispatchers) {
        assert!(
            !service.log().contains("Permissions Violation"),
            "{}",
            service.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_may_not_mark_says_so_and_does_not_start() {
    let sink = Sink::open().await;
    let plan = Plan {
        servers: 1,
        gateways: 0,
        dispatchers: 1,
        ..Plan::new(sink.route("one", SKIP))
    };
    let mut deployment = Deployment::prepare(plan);
    let accounts = deployment.folder.path().join("nats/nats-1/accounts.conf");
    let shipped = std::fs::read_to_string(&accounts).unwrap();
    // As in the file of a version before.
    let before = shipped.replace("\"fluent.same-id.>\"", "");
    assert_ne!(before, shipped);
    std::fs::write(&accounts, before).unwrap();
    deployment.servers.kill_all();
    deployment.servers.start_all().unwrap();
    deployment.make_streams();
    let dispatcher = &mut deployment.dispatchers[0];
    dispatcher.start();
    until_within("it ends", PATIENCE, || !dispatcher.is_running()).await;
    let log = dispatcher.log();
    assert!(
        log.contains("route one says `same-id: skip`") && log.contains("`fluent.same-id.>`"),
        "{log}"
    );
}
