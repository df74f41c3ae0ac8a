//! SIGTERM: nothing accepted goes unanswered, nothing delivered half.

mod commands;
mod goodbyes;
mod restarts;

use std::time::Duration;

use rustix::process::Signal;

use simulator::{Retry, Sender};

use crate::ledger::Load;
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::Sink;

#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_load_lose_nothing_and_leave_nothing_in_flight() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route(
        "all",
        "match: {}, retry: { initial: 50ms, max-delay: 1s, max-elapsed: 1h }",
    ));
    let load = Load::start(&[pipeline.url()], 8);
    for round in 1..=5 {
        until("some are accepted", || load.accepted() > round * 50).await;
        assert_eq!(pipeline.stop(), Some(0), "{}", pipeline.log());
        let routes = pipeline.json(&["routes", "list"]);
        for route in routes.as_array().unwrap() {
            assert_eq!(route["inFlight"], 0, "{routes}");
        }
        pipeline.run();
    }
    let (sent, accepted) = load.stop().await;
    until("every accepted one arrived", || {
        accepted.iter().all(|id| sink.counts().contains_key(id))
    })
    .await;
    let counts = sink.counts();
    assert!(
        counts.keys().all(|id| sent.contains(id)),
        "delivered and never sent"
    );
    assert!(
        counts.values().all(|count| *count == 1),
        "a stop delivers nothing twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_under_way_is_answered() {
    use std::io::{Read, Write};
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let signed = signed("E", "SLOW_1");
    let mut stream = std::net::TcpStream::connect(pipeline.webhook).unwrap();
    let head = format!(
        "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nfluent-signature: {}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        signed.sha512,
        signed.body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut said = [0; 25];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(
        &said, b"HTTP/1.1 100 Continue\r\n\r\n",
        "its body is waited for"
    );
    stream.write_all(&signed.body[..10]).unwrap();
    pipeline.signal(Signal::TERM);
    until("it says that it is stopping", || !pipeline.is_ready()).await;
    // A sender that is slow for longer than the port may be shut before the end: the wait is what
    // the test is about.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stream.write_all(&signed.body[10..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(pipeline.wait(), Some(0));
    // Accepted while stopping, delivered by the next run.
    pipeline.run();
    until("it arrived", || sink.len() == 1).await;
}

/// One that says for so long that it is not ready before it takes nothing new.
fn noticing(sink: &Sink, delay: &str) -> Pipeline {
    let mut pipeline = Pipeline::prepare("    []\n");
    pipeline.more = format!("  drain-after: {delay}\n");
    pipeline.write_settings(&sink.route("all", "match: {}"));
    pipeline.run();
    pipeline
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_goes_first_and_what_comes_meanwhile_is_accepted() {
    let sink = Sink::open().await;
    let mut pipeline = noticing(&sink, "15s");
    pipeline.signal(Signal::TERM);
    until("it says that it is not ready", || !pipeline.is_ready()).await;
    // A load balancer that has not noticed yet: new connections, for half a second.
    for number in 0..5 {
        let sender = Sender::new(pipeline.url(), Retry::Never).unwrap();
        let answer = sender
            .send(&signed("E", &format!("NOTICE_{number}")))
            .await
            .answer
            .unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    pipeline.signal(Signal::TERM);
    assert_eq!(pipeline.wait(), Some(0));
    assert!(
        std::net::TcpStream::connect(pipeline.webhook).is_err(),
        "its port is shut"
    );
    pipeline.run();
    until("each arrived", || sink.len() == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait_for_load_balancers() {
    let sink = Sink::open().await;
    let mut pipeline = noticing(&sink, "15s");
    let began = std::time::Instant::now();
    pipeline.signal(Signal::TERM);
    until("it says that it is not ready", || !pipeline.is_ready()).await;
    pipeline.signal(Signal::TERM);
    assert_eq!(pipeline.wait(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_nothing_and_says_that_settings_are_not_read_again() {
    use std::io::{Read, Write};
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let signed = signed("E", "HUP_1");
    let mut stream = std::net::TcpStream::connect(pipeline.webhook).unwrap();
    let head = format!(
        "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nconnection: close\r\nfluent-signature: {}\r\ncontent-length: {}\r\n\r\n",
        signed.sha512,
        signed.body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&signed.body[..10]).unwrap();
    for _ in 0..3 {
        pipeline.signal(Signal::HUP);
    }
    until("it says so", || {
        pipeline.log().contains("not read again: restart")
    })
    .await;
    stream.write_all(&signed.body[10..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(pipeline.is_running() && pipeline.is_ready());
    until("it is delivered", || sink.len() == 1).await;
}

#[test]
fn the_sample_units_say_what_the_program_does() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config");
    let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
    let socket = read("systemd/fluent-webhooks.socket");
    let unit = read("systemd/fluent-webhooks.service");
    let value = |text: &str, key: &str| {
        let prefix = format!("{key}=");
        let line = text
            .lines()
            .find(|line| line.starts_with(&prefix))
            .unwrap_or_else(|| panic!("no {key}"));
        line[prefix.len()..].to_owned()
    };
    assert_eq!(value(&socket, "FileDescriptorName"), "webhook");
    let listen = format!("listen: 0.0.0.0:{}", value(&socket, "ListenStream"));
    let how_to = read("../docs/how-to/run-under-systemd.md");
    assert!(how_to.contains(&listen), "{listen}");
    assert_eq!(
        value(&unit, "RestartPreventExitStatus"),
        process::SETTINGS.to_string()
    );
    let stops_within: u64 = value(&unit, "TimeoutStopSec")
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(
        stops_within > process::StopTimes::RECEIVING.total.as_secs() + 10,
        "and drain-after"
    );
    let words: Vec<_> = value(&unit, "ExecStart")
        .split(' ')
        .map(str::to_owned)
        .collect();
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args([&words[1], "--help"])
        .output();
    assert!(
        String::from_utf8(help.unwrap().stdout)
            .unwrap()
            .contains(&words[2]),
        "{words:?}"
    );
}
