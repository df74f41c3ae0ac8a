//! The handlers of `examples/`, each copied to a folder of its own, in the languages that they
//! are written in.

mod packages;
pub(crate) mod programs;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use tempfile::TempDir;

use self::programs::{Copied, examples};
use crate::pipeline::{PATIENCE, Pipeline, free_ports, signed, until};

/// What the handlers' tokens have to be.
const TOKEN: &str = "a-token-for-the-examples";

/// A handler that runs, and the lines that it prints.
struct Handler {
    child: Child,
    lines: Receiver<String>,
    _folder: TempDir,
}

impl Handler {
    fn start(copied: Copied, program: &str, args: &[&str]) -> Self {
        let (mut command, folder) = copied.command(program);
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| said.send(line))
        });
        Self {
            child,
            lines,
            _folder: folder,
        }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without an entity: these handlers will never take it.
fn meaningless() -> simulator::SignedBody {
    let body = format!(
        r#"{{"id":"{}","name":"THIN","accountId":"ACME","retailerId":"34"}}"#,
        fastrand::u64(..)
    );
    crate::SANDBOX.sign(body).unwrap()
}

/// What both kinds of handlers do with two events, one of which means nothing.
async fn check(pipeline: &Pipeline, handler: &Handler) {
    pipeline.accept(&signed("OrderReady", "HD_1")).await;
    let line = handler.line();
    assert!(line.starts_with("handled OrderReady HD_1, "), "{line}");
    pipeline.accept(&meaningless()).await;
    until("it is a dead letter", || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .is_some_and(|letters| letters.len() == 1)
    })
    .await;
    let letter = pipeline.json(&["dead-letters", "list"])[0].clone();
    assert_eq!(letter["reason"], "permanent");
    assert!(
        letter["detail"]
            .as_str()
            .unwrap()
            .contains("means nothing here"),
        "{letter}"
    );
    let story: Value = pipeline.json(&["events", "show", "HD_1"]);
    let step = &story[0]["attempts"][0];
    assert_eq!(step["outcome"], "done", "{story}");
    assert_eq!(step["status"], 200, "{story}");
}

/// A certificate for this machine, its key, and a token, in a folder.
fn secrets(folder: &Path) {
    let names = ["127.0.0.1", "localhost"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(folder.join("grpc.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("grpc.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("right.token"), format!("{TOKEN}\n")).unwrap();
    fs::write(folder.join("wrong.token"), "another-token-of-16-bytes").unwrap();
    fs::write(folder.join("reader.token"), "a-token-that-may-only-read").unwrap();
}

async fn is_called(copied: Copied, program: &str) {
    let [address] = free_ports();
    let handler = Handler::start(copied, program, &[&address.port().to_string()]);
    assert!(handler.line().starts_with("listening on"));
    let route = format!(
        "    - {{ name: r, match: {{}}, dispatcher: grpc, grpc: {{ endpoints: [\"http://{address}\"] }} }}\n"
    );
    check(&Pipeline::start(&route), &handler).await;
}

/// The same with a certificate and a token, as it is between machines.
async fn is_called_with_tls(copied: Copied, program: &str) {
    let [address] = free_ports();
    let port = address.port().to_string();
    secrets(copied.folder.path());
    let route = |token: &str| {
        format!(
            "    - {{ name: r, match: {{}}, dispatcher: grpc, retry: {{ initial: 200ms, max-delay: 200ms }}, grpc: {{ endpoints: [\"https://{address}\"], \
             tls: {{ ca: grpc.pem }}, token: {{ file: {token} }} }} }}\n"
        )
    };
    let mut pipeline = Pipeline::prepare(&route("wrong.token"));
    for file in ["grpc.pem", "right.token", "wrong.token"] {
        let from = copied.folder.path().join(file);
        fs::copy(from, pipeline.folder.path().join(file)).unwrap();
    }
    let arguments = ["--certificate", "grpc.pem", "--key", "grpc.key"];
    let arguments = [&[port.as_str(), "--token", "right.token"], &arguments[..]].concat();
    let handler = Handler::start(copied, program, &arguments);
    assert!(handler.line().starts_with("listening on"));
    pipeline.run();
    pipeline.accept(&signed("OrderReady", "EARLY")).await;
    until("the wrong token is refused", || {
        let story = pipeline.json(&["events", "show", "EARLY"]).to_string();
        story.contains("expected the token of this handler")
    })
    .await;
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.write_settings(&route("right.token"));
    pipeline.run();
    assert!(handler.line().starts_with("handled OrderReady EARLY, "));
    check(&pipeline, &handler).await;
}

async fn asks(copied: Copied, program: &str) {
    let (mut pipeline, grpc) =
        Pipeline::prepare_with_grpc("    - { name: r, match: {}, dispatcher: subscription }\n");
    pipeline.run();
    let handler = Handler::start(copied, program, &[&grpc.to_string(), "r"]);
    check(&pipeline, &handler).await;
    // It comes back when the service does, and says meanwhile why it waits.
    pipeline.kill();
    let line = handler.line();
    assert!(line.starts_with("asking again: UNAVAILABLE: "), "{line}");
    pipeline.run();
    pipeline.accept(&signed("OrderReady", "HD_2")).await;
    let line = std::iter::repeat_with(|| handler.line())
        .find(|line| !line.starts_with("asking"))
        .unwrap();
    assert!(line.starts_with("handled OrderReady HD_2, "), "{line}");
}

/// A server that asks for a certificate's authority and a token, in the way that the how-to shows.
fn with_tls() -> (Pipeline, SocketAddr) {
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc("    []\n");
    secrets(pipeline.folder.path());
    pipeline.more = format!(
        "  operator:
    grpc: \"{grpc}\"
    tls: {{ certificate: grpc.pem, key: grpc.key }}
    tokens:
      - {{ name: loyalty, file: right.token, roles: [\"consume:r\"] }}
      - {{ name: reader, file: reader.token, roles: [read] }}
"
    );
    pipeline.write_settings("    - { name: r, match: {}, dispatcher: subscription }\n");
    pipeline.run();
    (pipeline, grpc)
}

async fn asks_with_tls(copied: Copied, program: &str) {
    let (pipeline, grpc) = with_tls();
    let secret = |name: &str| pipeline.folder.path().join(name).display().to_string();
    let (ca, token) = (secret("grpc.pem"), secret("right.token"));
    let address = format!("localhost:{}", grpc.port());
    let arguments = [&*address, "r", "--ca", &ca, "--token", &token];
    let handler = Handler::start(copied, program, &arguments);
    pipeline.accept(&signed("OrderReady", "HD_1")).await;
    let line = handler.line();
    assert!(line.starts_with("handled OrderReady HD_1, "), "{line}");
}

/// Runs a program that must end by itself.
fn ended(copied: Copied, program: &str, args: &[&str]) -> Output {
    let (mut command, _folder) = copied.command(program);
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

/// What the server refuses is one line with its words, and ends the program.
fn is_refused_in_words(copy: fn() -> Copied, program: &str) {
    let (pipeline, grpc) = with_tls();
    let secret = |name: &str| pipeline.folder.path().join(name).display().to_string();
    let ca = secret("grpc.pem");
    let address = format!("localhost:{}", grpc.port());
    for (token, route, words) in [
        (
            "wrong.token",
            "r",
            "UNAUTHENTICATED: expected `authorization",
        ),
        ("reader.token", "r", "PERMISSION_DENIED: "),
        ("right.token", "nope", "PERMISSION_DENIED: "),
    ] {
        let token = secret(token);
        let arguments = [&*address, route, "--ca", &ca, "--token", &token];
        let output = ended(copy(), program, &arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let expected = format!("refused by {address}: {words}");
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.trim_end().len() > expected.len(), "{said}");
    }
}

/// A port that is taken is one line, too.
fn says_that_it_cannot_listen(copied: Copied, program: &str) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = ended(copied, program, &[&port]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("can't listen: "), "{said}");
    assert!(!said.contains("Traceback"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_is_called() {
    is_called(Copied::python(), "dispatch.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_asks() {
    asks(Copied::python(), "subscribe.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_is_called() {
    is_called(Copied::node(), "dispatch.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_asks() {
    asks(Copied::node(), "subscribe.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_is_called_with_tls_and_a_token() {
    is_called_with_tls(Copied::python(), "dispatch.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_asks_with_tls_and_a_token() {
    asks_with_tls(Copied::python(), "subscribe.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_is_called_with_tls_and_a_token() {
    is_called_with_tls(Copied::node(), "dispatch.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_asks_with_tls_and_a_token() {
    asks_with_tls(Copied::node(), "subscribe.mjs").await;
}

#[test]
fn python_says_in_words_why_it_is_refused() {
    is_refused_in_words(Copied::python, "subscribe.py");
    says_that_it_cannot_listen(Copied::python(), "dispatch.py");
}

#[test]
fn node_says_in_words_why_it_is_refused() {
    is_refused_in_words(Copied::node, "subscribe.mjs");
    says_that_it_cannot_listen(Copied::node(), "dispatch.mjs");
}

#[test]
fn each_can_be_read_at_a_glance() {
    for file in [
        "python/dispatch.py",
        "python/subscribe.py",
        "node/dispatch.mjs",
        "node/subscribe.mjs",
    ] {
        let text = fs::read_to_string(examples().join(file)).unwrap();
        let lines = text.lines().count();
        assert!(lines < 75, "{file} has {lines} lines");
    }
}
