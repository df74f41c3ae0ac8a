//! Every key of a whole file with every wrong kind of value.

use std::collections::BTreeSet;
use std::path::Path;

use dispatch::Registry;
use simulator::KeyPair;

use crate::tree::{Data, Node};
use crate::{SettingsError, SettingsTree};

/// A file with a value of most kinds of keys.
const WHOLE: &str = r#"
fluentcommerce:
  fluent-webhook-keys: { sydney_sandbox: KEY }
fluent-connect:
  connector-name: shop
  accounts:
    - name: ACME
      region: sydney
      environment: sandbox
      retailers: [34, "35"]
      api:
        username: u
        password: { file: p }
        client-id: c
        client-secret: { file: s }
        concurrency: 2
        requests-per-second: 3
        timeout: 10s
  webhook:
    listen: 127.0.0.1:8080
    path: /hook
    signatures: [sha512]
    signature-headers: { sha512: [fluent.signature], md5: [flex.signature] }
    body-limit: 2MiB
    malformed: quarantine
    tls: { certificate: a.pem, key: b.pem }
    trusted-proxies: [10.0.0.0/8]
    client-address: x-forwarded-for
  health: 127.0.0.1:8081
  drain-after: 5s
  operator:
    grpc: 127.0.0.1:9090
    http: 127.0.0.1:9091
    tokens: [{ name: a, file: t, roles: [read] }]
    audit: data/audit.jsonl
  telemetry:
    otlp: { endpoint: "https://collector:4317", protocol: grpc, headers: { a: { file: f } }, timeout: 5s }
    traces: { sample-ratio: 0.1, keep-failures: true, trust-callers: false }
  routes:
    - name: r
      match: { event: [A, B], environment: sandbox, when: "true" }
      dispatcher: http
      http:
        url: https://example.com/
        timeout: 10s
        allow-private: true
        method: POST
        format: binary
        template: { file: t.json, content-type: text/plain }
        headers: { x-a: text, x-b: { file: s } }
        auth: { basic: { user: u, password: { file: p } } }
        sign: [{ file: w }]
        tls: { ca: ca.pem }
        statuses: { done: [409], retry: [408] }
        error-body-bytes: 10
      rate: { events: 10, per: 1s, burst: 2 }
      breaker: { failures: 5, percent: 50, window: 5m, samples: 50, cooldown: 1s, max-cooldown: 30s }
"#;

/// Values that no key takes, each with a part that must never be repeated.
const WRONG: [&str; 7] = [
    "s3cr3t-Canary expected u16",
    "8190.25",
    "-8190",
    "[8190, [s3cr3t-Canary]]",
    "{ s3cr3t-Canary: 8190 }",
    "~",
    "true",
];

/// Texts that only a reader who knows Rust or serde understands, and the written values.
const NOT_TOLD: [&str; 22] = [
    "s3cr3t",
    "Canary",
    "8190",
    "struct ",
    "enum",
    "variant",
    "untagged",
    "tuple",
    "nonzero",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
    "f64",
    "a string",
    "a map",
    "a sequence",
    "unit",
    "invalid ",
    "floating",
    "syntax",
];

fn registry() -> Registry {
    Registry::default()
        .with::<dispatch_http::HttpDispatcher>()
        .with::<dispatch_log::LogDispatcher>()
}

/// Reads every section.
fn read(tree: &SettingsTree) -> Vec<SettingsError> {
    [
        tree.gateway().map(drop),
        tree.apis().map(drop),
        tree.health().map(drop),
        tree.drain_after().map(drop),
        tree.operator().map(drop),
        tree.metrics().map(drop),
        tree.telemetry().map(drop),
        tree.routes_of(&registry()).map(drop),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect()
}

/// The path of every value, the deepest too.
fn paths(node: &Node) -> Vec<Vec<String>> {
    let children: Vec<(String, &Node)> = match &node.data {
        Data::Scalar(_) | Data::Removed => Vec::new(),
        Data::List(nodes) => nodes
            .iter()
            .enumerate()
            .map(|(index, it)| (index.to_string(), it))
            .collect(),
        Data::Map(entries) => entries
            .iter()
            .map(|(key, _, it)| (key.clone(), it))
            .collect(),
    };
    let under = |(key, child): &(String, &Node)| {
        let mut all = vec![vec![key.clone()]];
        all.extend(
            paths(child)
                .into_iter()
                .map(|path| [vec![key.clone()], path].concat()),
        );
        all
    };
    children.iter().flat_map(under).collect()
}

fn put(node: &mut Node, path: &[String], value: &Node) {
    let Some((key, rest)) = path.split_first() else {
        return node.data = value.data.clone();
    };
    let child = match &mut node.data {
        Data::Map(entries) => entries
            .iter_mut()
            .find(|(name, ..)| name == key)
            .map(|(.., it)| it),
        Data::List(nodes) => key
            .parse()
            .ok()
            .and_then(|index: usize| nodes.get_mut(index)),
        Data::Scalar(_) | Data::Removed => None,
    };
    put(child.unwrap(), rest, value);
}

fn parsed(text: &str) -> SettingsTree {
    let key = KeyPair::generate(1024).unwrap().public_base64().unwrap();
    SettingsTree::parse(Path::new("application.yml"), &text.replace("KEY", &key), []).unwrap()
}

#[test]
fn no_value_is_repeated_and_no_type_of_rust_is_named() {
    let whole = parsed(WHOLE);
    assert_eq!(
        read(&whole)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [""; 0]
    );
    let mut told = BTreeSet::new();
    for path in paths(&whole.root) {
        for wrong in WRONG {
            let mut tree = whole.clone();
            put(
                &mut tree.root,
                &path,
                &crate::yaml::parse(wrong, &|_| whole.root.place.clone()).unwrap(),
            );
            for error in read(&tree) {
                let SettingsError::Invalid { path, message, .. } = &error else {
                    panic!("{error}")
                };
                told.insert(format!("{path}: {message}"));
            }
        }
    }
    let is_bad = |message: &&String| NOT_TOLD.iter().any(|words| message.contains(words));
    let bad: Vec<&String> = told.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(told.len() > 200, "{} messages", told.len());
    assert!(
        !told.iter().any(|message| message.ends_with(": ")),
        "{told:#?}"
    );
}

#[test]
fn each_says_what_was_expected_and_what_was_found() {
    for (from, to, expected) in [
        (
            "listen: 127.0.0.1:8080",
            "listen: localhost:8080",
            "expected an address and a port",
        ),
        (
            "body-limit: 2MiB",
            "body-limit: 5",
            "expected a size such as 64KiB, found the number 5",
        ),
        (
            "retailers: [34, \"35\"]",
            "retailers: [1.0]",
            "retailers[0]: expected a retailer's id",
        ),
        (
            "concurrency: 2",
            "concurrency: 0",
            "concurrency: expected a whole number from 1 such as 8",
        ),
        (
            "error-body-bytes: 10",
            "error-body-bytes: -1",
            "error-body-bytes: expected a whole number from 0 such as 0",
        ),
        (
            "allow-private: true",
            "allow-private: yes please",
            "expected `true` or `false`, found a text",
        ),
        (
            "x-a: text",
            "x-a: [a]",
            "headers.x-a: expected a text such as",
        ),
        (
            "x-b: { file: s }",
            "x-b: { fil: s }",
            "did you mean `file`?",
        ),
        (
            "method: POST",
            "method: [POST]",
            "method: expected one of `POST`, `PUT`, `PATCH`, found a list",
        ),
        (
            "method: POST",
            "method: PSOT",
            "unknown value `PSOT`, expected one of `POST`, `PUT`, `PATCH`",
        ),
        (
            "match: { event: [A, B],",
            "match: { event: { A: B },",
            "event: expected a text such as `OrderStatusChange`, or a list",
        ),
        (
            "breaker: {",
            "breaker: often # {",
            "breaker: expected `off`, or a table such as { failures: 5, cooldown: 1s }",
        ),
        (
            "breaker: {",
            "breaker: { failurs: 5,",
            "did you mean `failures`?",
        ),
        (
            "tls: { ca: ca.pem }",
            "tls: ca.pem",
            "tls: expected a table such as { ca: certs/ca.pem, certificate: certs/server.pem }, found a text",
        ),
        (
            "signatures: [sha512]",
            "signatures: sha512",
            "signatures: expected a list such as [sha512], found a text",
        ),
    ] {
        let text = WHOLE.replacen(from, to, 1);
        assert_ne!(text, WHOLE, "{from}");
        let told: Vec<_> = read(&parsed(&text))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            told.iter()
                .any(|it| it.contains(expected) && it.contains("application.yml:")),
            "{to}: {told:?}"
        );
    }
}
