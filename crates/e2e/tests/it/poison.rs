//! Endpoints and events that would take a service down: bounded, classified, and
//! no other event's concern.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::Sink;

/// An endpoint that answers each request as this says, on a bare socket.
async fn raw<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1 << 16];
            let _ = stream.read(&mut request).await;
            tokio::spawn(answer(stream));
        }
    });
    address.to_string()
}

fn route(name: &str, address: &str) -> String {
    format!(
        "    - {{ name: {name}, match: {{}}, dispatcher: http, http: {{ url: \"http://{address}/{name}\", timeout: 1s }}, retry: {{ initial: 100ms, max-delay: 200ms, max-elapsed: 1h, attempts: 2 }} }}\n"
    )
}

/// How the attempts of `route` at the only event ended.
fn outcomes(story: &Value, route: &str) -> Vec<String> {
    let steps = story[0]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["route"] == route);
    steps
        .map(|step| step["outcome"].as_str().unwrap().to_owned())
        .collect()
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_endless_trickle_reset_or_say_nothing_are_bounded() {
    static CHUNK: [u8; 1 << 16] = [b'x'; 1 << 16];
    let gigabyte = raw(async |mut stream: TcpStream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
            .await;
        for _ in 0..16384 {
            if stream.write_all(&CHUNK).await.is_err() {
                return;
            }
        }
    })
    .await;
    let endless_headers = raw(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream
            .write_all(b"x-more: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n")
            .await
            .is_ok()
        {}
    })
    .await;
    // An endpoint that is slow, or silent for longer than any attempt, is what this is about.
    let trickling_headers = raw(async |mut stream: TcpStream| {
        while stream.write_all(b"H").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let reset = raw(async |stream: TcpStream| drop(stream.set_zero_linger())).await;
    let silent = raw(async |stream: TcpStream| {
        tokio::time::sleep(Duration::from_mins(5)).await;
        drop(stream);
    })
    .await;
    let good = Sink::open().await;
    let endpoints = [
        ("gigabyte", &gigabyte, "done"),
        ("endless", &endless_headers, "done"),
        ("reset", &reset, "transient"),
        ("trickling", &trickling_headers, "transient"),
        ("silent", &silent, "timed-out"),
    ];
    let bad: String = endpoints
        .iter()
        .map(|(name, address, _)| route(name, address))
        .collect();
    let pipeline = Pipeline::start(&(bad + &good.route("good", "match: {}")));
    let began = Instant::now();
    pipeline.accept(&signed("E", "P_1")).await;
    until("the good one has it", || good.len() == 1).await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it waits for nobody"
    );
    let settled = || {
        let story = pipeline.json(&["events", "show", "P_1"]);
        endpoints.iter().all(|(name, _, outcome)| {
            outcomes(&story, name).len() == if *outcome == "done" { 1 } else { 2 }
        })
    };
    until("each was tried as often as it may be", settled).await;
    let story = pipeline.json(&["events", "show", "P_1"]);
    for (name, _, outcome) in endpoints {
        let found = outcomes(&story, name);
        // A status line that never ends may look like either.
        let is_expected =
            |found: &String| found == outcome || (name == "trickling" && found == "timed-out");
        assert!(found.iter().all(is_expected), "{name}: {found:?}");
    }
    let most = resident(pipeline.pid());
    println!("most memory beside a gigabyte of answer and endless headers: {most} MiB");
    assert!(most < 200, "{most} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_deep_or_huge_are_decided_and_unharm_others() {
    let templated = Sink::open().await;
    let asked = Sink::open().await;
    let plain = Sink::open().await;
    let template = format!(
        "    - {{ name: templated, match: {{}}, dispatcher: http, http: {{ url: \"http://{}/t\", template: {{ file: loop.json }} }} }}\n",
        templated.address
    );
    let asking = asked.route(
        "asked",
        "match: { when: \"event.lines.all(a, event.lines.all(b, a == b))\" }",
    );
    let mut pipeline =
        Pipeline::prepare(&(template + &asking + &plain.route("plain", "match: {}")));
    let text =
        "[{% for a in event.lines %}{% for b in event.lines %}{{ a }},{% endfor %}{% endfor %}0]";
    std::fs::write(pipeline.folder.path().join("loop.json"), text).unwrap();
    pipeline.set_environment(
        "FLUENT_CONNECT__WEBHOOK__BODY_LIMIT",
        std::path::Path::new("2MiB"),
    );
    pipeline.run();
    let huge = format!("[{}1]", "1,".repeat(400_000));
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let began = Instant::now();
    for (reference, lines) in [
        ("HUGE", huge.as_str()),
        ("DEEP", deep.as_str()),
        ("GOOD", "[1,1]"),
    ] {
        let body = format!(
            r#"{{"id":"1","name":"E","accountId":"ACME","retailerId":"34","entityType":"ORDER","entityRef":"{reference}","lines":{lines}}}"#
        );
        pipeline.accept(&SANDBOX.sign(body).unwrap()).await;
    }
    until("each is delivered as it is", || plain.len() == 3).await;
    until("the good one is delivered everywhere", || {
        templated.len() == 1 && asked.len() == 1
    })
    .await;
    println!(
        "huge, deep and good, all decided after {:?}",
        began.elapsed()
    );
    let letters = || pipeline.json(&["dead-letters", "list"]);
    until("the others are dead letters", || {
        letters().as_array().unwrap().len() == 4
    })
    .await;
    let letters = letters();
    let mut found: Vec<(&Value, &Value)> = letters
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| (&letter["route"], &letter["reason"]))
        .collect();
    found.sort_by_key(|(route, _)| route.as_str().map(str::to_owned));
    let expected = [
        ("asked", "undecided"),
        ("asked", "undecided"),
        ("templated", "permanent"),
        ("templated", "permanent"),
    ];
    let expected: Vec<(Value, Value)> = expected
        .iter()
        .map(|(route, reason)| (json!(route), json!(reason)))
        .collect();
    assert_eq!(
        found,
        expected
            .iter()
            .map(|(route, reason)| (route, reason))
            .collect::<Vec<_>>()
    );
}
