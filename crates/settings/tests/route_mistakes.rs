//! One mistake in a route is one message, which names the route.

#![expect(clippy::unwrap_used, reason = "a test fails where it must not")]

use std::path::Path;

use dispatch::Registry;
use dispatch_http::HttpDispatcher;
use dispatch_log::LogDispatcher;
use fluent_settings::{Section, SettingsError, SettingsTree};

const WELL: &str = "{ name: first, match: {}, dispatcher: log }";
const LAST: &str = "{ name: last, match: {}, dispatcher: log }";

/// What is found in three routes, of which the second is this one.
fn mistakes(second: &str, sections: &[Section<'_>]) -> Vec<String> {
    let text = format!(
        "fluent-connect:\n  queue: {{}}\n  routes:\n  - {WELL}\n  - {second}\n  - {LAST}\n"
    );
    let tree = SettingsTree::parse(Path::new("application.yml"), &text, []).unwrap();
    let found = tree.mistakes(sections);
    found.iter().map(SettingsError::to_string).collect()
}

/// The routes and their names, as `check` reads them and as a program without dispatchers does.
#[track_caller]
fn assert_one(second: &str, place: &str, message: &str) {
    let registry = Registry::new()
        .with::<HttpDispatcher>()
        .with::<LogDispatcher>();
    for sections in [
        &[Section::RoutesOf(&registry), Section::Reconcile][..],
        &[Section::RoutesKnownTo(&registry)],
        &[Section::Routes, Section::Reconcile],
    ] {
        let found = mistakes(second, sections);
        assert_eq!(found.len(), 1, "{second}: {found:#?}");
        let expected = format!("fluent-connect.routes[1]{place}: ");
        assert!(found[0].contains(&expected), "{found:#?}");
        assert!(found[0].contains(message), "{found:#?}");
    }
}

#[test]
fn a_mistake_in_one_route_makes_no_second_about_the_last() {
    for (second, place, message) in [
        (
            "{ name: Bad_Name, match: {}, dispatcher: log }",
            " (Bad_Name).name",
            "lowercase",
        ),
        (
            "{ name: first, match: {}, dispatcher: log }",
            " (first).name",
            "two routes",
        ),
        (
            "{ name: unrouted, match: {}, dispatcher: log }",
            " (unrouted).name",
            "`unrouted`",
        ),
        (
            "{ name: orders, dispatcher: log }",
            " (orders).match",
            "missing",
        ),
        ("{ match: {}, dispatcher: log }", ".name", "missing"),
    ] {
        assert_one(second, place, message);
    }
}

#[test]
fn the_table_of_a_misspelt_dispatcher_is_no_second_mistake() {
    let table = "http: { url: \"https://a.example/\" }";
    assert_one(
        &format!("{{ name: orders, match: {{}}, dispacher: http, {table} }}"),
        " (orders).dispacher",
        "did you mean `dispatcher`",
    );
    let registry = Registry::new()
        .with::<HttpDispatcher>()
        .with::<LogDispatcher>();
    let second = format!("{{ name: orders, match: {{}}, dispatcher: htpp, {table} }}");
    let found = mistakes(&second, &[Section::RoutesOf(&registry), Section::Reconcile]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("did you mean `http`"), "{found:#?}");
    assert!(
        found[0].contains("routes[1] (orders).dispatcher"),
        "{found:#?}"
    );
    let alone = mistakes(&second, &[Section::Routes, Section::Reconcile]);
    assert!(alone.is_empty(), "{alone:#?}");
}
