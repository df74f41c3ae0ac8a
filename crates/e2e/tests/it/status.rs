//! `status` can be believed: what is wrong is named, what is well is well, and a script can
//! ask by the exit code.

mod namesakes;

use std::fs;
use std::time::{Duration, Instant};

use e2e::deployment::{Deployment, Plan};
use e2e::status::read;
use serde_json::Value;
use simulator::{Retry, Sender, SignedBody};

use crate::SANDBOX;
use crate::pipeline::{PRODUCTION, Pipeline, signed, until};
use crate::sink::{Sink, status};

/// Who is gone is seen after a minute.
const GONE_WITHIN: Duration = Duration::from_secs(90);

fn alerts(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|line| line["alert"].as_str().unwrap())
        .collect()
}

/// What is needed now, and the exit code.
fn now(pipeline: &Pipeline) -> (Value, Option<i32>) {
    read(&pipeline.command(&["status", "--json"]))
}

fn of_account(account: &str, reference: &str) -> SignedBody {
    let body = String::from_utf8(signed("E", reference).body.to_vec()).unwrap();
    SANDBOX
        .sign(body.replace("\"ACME\"", &format!("\"{account}\"")))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_fails_is_said_now_and_a_dead_letter_when_there_is_time() {
    let sink = Sink::answering(|request, _| {
        status(if request.header("ce-subject") == "ORDER/NEVER" {
            422
        } else {
            503
        })
    });
    let sink = sink.await;
    let retry = "retry: { initial: 100ms, max-delay: 200ms, max-elapsed: 1h }";
    let other = Sink::open().await;
    let routes = format!(
        "{}{}",
        sink.route(
            "fails",
            &format!("match: {{ event: [BAD, DEAD] }}, {retry}")
        ),
        other.route("works", "match: { event: GOOD }")
    );
    let pipeline = Pipeline::start(&routes);
    pipeline.accept(&signed("GOOD", "G_1")).await;
    until("it is well", || now(&pipeline).1 == Some(0)).await;
    assert_eq!(now(&pipeline).0["now"], Value::Array(Vec::new()));

    pipeline.accept(&signed("BAD", "B_1")).await;
    until("it is seen that nothing goes well", || {
        now(&pipeline).1 == Some(3)
    })
    .await;
    let (said, _) = now(&pipeline);
    assert_eq!(alerts(&said["now"]), ["FluentRouteFails"], "{said}");
    assert!(
        said["now"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with("route fails: the last"),
        "{said}"
    );
    assert_eq!(
        said["now"][0]["runbook"],
        "docs/runbook/FluentRouteFails.md"
    );
    assert_eq!(said["well"], false);
    let words = pipeline.command(&["status"]);
    let text = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(
        text.contains("needs somebody now")
            && text.contains("see docs/runbook/FluentRouteFails.md"),
        "{text}"
    );
    assert!(words.stderr.is_empty(), "an answer is no error: {words:?}");

    let mut pipeline = Pipeline::start(&other.route("works", "match: { event: GOOD }"));
    until("it is well", || now(&pipeline).1 == Some(0)).await;
    pipeline.accept(&signed("ELSE", "NOBODYS")).await;
    let later = |pipeline: &Pipeline| alerts(&now(pipeline).0["later"]).contains(&"FluentUnrouted");
    until("what no route matched is for later", || later(&pipeline)).await;
    assert_eq!(now(&pipeline).1, Some(0));
    assert_eq!(
        pipeline.command(&["status", "--strict"]).status.code(),
        Some(3)
    );
    let elsewhere = pipeline.command(&["status", "--server", "http://127.0.0.1:9"]);
    assert_eq!(
        elsewhere.status.code(),
        Some(1),
        "it could not be asked: {elsewhere:?}"
    );
    assert_eq!(pipeline.stop(), Some(0));
    let (said, code) = now(&pipeline);
    assert_eq!(
        (alerts(&said["now"])[0], code),
        ("FluentNobodyServes", Some(3)),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_is_an_error_with_the_nearest() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("orders", "match: {}"));
    for args in [
        vec!["dead-letters", "list", "--route", "ordres"],
        vec![
            "dead-letters",
            "redrive",
            "--all",
            "--yes",
            "--route",
            "ordres",
        ],
        vec!["deliveries", "--route", "ordres"],
        vec!["tail", "--route", "ordres"],
        vec!["replay", "--route", "ordres", "--from", "1h", "--yes"],
        vec!["routes", "pause", "ordres"],
        vec!["routes", "resume", "ordres"],
        vec!["routes", "forget", "ordres", "--yes"],
    ] {
        let said = pipeline.command(&args);
        assert_eq!(said.status.code(), Some(1), "{args:?}: {said:?}");
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            words.contains("`ordres`") && words.contains("did you mean `orders`"),
            "{args:?}: {words}"
        );
    }
    for args in [
        vec!["dead-letters", "list", "--account", "acme"],
        vec![
            "dead-letters",
            "discard",
            "--all",
            "--yes",
            "--account",
            "acme",
        ],
        vec!["deliveries", "--account", "acme"],
        vec!["tail", "--account", "acme"],
        vec![
            "replay",
            "--route",
            "orders",
            "--account",
            "acme",
            "--from",
            "1h",
            "--yes",
        ],
    ] {
        let said = pipeline.command(&args);
        assert_eq!(said.status.code(), Some(1), "{args:?}: {said:?}");
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            words.contains("`acme`") && words.contains("did you mean `ACME`"),
            "{args:?}: {words}"
        );
    }
    assert!(
        pipeline
            .command(&["dead-letters", "list", "--route", "orders"])
            .status
            .success()
    );
    assert!(
        pipeline
            .command(&["dead-letters", "list", "--account", "ACME"])
            .status
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn genuine_webhooks_that_are_refused_are_seen_and_what_is_alike_is_kept() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let sender = pipeline.sender(Retry::Never);
    let mut answers = Vec::new();
    for account in ["acme", "A CME ", "STRANGER", "ACMEE", "ev\\u001b[31mil"] {
        let answer = sender
            .send(&of_account(account, "MINE_1"))
            .await
            .answer
            .unwrap();
        answers.push((answer.status, answer.body.to_string()));
    }
    let production = PRODUCTION
        .sign(signed("E", "MINE_2").body.to_vec())
        .unwrap();
    assert_eq!(
        sender.send(&production).await.answer.unwrap().status,
        200,
        "it is listed there, too"
    );
    assert_eq!(answers[0].0, 403);
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "nothing tells them apart: {answers:?}"
    );

    let held = || {
        pipeline
            .json(&["refused", "list"])
            .as_array()
            .unwrap()
            .len()
    };
    until("those that differ by case and spaces are held", || {
        held() == 2
    })
    .await;
    let names = |said: &Value| said["now"].to_string();
    until("their accounts are named", || {
        let (said, code) = now(&pipeline);
        code == Some(3) && names(&said).contains("STRANGER")
    })
    .await;
    let said = now(&pipeline).0;
    let text = names(&said);
    assert!(
        text.contains("of account `acme` (sandbox) was refused")
            && text.contains("`ACME` is listed"),
        "{text}"
    );
    assert!(
        text.contains("`STRANGER`") && text.contains("it is not listed"),
        "{text}"
    );
    assert!(
        !text.contains("\\u001b") && text.contains("\\\\u{1b}"),
        "escaped: {text}"
    );
    let log = pipeline.log();
    assert!(
        log.contains("genuine webhooks of an account are refused") && !log.contains("STRANGER"),
        "{log}"
    );

    // Mended as Fluent spells it: what was held is admitted.
    assert_eq!(pipeline.stop(), Some(0));
    let settings = fs::read_to_string(pipeline.config()).unwrap();
    fs::write(
        pipeline.config(),
        settings.replace("name: ACME,", "name: acme,"),
    )
    .unwrap();
    pipeline.run();
    let rechecked = pipeline.command(&["refused", "recheck", "--yes"]);
    assert!(rechecked.status.success(), "{rechecked:?}");
    until("what was like it is delivered", || sink.len() == 2).await;
}

/// The operator's settings as they are shipped: without routes.
fn without_routes(deployment: &Deployment) {
    let path = deployment.folder.path().join("operator.yml");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("  routes:\n").unwrap();
    let (_, tail) = rest.split_once("fluentcommerce:").unwrap();
    fs::write(path, format!("{head}fluentcommerce:{tail}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_it_is_well_without_routes_in_its_settings_and_names_who_is_gone() {
    let sink = Sink::open().await;
    let plan = Plan {
        gateways: 2,
        ..Plan::new(sink.route("all", "match: {}, start: beginning"))
    };
    let mut deployment = Deployment::start(plan);
    without_routes(&deployment);
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    assert_eq!(
        sender
            .send(&signed("E", "C_1"))
            .await
            .answer
            .unwrap()
            .status,
        200
    );
    let ask = |deployment: &Deployment| {
        let output = deployment.command("operator", &["status", "--json"]);
        // While a leader is chosen it may not be possible to ask.
        match output.status.code() {
            Some(1) => (Value::Null, Some(1)),
            _ => read(&output),
        }
    };
    let patience = Duration::from_secs(60);
    e2e::deployment::until("it is well", patience, || ask(&deployment).1 == Some(0)).await;
    let (said, _) = ask(&deployment);
    assert_eq!(said["later"], Value::Array(Vec::new()), "{said}");
    assert_eq!(said["processes"].as_array().unwrap().len(), 4, "{said}");
    let checked = deployment.command("admin", &["cluster", "check"]);
    assert!(checked.status.success(), "{checked:?}");

    let url = deployment.servers.urls()[2].clone();
    deployment.servers.servers[2].kill();
    deployment.gateways[0].kill();
    deployment.dispatchers[0].kill();
    assert_eq!(deployment.gateways[1].stop(), Some(0));
    deployment.gateways[1].restart();
    let began = Instant::now();
    loop {
        let (said, code) = ask(&deployment);
        let words = said["now"].to_string();
        let is_said = ["gateway on ", "dispatcher on ", "it does not answer"]
            .iter()
            .all(|word| words.contains(word));
        if is_said && code == Some(3) {
            assert!(
                words.contains("FluentProcessGone") && words.contains("FluentServerGone"),
                "{said}"
            );
            let gone = |process: &&Value| process["state"] == "gone";
            assert_eq!(
                said["processes"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(gone)
                    .count(),
                2,
                "{said}"
            );
            break;
        }
        assert!(began.elapsed() < GONE_WITHIN, "{said}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let checked = deployment.command("admin", &["cluster", "check"]);
    let words = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(
        words.contains(&url) && words.contains("it does not answer"),
        "{words}"
    );
    let processes = deployment.json(&["processes", "list"]);
    let gone = processes
        .as_array()
        .unwrap()
        .iter()
        .find(|process| process["state"] == "gone")
        .unwrap();
    let id = gone["id"].as_str().unwrap();
    assert!(
        deployment
            .command("operator", &["processes", "forget", id])
            .status
            .success()
    );
    assert_eq!(
        deployment
            .json(&["processes", "list"])
            .as_array()
            .unwrap()
            .len(),
        3
    );
}
