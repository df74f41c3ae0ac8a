//! A job on a cluster with two operators, one of which is killed.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use e2e::deployment::{Deployment, Plan, Service, free_ports, until};
use serde_json::Value;
use simulator::{Retry, Sender};

use crate::pipeline::signed;
use crate::sink::{Sink, status};

const PATIENCE: Duration = Duration::from_secs(120);

const EVENTS: usize = 300;

/// An operator's process, with the settings that all of them share.
fn operator(deployment: &Deployment, number: usize) -> Service {
    let [health, grpc] = free_ports();
    let shared = fs::read_to_string(deployment.folder.path().join("operator.yml")).unwrap();
    let own = format!("  health: {health}\n  operator: {{ grpc: \"{grpc}\" }}\n  routes:\n");
    let name = format!("operator-{number}");
    let path = deployment.folder.path().join(format!("{name}.yml"));
    fs::write(&path, shared.replace("  routes:\n", &own)).unwrap();
    let mut operator = Service::new(&name, "stage-operator", path, health, None);
    operator.start();
    operator.wait_until_ready();
    operator
}

fn job(deployment: &Deployment, id: &str) -> Value {
    deployment.json(&["jobs", "show", id])
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_is_killed_and_no_item_is_done_twice() {
    let sink = Sink::answering(|_, before| match before {
        0 => status(422),
        _ => status(200),
    })
    .await;
    let deployment = Deployment::start(Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(sink.route("all", "match: {}, start: beginning"))
    });
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    for number in 0..EVENTS {
        let answer = sender
            .send(&signed("E", &format!("O{number}")))
            .await
            .answer;
        assert_eq!(answer.unwrap().status, 200);
    }
    until("all are dead letters", PATIENCE, || {
        let letters = deployment.json(&["dead-letters", "list", "--limit", "1000"]);
        letters.as_array().unwrap().len() == EVENTS
    })
    .await;
    let mut operators = [operator(&deployment, 0), operator(&deployment, 1)];
    let made = deployment.json(&[
        "dead-letters",
        "redrive",
        "--all",
        "--detach",
        "--why",
        "a test",
        "--rate",
        "60",
        "--yes",
    ]);
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(made["total"], EVENTS);
    until("some are done", PATIENCE, || {
        job(&deployment, &id)["succeeded"].as_u64() >= Some(60)
    })
    .await;
    let executor = job(&deployment, &id)["executor"].clone();
    let pid = executor
        .as_str()
        .and_then(|it| it.rsplit_once(':'))
        .unwrap()
        .1
        .to_owned();
    let killed = operators
        .iter()
        .position(|operator| operator.pid().is_some_and(|it| it.to_string() == pid))
        .expect("one of them works on it");
    operators[killed].kill();
    until("the other has done the rest", PATIENCE, || {
        job(&deployment, &id)["state"] == "done"
    })
    .await;
    let done = job(&deployment, &id);
    assert_ne!(done["executor"], executor);
    let counts = ["succeeded", "failed", "skipped"].map(|name| done[name].as_u64().unwrap());
    assert_eq!(counts, [EVENTS as u64, 0, 0], "{done:#}");
    until("all were delivered", PATIENCE, || sink.len() >= 2 * EVENTS).await;
    // A later event that goes the same way comes behind everything.
    let answer = sender.send(&signed("E", "LAST")).await.answer.unwrap();
    assert_eq!(answer.status, 200);
    until("the last one was tried", PATIENCE, || {
        sink.len() > 2 * EVENTS
    })
    .await;
    let mut tries: BTreeMap<usize, usize> = BTreeMap::new();
    for times in sink.counts().values() {
        *tries.entry(*times).or_default() += 1;
    }
    assert_eq!(
        tries,
        BTreeMap::from([(1, 1), (2, EVENTS)]),
        "each once, and once more"
    );
    let letters = deployment.json(&["dead-letters", "list"]);
    assert!(letters.as_array().unwrap().len() <= 1, "{letters}");
}
