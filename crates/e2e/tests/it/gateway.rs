//! The webhook endpoint: its checks in their order, and its bounds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use simulator::{Events, Shape, SignedBody};

use crate::pipeline::{PATIENCE, PRODUCTION, Pipeline, SANDBOX, free_ports, http, signed, until};
use crate::sink::Sink;

const PATH: &str = "/api/v1/fluent-connect/webhook";
const NONE: &str = "    []\n";

/// More chunks of a body without end than any buffer on its way takes: 64 MiB of them.
const ENDLESS: usize = 16 << 10;

fn post(signed: &SignedBody) -> String {
    request(
        "POST",
        PATH,
        &format!("fluent-signature: {}\r\n", signed.sha512),
        &signed.body,
    )
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    format!(
        "{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[track_caller]
fn check(pipeline: &Pipeline, request: &str, status: u16, says: &str) -> String {
    let answer = http(pipeline.webhook, request);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "expected {status}: {answer}"
    );
    assert!(answer.contains(says), "expected {says}: {answer}");
    answer
}

#[test]
fn every_case_has_its_answer() {
    let pipeline = Pipeline::start(NONE);
    let good = signed("E", "R_1");
    let header = format!("fluent-signature: {}\r\n", good.sha512);
    let nothing = r#"{"error":"not_found"}"#;
    check(
        &pipeline,
        &request("POST", "/", &header, &good.body),
        404,
        nothing,
    );
    let wrong_method = check(
        &pipeline,
        &request("GET", PATH, "", b""),
        405,
        "method_not_allowed",
    );
    assert!(wrong_method.contains("allow: POST"), "{wrong_method}");
    let encoded = format!("{header}content-encoding: gzip\r\n");
    check(
        &pipeline,
        &request("POST", PATH, &encoded, &good.body),
        415,
        "unsupported_encoding",
    );
    let identity = format!("{header}content-encoding: identity\r\n");
    check(
        &pipeline,
        &request("POST", PATH, &identity, &good.body),
        200,
        r#""duplicate":false"#,
    );
    check(&pipeline, &post(&good), 200, r#""duplicate":true"#);

    check(
        &pipeline,
        &request("POST", PATH, "", &good.body),
        401,
        r#"{"error":"unauthorized"}"#,
    );
    check(
        &pipeline,
        &request("POST", PATH, &format!("{header}{header}"), &good.body),
        401,
        "unauthorized",
    );
    let md5 = format!("flex.signature: {}\r\n", good.md5);
    check(
        &pipeline,
        &request("POST", PATH, &md5, &good.body),
        200,
        r#""duplicate":true"#,
    );
    let both = format!("fluent-signature: AAAA\r\n{md5}");
    check(
        &pipeline,
        &request("POST", PATH, &both, &good.body),
        401,
        "unauthorized",
    );

    let other = Events::new("STRANGER", 34, 1).of("E", Shape::Full);
    check(
        &pipeline,
        &post(&SANDBOX.sign(other.body).unwrap()),
        403,
        r#"{"error":"forbidden"}"#,
    );
    let retailer = Events::new("ACME", 35, 1).of("E", Shape::Full);
    check(
        &pipeline,
        &post(&SANDBOX.sign(retailer.body.clone()).unwrap()),
        403,
        "forbidden",
    );
    check(
        &pipeline,
        &post(&PRODUCTION.sign(retailer.body).unwrap()),
        200,
        r#""duplicate":false"#,
    );

    let odd = SANDBOX
        .sign(*br#"{"accountId":"ACME","name":"E"}"#)
        .unwrap();
    check(&pipeline, &post(&odd), 200, r#"{"quarantined":true}"#);
    check(
        &pipeline,
        &post(&SANDBOX.sign(*b"not json").unwrap()),
        200,
        "quarantined",
    );
    assert_eq!(
        pipeline
            .json(&["quarantine", "list"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_malformed_body_can_be_refused_instead() {
    let mut pipeline = Pipeline::prepare(NONE);
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    std::fs::write(
        pipeline.config(),
        text.replace("body-limit: 64KiB", "malformed: refuse"),
    )
    .unwrap();
    pipeline.run();
    check(
        &pipeline,
        &post(&SANDBOX.sign(*b"not json").unwrap()),
        400,
        r#"{"error":"malformed"}"#,
    );
}

#[test]
fn the_same_body_in_two_environments_is_two_events() {
    let pipeline = Pipeline::start(NONE);
    let body = Events::new("ACME", 34, 9).of("E", Shape::Full).body;
    let sandbox = check(
        &pipeline,
        &post(&SANDBOX.sign(body.clone()).unwrap()),
        200,
        r#""duplicate":false"#,
    );
    let production = check(
        &pipeline,
        &post(&PRODUCTION.sign(body).unwrap()),
        200,
        r#""duplicate":false"#,
    );
    assert_ne!(sandbox, production);
}

#[test]
fn bodies_are_bounded() {
    let pipeline = Pipeline::start(NONE);
    let padded = |length: usize| {
        let event = Events::new("ACME", 34, fastrand::u64(..)).of("E", Shape::Thin);
        let text = String::from_utf8(event.body).unwrap();
        let pad = length - text.len() - r#","pad":"""#.len();
        SANDBOX
            .sign(format!(
                r#"{},"pad":"{}"}}"#,
                text.trim_end_matches('}'),
                "x".repeat(pad)
            ))
            .unwrap()
    };
    check(&pipeline, &post(&padded(64 << 10)), 200, "eventId");
    check(&pipeline, &post(&padded((64 << 10) + 1)), 413, "too_large");
    // Said before the body is sent.
    let announced =
        format!("POST {PATH} HTTP/1.1\r\nhost: t\r\ncontent-length: 10000000000\r\n\r\n");
    check(&pipeline, &announced, 413, "connection: close");
    // Not said at all: chunks without end.
    let mut stream = TcpStream::connect(pipeline.webhook).unwrap();
    let signature = format!("fluent-signature: {}", signed("E", "ENDLESS").sha512);
    write!(
        stream,
        "POST {PATH} HTTP/1.1\r\nhost: t\r\n{signature}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let more = (0..ENDLESS)
        .take_while(|_| stream.write_all(chunk.as_bytes()).is_ok())
        .count();
    assert!(more < ENDLESS, "it reads on and on");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"),
        "{answer}"
    );
    let empty = SANDBOX.sign(*b"").unwrap();
    check(&pipeline, &post(&empty), 200, "quarantined");
}

#[test]
fn headers_are_bounded_in_size_number_and_time() {
    let pipeline = Pipeline::start(NONE);
    let large = format!("x-large: {}\r\n", "x".repeat(100_000));
    check(&pipeline, &request("POST", PATH, &large, b"{}"), 431, "");
    let many: String = (0..100)
        .map(|number| format!("x-{number}: 1\r\n"))
        .collect();
    check(&pipeline, &request("POST", PATH, &many, b"{}"), 431, "");

    for begun in [
        format!("POST {PATH} HTTP/1.1\r\nhost: t\r\n"),
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: AAAA\r\ncontent-length: 9\r\n\r\n{{"
        ),
    ] {
        let began = Instant::now();
        check(&pipeline, &begun, 408, r#"{"error":"timeout"}"#);
        assert!(
            began.elapsed() >= Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_many_requests_and_may_rest_between_them() {
    let pipeline = Pipeline::start(NONE);
    let mut stream = TcpStream::connect(pipeline.webhook).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 0..3 {
        // Longer than the header deadline: idle is not slow.
        let rest = if number == 2 {
            Duration::from_secs(6)
        } else {
            Duration::ZERO
        };
        tokio::time::sleep(rest).await;
        let request =
            post(&signed("E", &format!("K_{number}"))).replace("connection: close\r\n", "");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Sends some while others are slow; how long that took.
async fn send_beside_slow_ones(pipeline: &Pipeline, round: usize) -> Duration {
    let slow: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = TcpStream::connect(pipeline.webhook).unwrap();
            stream.write_all(b"POST / HTTP/1.1\r\nx: ").unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    for number in 0..20 {
        pipeline
            .accept(&signed("E", &format!("S_{round}_{number}")))
            .await;
    }
    let took = began.elapsed();
    for mut stream in slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_do_not_keep_others_out() {
    let pipeline = Pipeline::start(NONE);
    // They are given up after five seconds: what took longer shows nothing, and is done again, as
    // a busy machine may be slow itself.
    for round in 0.. {
        let took = send_beside_slow_ones(&pipeline, round).await;
        if took < Duration::from_secs(4) {
            break;
        }
        assert!(round < 5, "kept out again and again, by now for {took:?}");
    }
    until("it is well", || pipeline.is_ready()).await;
}

/// Whoever reaches the port chooses how often it is refused: that must not fill a disk, and
/// must not hide what Fluent signed.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_anybody_can_cause_are_counted_and_others_written_each_time() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    pipeline.accept(&signed("E", "HD_1")).await;
    let mut forged = signed("E", "HD_2");
    forged.sha512 = SANDBOX.sign("something else").unwrap().sha512;
    let sender = pipeline.sender(simulator::Retry::Never);
    for _ in 0..300 {
        drop(sender.send(&forged).await);
    }
    for _ in 0..40 {
        let unknown =
            "POST /somewhere HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert!(http(pipeline.webhook, unknown).starts_with("HTTP/1.1 404"));
    }
    for number in 0..3 {
        let odd = SANDBOX
            .sign(format!(r#"{{"accountId":"ACME","name":"{number}"}}"#))
            .unwrap();
        drop(sender.send(&odd).await);
    }
    for number in 0..3 {
        let others = SANDBOX
            .sign(format!(r#"{{"accountId":"OTHER","name":"{number}"}}"#))
            .unwrap();
        drop(sender.send(&others).await);
    }
    assert_eq!(pipeline.stop(), Some(0));
    let log = pipeline.log();
    assert!(
        !log.contains(PATH),
        "whoever reads it could send here: {log}"
    );
    let lines = |parts: &[&str]| {
        log.lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .count()
    };
    assert_eq!(
        lines(&[
            "\"webhook refused\"",
            "signature-mismatch",
            "\"client\":\"127.0.0.1\""
        ]),
        1,
        "{log}"
    );
    assert_eq!(
        lines(&[
            "as often again",
            "signature-mismatch",
            "\"count\":299",
            "127.0.0.1"
        ]),
        1,
        "{log}"
    );
    assert_eq!(lines(&["\"request refused\"", "not_found"]), 1, "{log}");
    assert_eq!(
        lines(&["as often again", "not_found", "\"count\":39"]),
        1,
        "{log}"
    );
    assert_eq!(lines(&["kept in quarantine", "trace_id"]), 3, "{log}");
    let genuine = ["\"webhook refused\"", "unknown-account", "trace_id"];
    assert_eq!(lines(&genuine), 3, "each is written: {log}");
    assert_eq!(
        lines(&["not finished in time"]) + lines(&["left behind"]),
        0,
        "nothing was waited for: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_genuine_webhooks_before_a_restart_is_known_after_it() {
    let mut pipeline = Pipeline::prepare(NONE);
    let [metrics] = free_ports();
    pipeline.more = format!("  operator: {{ http: \"{metrics}\" }}\n");
    pipeline.write_settings(NONE);
    pipeline.run();
    pipeline.accept(&signed("E", "HD_1")).await;
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    let forged = request("POST", PATH, "fluent-signature: AAAA\r\n", b"{}");
    let asked = format!("GET /metrics HTTP/1.1\r\nhost: {metrics}\r\nconnection: close\r\n\r\n");
    // The record is read beside the first requests.
    until("its forgery counts as that of a known sender", || {
        assert!(http(pipeline.webhook, &forged).starts_with("HTTP/1.1 401"));
        let page = http(metrics, &asked);
        let mut counts = page
            .lines()
            .filter(|line| line.starts_with("fluent_webhooks_refused_known_client_total{"));
        counts.any(|line| !line.ends_with(" 0"))
    })
    .await;
}
