//! Each stage a process of its own, each any number of times.

use std::fs;
use std::time::Duration;

use e2e::deployment::{Deployment, Plan, until};
use simulator::{Retry, Sender};

use crate::json;
use crate::pipeline::signed;
use crate::sink::{Sink, status};

const PATIENCE: Duration = Duration::from_secs(60);

fn one_server(routes: impl Into<String>) -> Plan {
    Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_from_a_gateway_to_a_dispatcher_and_can_be_followed() {
    let sink = Sink::answering(|request, before| match request.header("ce-subject") {
        "ORDER/DEAD" if before == 0 => status(422),
        "ORDER/AGAIN" if before == 0 => status(503),
        _ => status(200),
    })
    .await;
    let deployment =
        Deployment::start(one_server(sink.route("all", "match: {}, start: beginning")));
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    for reference in ["GOOD", "DEAD", "AGAIN"] {
        let answer = sender.send(&signed("E", reference)).await.answer.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    until("all three were tried, one twice", PATIENCE, || {
        sink.len() == 4
    })
    .await;

    let story = deployment.json(&["events", "show", "AGAIN"]);
    let outcomes = |story: &serde_json::Value| {
        let steps = story[0]["attempts"].as_array().unwrap().clone();
        steps
            .iter()
            .map(|step| step["outcome"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    until("the story is told", PATIENCE, || {
        outcomes(&deployment.json(&["events", "show", "AGAIN"])).len() == 2
    })
    .await;
    let story_now = deployment.json(&["events", "show", "AGAIN"]);
    assert_eq!(outcomes(&story_now), ["transient", "done"], "{story}");
    until("the letter is there", PATIENCE, || {
        deployment
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .await;
    let letters = deployment.json(&["dead-letters", "list"]);
    let number = letters[0]["id"].to_string();
    let redriven = deployment.command("operator", &["dead-letters", "redrive", &number]);
    assert!(redriven.status.success(), "{redriven:?}");
    until("it was redriven", PATIENCE, || sink.len() == 5).await;
    assert!(
        deployment
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .is_empty()
    );
    let routes = deployment.json(&["routes", "list"]);
    assert_eq!(routes[0]["route"], "all", "{routes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_can_be_run_by_different_dispatchers() {
    let sink = Sink::open().await;
    let routes = [
        sink.route("a", "match: {}, start: beginning"),
        sink.route("b", "match: {}, start: beginning"),
    ]
    .concat();
    let mut deployment = Deployment::prepare(Plan {
        dispatchers: 2,
        ..one_server(routes)
    });
    deployment.make_streams();
    deployment.dispatchers[0].set_args(&["--route", "a", "unrouted"]);
    deployment.dispatchers[1].set_args(&["--route", "b"]);
    deployment.gateways[0].restart();
    deployment.dispatchers[0].restart();
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    assert_eq!(
        sender.send(&signed("E", "X")).await.answer.unwrap().status,
        200
    );
    let paths = || {
        sink.requests()
            .iter()
            .map(|request| request.path.clone())
            .collect::<Vec<_>>()
    };
    until("a has it", PATIENCE, || paths() == ["/a"]).await;
    deployment.dispatchers[1].restart();
    until("b has it too", PATIENCE, || paths() == ["/a", "/b"]).await;
    deployment.dispatchers[1].stop();
    deployment.dispatchers[1].set_args(&["--route", "nowhere"]);
    deployment.dispatchers[1].start();
    until("it ends", PATIENCE, || {
        !deployment.dispatchers[1].is_running()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_body_sent_to_two_gateways_at_once_is_stored_once() {
    let sink = Sink::open().await;
    let plan = Plan {
        gateways: 2,
        ..one_server(sink.route("all", "match: {}, start: beginning"))
    };
    let deployment = Deployment::start(plan);
    for round in 0..20 {
        let body = signed("E", &format!("SAME_{round}"));
        let senders = (0..10).map(|number| {
            let url = deployment.urls()[number % 2].clone();
            let body = body.clone();
            async move {
                Sender::new(url, Retry::Never)
                    .unwrap()
                    .send(&body)
                    .await
                    .answer
                    .unwrap()
                    .status
            }
        });
        assert_eq!(futures::future::join_all(senders).await, [200; 10]);
    }
    until("each arrived", PATIENCE, || sink.counts().len() == 20).await;
    let stored = deployment.command("admin", &["cluster", "check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&stored.stdout).unwrap();
    json::check("cluster check", &report, "cluster");
    let indexed = deployment.json(&["events", "index"]);
    json::check("events index", &indexed, "index");
    assert_eq!(report["streams"][0]["messages"], 20, "{report}");
    assert!(
        sink.counts().values().all(|count| *count == 1),
        "{:?}",
        sink.counts()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_servers_a_gateway_is_ready_and_a_dispatcher_waits() {
    let sink = Sink::open().await;
    let plan = one_server(sink.route("all", "match: {}, start: beginning"));
    let mut deployment = Deployment::prepare(plan);
    deployment.make_streams();
    deployment.servers.kill_all();
    deployment.gateways[0].restart();
    deployment.dispatchers[0].start();
    let sender = Sender::new(deployment.urls().remove(0), Retry::Never).unwrap();
    for number in 0..50 {
        let answer = sender
            .send(&signed("E", &format!("AWAY_{number}")))
            .await
            .answer
            .unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(deployment.gateways[0].is_ready());
    assert!(!deployment.dispatchers[0].is_ready());
    deployment.servers.start_all().unwrap();
    until("each arrived", PATIENCE, || sink.counts().len() == 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_is_ready_while_it_can_fetch_and_settle() {
    let sink = Sink::open().await;
    let mut deployment = Deployment::start(one_server(sink.route("all", "match: {}")));
    assert!(deployment.dispatchers[0].is_ready());
    deployment.servers.kill_all();
    until("the dispatcher says no", PATIENCE, || {
        !deployment.dispatchers[0].is_ready()
    })
    .await;
    assert!(
        deployment.dispatchers[0]
            .log()
            .contains("can't be fetched and settled")
    );
    assert!(
        deployment.gateways[0].is_ready(),
        "its spool takes what comes"
    );
    deployment.servers.start_all().unwrap();
    until("the dispatcher says yes", PATIENCE, || {
        deployment.dispatchers[0].is_ready()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_goes_on_with_a_stream_that_drifted_and_says_so() {
    let sink = Sink::open().await;
    let deployment =
        Deployment::start(one_server(sink.route("all", "match: {}, start: beginning")));
    let text = fs::read_to_string(deployment.folder.path().join("admin.yml")).unwrap();
    fs::write(
        deployment.folder.path().join("larger.yml"),
        text.replace("1GiB", "2GiB"),
    )
    .unwrap();
    let changed = deployment.command("larger", &["cluster", "init"]);
    assert!(changed.status.success(), "{changed:?}");
    until("it is said", PATIENCE, || {
        deployment.gateways[0]
            .log()
            .contains("not what it is to be")
    })
    .await;
    assert!(
        deployment.gateways[0]
            .log()
            .contains("FLUENT_EVENTS: max_bytes is 2147483648")
    );
    let sender = Sender::new(deployment.urls().remove(0), Retry::Never).unwrap();
    assert_eq!(
        sender
            .send(&signed("E", "DRIFTED"))
            .await
            .answer
            .unwrap()
            .status,
        200
    );
    assert!(deployment.gateways[0].is_ready());
    deployment.make_streams();
    until("it is over", PATIENCE, || {
        deployment.gateways[0]
            .log()
            .contains("is what it is to be again")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_settings_file_serves_both_stages() {
    let sink = Sink::open().await;
    let mut deployment =
        Deployment::prepare(one_server(sink.route("all", "match: {}, start: beginning")));
    deployment.make_streams();
    let read = |name: &str| fs::read_to_string(deployment.folder.path().join(name)).unwrap();
    let gateway = read("gateway-0.yml");
    let dispatcher = read("dispatcher-0.yml");
    // One user who may do both, one port for the health of each: from the environment.
    let connect = gateway.split_once("fluentcommerce:").unwrap().0;
    // With the keys, which both have.
    let routes = dispatcher.split_once("  routes:").unwrap().1;
    let both = format!("{connect}  routes:{routes}");
    fs::write(deployment.folder.path().join("gateway-0.yml"), &both).unwrap();
    fs::write(deployment.folder.path().join("dispatcher-0.yml"), &both).unwrap();
    let password = deployment.folder.path().join("dispatcher-password");
    let health = dispatcher
        .lines()
        .find_map(|line| line.trim().strip_prefix("health: "))
        .unwrap();
    for (name, value) in [
        ("FLUENT_CONNECT__QUEUE__USER", "dispatcher"),
        (
            "FLUENT_CONNECT__QUEUE__PASSWORD__FILE",
            password.to_str().unwrap(),
        ),
        ("FLUENT_CONNECT__QUEUE__INBOX_PREFIX", "_INBOX_dispatcher"),
        ("FLUENT_CONNECT__HEALTH", health),
    ] {
        deployment.dispatchers[0].set_environment(name, std::path::Path::new(value));
    }
    deployment.gateways[0].restart();
    deployment.dispatchers[0].restart();
    let sender = Sender::new(deployment.urls().remove(0), Retry::Never).unwrap();
    assert_eq!(
        sender
            .send(&signed("E", "SHARED"))
            .await
            .answer
            .unwrap()
            .status,
        200
    );
    until("it arrived", PATIENCE, || sink.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_gateway_is_gone_is_looked_into_and_emptied() {
    let sink = Sink::open().await;
    let mut deployment =
        Deployment::prepare(one_server(sink.route("all", "match: {}, start: beginning")));
    deployment.make_streams();
    deployment.servers.kill_all();
    deployment.gateways[0].restart();
    let sender = Sender::new(deployment.urls().remove(0), Retry::Never).unwrap();
    for number in 0..5 {
        let sent = sender.send(&signed("E", &format!("LEFT_{number}"))).await;
        assert_eq!(sent.answer.unwrap().status, 200);
    }
    deployment.gateways[0].kill();
    let spool = deployment.spool(0);
    let path = spool.to_str().unwrap();
    let state = deployment.json(&["spool", "status", "--path", path]);
    json::check("spool status", &state, "spool-state");
    assert_eq!(
        (&state["unsent"], &state["unconfirmed"]),
        (&5.into(), &0.into()),
        "{state}"
    );
    deployment.servers.start_all().unwrap();
    let drained = deployment.json(&["spool", "drain", "--path", path]);
    json::check("spool drain", &drained, "drained-spool");
    assert_eq!(
        (&drained["sent"], &drained["left"]),
        (&5.into(), &0.into()),
        "{drained}"
    );
    deployment.dispatchers[0].restart();
    until("each arrived", PATIENCE, || sink.counts().len() == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_spool_is_the_way_back_to_what_only_it_had() {
    let sink = Sink::open().await;
    let mut deployment =
        Deployment::prepare(one_server(sink.route("all", "match: {}, start: beginning")));
    deployment.make_streams();
    deployment.servers.kill_all();
    deployment.gateways[0].restart();
    let sender = Sender::new(deployment.urls().remove(0), Retry::Never).unwrap();
    let send = async |reference: &str| {
        let sent = sender.send(&signed("E", reference)).await;
        assert_eq!(sent.answer.unwrap().status, 200);
    };
    for number in 0..5 {
        send(&format!("BEFORE_{number}")).await;
    }
    let backup = deployment.folder.path().join("backup");
    let to = backup.to_str().unwrap();
    let made = deployment.command("gateway-0", &["backup", to, "--json"]);
    assert!(made.status.success(), "{made:?}");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    json::check("backup", &made, "backup");
    assert_eq!(
        (&made["spool"]["unsent"], &made["queue"]),
        (&5.into(), &serde_json::Value::Null),
        "{made}"
    );
    // The gateway goes on beside it; then its disk is lost.
    send("AFTER").await;
    deployment.gateways[0].kill();
    let spool = deployment.spool(0);
    let data = spool.parent().unwrap();
    fs::remove_dir_all(data).unwrap();
    fs::create_dir(data).unwrap();
    for file in fs::read_dir(&backup).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), data.join(file.file_name())).unwrap();
    }
    deployment.servers.start_all().unwrap();
    deployment.gateways[0].restart();
    deployment.dispatchers[0].restart();
    until("what the backup had arrived", PATIENCE, || {
        sink.counts().len() == 5
    })
    .await;
    let subjects = sink.requests();
    let is_before = |subject: &str| subject.starts_with("ORDER/BEFORE_");
    assert!(
        subjects
            .iter()
            .all(|request| is_before(request.header("ce-subject"))),
        "and nothing else"
    );
}

/// A port that accepts and never answers: what a collector does that hangs.
fn silent_collector() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stops_in_time_while_its_servers_and_its_collector_hang() {
    let sink = Sink::open().await;
    let (_collector, endpoint) = silent_collector();
    let mut plan = one_server(sink.route("all", "match: {}, start: beginning"));
    plan.telemetry = format!(
        "  telemetry: {{ otlp: {{ endpoint: \"{endpoint}\", protocol: grpc }}, traces: {{ sample-ratio: 1.0 }} }}\n"
    );
    let mut deployment = Deployment::start(plan);
    let url = deployment.urls().remove(0);
    deployment.servers.servers[0].freeze();
    let sender = Sender::new(url, Retry::Never).unwrap();
    for number in 0..5 {
        let answer = sender
            .send(&signed("E", &format!("SPOOLED_{number}")))
            .await
            .answer
            .unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let webhook = deployment.gateways[0].webhook.unwrap();
    let watched = std::thread::spawn(move || {
        let began = std::time::Instant::now();
        while std::net::TcpStream::connect(webhook).is_ok() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::time::Instant::now()
    });
    let began = std::time::Instant::now();
    assert_eq!(
        deployment.gateways[0].stop(),
        Some(0),
        "{}",
        deployment.gateways[0].log()
    );
    let took = began.elapsed();
    let shut = watched.join().unwrap().elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(
        shut < Duration::from_secs(5),
        "its port was shut for {shut:?}"
    );
    deployment.servers.servers[0].thaw();
    deployment.gateways[0].restart();
    until("all arrived", PATIENCE, || sink.len() == 5).await;
}
