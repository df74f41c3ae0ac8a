//! Tests of what is warned of in a match.

use queue::RouteFilter;

use super::*;

/// The settings of one route with this match.
fn route(matching: &str) -> Routes {
    let text = format!(
        "fluent-connect:\n  routes:\n  - name: r\n    match: {matching}\n    dispatcher: log\n    log: {{}}\n"
    );
    SettingsTree::parse(std::path::Path::new("application.yml"), &text, [])
        .unwrap()
        .routes(None)
        .unwrap()
}

fn digest(routes: &Routes) -> String {
    RouteFilter::from(routes.0[0].terms.clone()).digest()
}

#[test]
fn a_value_that_is_listed_twice_counts_once_and_check_says_so() {
    let twice = route("{ event: [B, A, B], retailer: [1, '1', 2] }");
    let once = route("{ event: [B, A], retailer: [1, 2] }");
    assert_eq!(twice.0[0].terms, once.0[0].terms);
    assert_eq!(digest(&twice), digest(&once));
    assert_eq!(once.warnings(), [""; 0]);
    assert_eq!(
        twice.warnings(),
        ["`match` of route r lists `event: B`, `retailer: 1` more than once: once is enough"]
    );
}

#[test]
fn a_text_that_is_compared_with_a_number_is_warned_of() {
    let warned = route("{ when: \"event.retailerId == 34\" }").warnings();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("write the number in quotes, as event.retailerId == \"34\""),
        "{warned:?}"
    );
    let well = route("{ when: \"event.retailerId == '34'\" }");
    assert_eq!(well.warnings(), [""; 0]);
}

#[test]
fn a_when_that_is_no_answer_is_refused_with_an_example() {
    let text = "fluent-connect:\n  routes:\n  - { name: r, match: { when: event.retailerId }, dispatcher: log }\n";
    let tree = SettingsTree::parse(std::path::Path::new("t.yml"), text, []).unwrap();
    let refused = tree.routes(None).unwrap_err().to_string();
    for part in [
        "t.yml:3",
        "match.when",
        "neither true nor false",
        "such as `event.",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

#[test]
fn a_field_that_events_do_not_have_is_warned_of_with_those_that_they_have() {
    let warned = route("{ when: \"event.foo == 'x'\" }").warnings();
    assert_eq!(warned.len(), 1, "{warned:?}");
    for part in [
        "route r asks for event.foo",
        "entityStatus",
        "has(event.foo)",
    ] {
        assert!(warned[0].contains(part), "{part}: {warned:?}");
    }
    let guarded = route("{ when: \"has(event.foo) && event.foo == 'x'\" }");
    assert_eq!(guarded.warnings(), [""; 0]);
}
