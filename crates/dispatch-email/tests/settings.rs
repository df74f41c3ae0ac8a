//! Messages about settings that do not fit.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use dispatch::Registry;
use fluent_dispatch_email::EmailDispatcher;
use settings::SettingsTree;

/// Returns the message about a route whose table has this `to:`; `None` if it is accepted.
fn told(to: &str) -> Option<String> {
    let table =
        format!("server: {{ host: localhost }}, from: a@b.c, to: {to}, subject: s, text: t.txt");
    let text = format!(
        "fluent-connect:\n  routes:\n    - {{ name: r, match: {{}}, dispatcher: email, email: {{ {table} }} }}\n"
    );
    let tree = SettingsTree::parse(Path::new("application.yml"), &text, []).unwrap();
    let registry = Registry::default().with::<EmailDispatcher>();
    tree.routes_of(&registry)
        .err()
        .map(|error| error.to_string())
}

#[test]
fn one_address_or_a_list_is_taken_and_what_is_neither_is_told_in_words() {
    for to in ["d@e.f", "'{{ event.attributes.mail }}'", "[d@e.f, g@h.i]"] {
        assert_eq!(told(to), None, "{to}");
    }
    for (to, expected) in [
        (
            "5",
            "email.to: expected an address, or a list of addresses, found ",
        ),
        (
            "{ adress: canary }",
            "email.to: expected an address, or a list of addresses, found ",
        ),
        (
            "~",
            "email.to: expected an address, or a list of addresses, found ",
        ),
        ("[d@e.f, 5]", "email.to[1]: expected a text, found a number"),
        ("[[canary]]", "email.to[0]: expected a text, found a list"),
    ] {
        let message = told(to).unwrap();
        assert!(
            message.contains(expected) && message.starts_with("application.yml:3: "),
            "{to}: {message}"
        );
        assert!(
            !message.contains("canary") && !message.contains("variant"),
            "{to}: {message}"
        );
    }
}
