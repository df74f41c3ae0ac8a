//! Keys of earlier versions are refused, and the message has the present spelling.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use dispatch::Registry;
use fluent_settings::{SettingsError, SettingsTree};

/// Each a whole `fluent-connect`, the old key in it, and the new one.
const OLD: [(&str, &str, &str); 23] = [
    ("routes: [ { R, breaker: { of: 50 } } ]", "of", "samples"),
    (
        "routes: [ { R, breaker: { rest: 1s } } ]",
        "rest",
        "cooldown",
    ),
    (
        "routes: [ { R, breaker: { longest-rest: 9s } } ]",
        "longest-rest",
        "max-cooldown",
    ),
    (
        "routes: [ { R, retry: { first: 1s } } ]",
        "first",
        "initial",
    ),
    (
        "routes: [ { R, retry: { ceiling: 1h } } ]",
        "ceiling",
        "max-delay",
    ),
    (
        "routes: [ { R, retry: { for: 3d } } ]",
        "for",
        "max-elapsed",
    ),
    (
        "routes: [ { R, confirm: fluent } ]",
        "confirm",
        "entity-check",
    ),
    (
        "routes: [ { R, enrich: { query: q, patience: 1m } } ]",
        "patience",
        "max-wait",
    ),
    (
        "routes: [ { R, enrich: { query: q, guard: {} } } ]",
        "guard",
        "freshness",
    ),
    (
        "routes: [ { R, enrich: { query: q, freshness: { moved-on: skip } } } ]",
        "moved-on",
        "outdated",
    ),
    (
        "routes: [ { R, http: { excerpt: 9 } } ]",
        "excerpt",
        "error-body-bytes",
    ),
    (
        "routes: [ { R, http: { statuses: { again: [400] } } } ]",
        "again",
        "retry",
    ),
    (
        "routes: [ { S, subscription: { longest: 1m } } ]",
        "longest",
        "max-duration",
    ),
    (
        "accounts: [ { A, api: { at-once: 2 } } ]",
        "at-once",
        "concurrency",
    ),
    (
        "accounts: [ { A, api: { per-second: 2 } } ]",
        "per-second",
        "requests-per-second",
    ),
    ("reconcile: { events: [E] }", "events", "event-names"),
    ("reconcile: { every: 1m }", "every", "interval"),
    ("reconcile: { delay: 1m }", "delay", "min-age"),
    ("reconcile: { back: 1h }", "back", "lookback"),
    (
        "telemetry: { otlp: { metrics-every: 1m } }",
        "metrics-every",
        "metrics-interval",
    ),
    (
        "telemetry: { traces: { sample: 1 } }",
        "sample",
        "sample-ratio",
    ),
    ("queue: { J, inbox: _INBOX }", "inbox", "inbox-prefix"),
    (
        "queue: { J, discover: true }",
        "discover",
        "discover-servers",
    ),
];

/// The first error of any section.
fn refused(connect: &str) -> String {
    let connect = connect
        .replace("{ R, ", "{ name: r, match: {}, dispatcher: http, ")
        .replace("{ S, ", "{ name: r, match: {}, dispatcher: subscription, ")
        .replace(
            "{ A, ",
            "{ name: ACME, region: sydney, environment: sandbox, ",
        )
        .replace(
            "{ J",
            "{ kind: jetstream, servers: [\"nats://127.0.0.1:4222\"]",
        );
    let text = format!("fluent-connect: {{ {connect} }}\n");
    let tree = match SettingsTree::parse(Path::new("application.yml"), &text, []) {
        Ok(tree) => tree,
        Err(error) => return error.to_string(),
    };
    let registry = Registry::new()
        .with::<dispatch_http::HttpDispatcher>()
        .with::<subscriptions::SubscriptionDispatcher>();
    let routes = tree.routes(Some(&registry));
    let reconcile = routes
        .as_ref()
        .map_or(Ok(()), |routes| tree.reconcile(routes).map(drop));
    let all: [Result<(), SettingsError>; 7] = [
        routes.map(drop),
        reconcile,
        tree.apis().map(drop),
        tree.telemetry().map(drop),
        tree.operator().map(drop),
        tree.queue().map(drop),
        tree.queue().and_then(|queue| tree.spool(&queue)).map(drop),
    ];
    all.into_iter().find_map(Result::err).unwrap().to_string()
}

#[test]
fn an_old_spelling_is_refused_with_the_new_one() {
    for (connect, old, new) in OLD {
        let refused = refused(connect);
        let expected = format!("`{old}` is called `{new}` now");
        assert!(refused.contains(&expected), "{connect}: {refused}");
        assert!(
            refused.contains("application.yml:1"),
            "{connect}: {refused}"
        );
    }
    // Elsewhere such a word is only unknown.
    let elsewhere = refused("routes: [ { R, breaker: { ceiling: 1s } } ]");
    assert!(elsewhere.contains("unknown key"), "{elsewhere}");
}
