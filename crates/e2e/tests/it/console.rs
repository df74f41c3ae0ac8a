//! The console of the real program: a person finds an order, and mends what failed.

use std::fs;
use std::net::SocketAddr;

use e2e::deployment::{Deployment, Plan};

use crate::pipeline::{Pipeline, SANDBOX, free_ports, http, signed, until};
use crate::sink::{Sink, status};

/// Asks as a browser at `localhost` does; what was answered.
fn get(console: SocketAddr, path: &str, cookie: &str) -> String {
    let port = console.port();
    http(
        console,
        &format!(
            "GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
        ),
    )
}

fn post(console: SocketAddr, path: &str, cookie: &str, form: &str) -> String {
    let port = console.port();
    let length = form.len();
    http(
        console,
        &format!(
            "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\ncookie: {cookie}\r\nsec-fetch-site: same-origin\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{form}"
        ),
    )
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(given, _)| given.eq_ignore_ascii_case(name))
        .map_or("", |(_, value)| value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_finds_an_order_and_redrives_what_failed() {
    let sink = Sink::answering(|_, before| status(if before < 1 { 422 } else { 200 })).await;
    let routes = format!(
        "{}    - {{ name: other, match: {{ event: Another }}, dispatcher: log }}\n",
        sink.route("all", "match: { event: E }")
    );
    let mut pipeline = Pipeline::prepare(&routes);
    let [console] = free_ports();
    let token = "night-0123456789abcdef";
    fs::write(pipeline.folder.path().join("night"), token).unwrap();
    pipeline.more = format!(
        "  operator: {{ console: {{ listen: \"{console}\" }}, tokens: [{{ name: night, file: night, roles: [operate] }}] }}\n"
    );
    pipeline.write_settings(&routes);
    pipeline.run();
    let id = pipeline.accept(&signed("E", "HD_1")).await;

    let sent = get(console, "/search?q=HD_1", "");
    assert!(
        sent.starts_with("HTTP/1.1 303") && header(&sent, "location").starts_with("/login"),
        "{sent}"
    );
    let signed_in = post(console, "/login", "", &format!("token={token}"));
    let cookie = header(&signed_in, "set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let see = |path: &str| get(console, path, &cookie);
    until("it is a dead letter", || {
        see("/dead-letters").contains("HD_1")
    })
    .await;

    let story = format!("/events/{id}");
    assert_eq!(
        header(&see("/search?q=HD_1"), "location"),
        "/story?ref=HD_1"
    );
    let whole = see("/story?ref=HD_1");
    assert!(
        whole.contains("dead letter 1") && whole.contains("event is `E`, expected Another"),
        "{whole}"
    );
    let shown = see(&story);
    assert!(
        shown.contains("dead letter 1") && shown.contains("422"),
        "{shown}"
    );
    assert!(
        shown.contains("event is `E`, expected Another"),
        "why not: {shown}"
    );
    // Letters of both kinds are numbered in one row, so it comes after the first.
    pipeline.accept(&signed("Nobody", "HD_2")).await;
    until("the other is unrouted", || {
        see("/unrouted").contains("HD_2")
    })
    .await;
    let question = see("/dead-letters/change?action=redrive&id=1");
    assert!(
        question.contains("1 letter will be delivered again"),
        "{question}"
    );
    let done = post(console, "/dead-letters/redrive", &cookie, "id=1");
    assert!(done.contains("1 redriven"), "{done}");
    until("it arrived again", || sink.counts()[&id] == 2).await;
    until("its story says so", || {
        see(&story).contains("the destination has it")
    })
    .await;
    let audit = pipeline.json(&["audit"]);
    assert_eq!(audit[0]["actor"], "night", "{audit}");
    let log = pipeline.log();
    assert!(!log.contains(token), "a token is in no log");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_this_machine_it_does_not_start_without_tls_and_tokens() {
    let mut pipeline = Pipeline::prepare("    []\n");
    let [console] = free_ports();
    let listen = SocketAddr::from(([0, 0, 0, 0], console.port()));
    pipeline.more = format!("  operator: {{ console: {{ listen: \"{listen}\" }} }}\n");
    pipeline.write_settings("    []\n");
    for args in [&["check"][..], &["serve"]] {
        let refused = pipeline.command(args);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(78), "{said}");
        assert!(
            said.contains("operator.console.listen") && said.contains("operator.tls"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_cluster_the_operator_serves_it() {
    let sink = Sink::answering(|_, _| status(422)).await;
    let routes = sink.route("all", "match: {}, start: beginning");
    let deployment = Deployment::start(Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    });
    let (mut operator, console) = deployment.console();
    operator.restart();
    let url = deployment.urls().remove(0);
    let sender = simulator::Sender::new(url, simulator::Retry::Connection).unwrap();
    let event = simulator::Events::new("ACME", 34, 1).any();
    let answer = sender.send(&SANDBOX.sign(event.body).unwrap()).await;
    assert_eq!(answer.answer.unwrap().status, 200);
    let reference = event.entity_ref;
    until("it is a dead letter", || {
        get(console, "/dead-letters", "").contains(&reference)
    })
    .await;
    let found = get(console, &format!("/search?q={reference}"), "");
    let story = get(console, header(&found, "location"), "");
    assert!(
        story.contains("dead letter") && story.contains("422"),
        "{found} {story}"
    );
    let overview = get(console, "/", "");
    assert!(overview.contains("<strong>cluster</strong>"), "{overview}");
    assert!(
        overview.contains("dispatcher") && overview.contains("running"),
        "{overview}"
    );
}
