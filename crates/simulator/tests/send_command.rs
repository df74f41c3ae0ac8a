//! `fluent-simulator send`, as a process: what arrives, and what it says of it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fluent_simulator::KeyPair;
use serde_json::Value;
use tempfile::TempDir;

/// An endpoint that answers every request with 200, and the bodies that it got.
struct Endpoint {
    address: SocketAddr,
    bodies: Receiver<Vec<u8>>,
}

impl Endpoint {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, bodies) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, |body| tell.send(body).unwrap());
            }
        });
        Self { address, bodies }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn received(&self) -> Vec<Vec<u8>> {
        self.bodies.try_iter().collect()
    }
}

/// Reads one request, hands its body on, and answers 200.
fn answer(mut stream: TcpStream, hand_on: impl FnOnce(Vec<u8>)) {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).unwrap_or(0);
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let head = text.find("\r\n\r\n").map(|end| end + 4);
        let length = text
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .and_then(|(_, rest)| rest.lines().next()?.parse::<usize>().ok());
        if let (Some(head), Some(length)) = (head, length)
            && request.len() >= head + length
        {
            hand_on(request[head..].to_vec());
            let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let _ = stream.write_all(ok.as_bytes());
            return;
        }
        if read == 0 {
            return;
        }
    }
}

/// A folder with a key.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pair = KeyPair::generate(1024).unwrap();
    pair.save(&folder.path().join("fluent")).unwrap();
    folder
}

fn send(folder: &TempDir, url: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fluent-simulator"))
        .args(["send", "--key", "fluent.key", "--url", url])
        .args(more)
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn sent(folder: &TempDir, endpoint: &Endpoint, more: &[&str]) -> Vec<Value> {
    let output = send(folder, &endpoint.url(), more);
    assert!(output.status.success(), "{output:?}");
    let bodies = endpoint.received();
    let read = |body: &Vec<u8>| serde_json::from_slice(body).unwrap();
    bodies.iter().map(read).collect()
}

#[test]
fn each_run_sends_new_events_unless_a_seed_is_given() {
    let (folder, endpoint) = (folder(), Endpoint::open());
    let mut ids = HashSet::new();
    for _ in 0..3 {
        for event in sent(&folder, &endpoint, &["--count", "5"]) {
            ids.insert(event["id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(ids.len(), 15);
    let seeded = || sent(&folder, &endpoint, &["--count", "5", "--seed", "7"]);
    assert_eq!(seeded(), seeded());
}

#[test]
fn made_up_events_have_the_name_and_reference_that_are_asked_for() {
    let (folder, endpoint) = (folder(), Endpoint::open());
    let asked = ["--name", "OrderReadyForPickup", "--ref", "CC_77", "-c", "2"];
    let events = sent(&folder, &endpoint, &asked);
    for event in &events {
        assert_eq!(event["name"], "OrderReadyForPickup");
        assert_eq!(event["entityRef"], "CC_77");
        assert_eq!(event["entityType"], "ORDER");
    }
    assert_ne!(events[0]["id"], events[1]["id"]);
    let only_ref = sent(&folder, &endpoint, &["--ref", "HD_5"]);
    assert_eq!(only_ref[0]["entityRef"], "HD_5");
    let thin = sent(&folder, &endpoint, &["--name", "OrderBooked", "--thin"]);
    assert_eq!(thin[0]["attributes"], Value::Null);
}

#[test]
fn a_given_body_is_sent_byte_for_byte_and_changed_only_where_asked() {
    let (folder, endpoint) = (folder(), Endpoint::open());
    let body = "{ \"id\":\"1\", \"name\":\"E\",\n \"entityRef\":\"HD_1\", \"x\": 1.0 }\n";
    std::fs::write(folder.path().join("order.json"), body).unwrap();
    let output = send(&folder, &endpoint.url(), &["--event", "order.json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(endpoint.received(), [body.as_bytes()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("E ") && said.contains(" HD_1 "), "{said}");

    let changed = ["--event", "order.json", "--ref", "HD_2", "--id", "new"];
    let changed = [&changed[..], &["--count", "2"]].concat();
    let events = sent(&folder, &endpoint, &changed);
    for event in &events {
        assert_eq!(event["name"], "E");
        assert_eq!(event["entityRef"], "HD_2");
    }
    assert_ne!(events[0]["id"], events[1]["id"]);
    let both = send(
        &folder,
        &endpoint.url(),
        &["--event", "order.json", "--account", "ACME"],
    );
    assert_eq!(both.status.code(), Some(2), "an account is in the body");
}

/// Sends one event to this address, once, and returns what was printed.
fn said(url: &str, more: &[&str]) -> String {
    let folder = folder();
    let output = send(&folder, url, &[&["--retry", "never"], more].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8(printed).unwrap()
}

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
}

/// A port that answers whatever comes with an answer of HTTP.
fn plain() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 65_536]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

/// A port at which nobody listens, and nobody else can while this is kept.
struct Closed(socket2::Socket);

impl Closed {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

#[test]
fn it_says_why_nobody_answered() {
    let closed = Closed::new();
    let address = closed.address();
    let refused = format!("connection refused at {address}: nobody listens there");
    says(
        &said(&format!("http://{address}/"), &[]),
        &[
            "sent once: no answer: ",
            &refused,
            "attempt 1: ",
            "1 of 1 not accepted",
        ],
    );
    // No label is so long: nobody is asked for its address, and no network is needed to say so.
    let unknown = format!("{}.invalid", "x".repeat(64));
    says(
        &said(&format!("http://{unknown}/"), &[]),
        &[&format!("the name {unknown} has no address")],
    );
    says(
        &said("localhost", &[]),
        &[
            "\"localhost\" is not where a webhook can go",
            "http://127.0.0.1:8080",
        ],
    );
    let plain = plain();
    says(
        &said(&format!("https://{plain}/"), &[]),
        &["TLS failed at ", "it does not speak TLS: is it http://?"],
    );
}

#[test]
fn it_says_that_a_connection_was_closed_without_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 65_536]);
        }
    });
    says(
        &said(&format!("http://{address}/"), &[]),
        &[&format!("the connection to {address} was closed")],
    );
}

#[test]
fn it_says_that_an_endpoint_took_too_long() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    says(
        &said(&format!("http://{address}/"), &[]),
        &[&format!("timed out after 10 s at {address}")],
    );
}

/// The four attempts of Fluent, with why each had no answer while the next is waited for.
#[test]
fn four_attempts_are_told_as_they_are_made() {
    let folder = folder();
    let closed = Closed::new();
    let url = format!("http://{}/", closed.address());
    let began = std::time::Instant::now();
    let output = send(&folder, &url, &[]);
    assert!(began.elapsed() >= Duration::from_secs(14));
    let told = String::from_utf8(output.stderr).unwrap();
    let waits: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once("; again in ").map(|(_, wait)| wait))
        .collect();
    let expected = [
        "2 s, as Fluent does",
        "4 s, as Fluent does",
        "8 s, as Fluent does",
    ];
    assert_eq!(waits, expected, "{told}");
    let printed = String::from_utf8(output.stdout).unwrap();
    says(&printed, &["sent 4 times: no answer: connection refused"]);
}
