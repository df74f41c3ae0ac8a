//! Numbers in texts have the digits of the event's, and can be calculated with.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dispatch::{Context, DeliveryOutcome, Event};
use event_model::{
    Account, Accounts, Algorithm, Environment, Evidence, ExactJson, Headers, Inbound, KeyId,
    KeyName, Proof, Timestamp, Verified,
};
use fluent_dispatch_kit::{Template, View};

mod compared;
mod texts;

fn event(attributes: &str) -> Event {
    let key = KeyName::new("sydney", Environment::Sandbox);
    let accounts = Accounts::new([Account {
        name: "ACME".to_owned(),
        key: key.clone(),
        retailers: None,
    }]);
    let body = format!(
        r#"{{"id":"1","name":"E","accountId":"ACME","retailerId":"34","attributes":{attributes}}}"#
    );
    let inbound = Inbound {
        body: Bytes::from(body),
        headers: Headers::default(),
        received_at: Timestamp::UNIX_EPOCH,
    };
    let key = Arc::new(KeyId::any_named(key));
    let evidence = Evidence {
        proof: Proof::Signed(Algorithm::Sha512),
        key,
        signature: String::new(),
    };
    // A test may assert that its event is verified.
    Event::admit(Verified::assert(inbound, evidence), &accounts, None).unwrap()
}

fn filled(
    template: &str,
    content_type: &str,
    attributes: &str,
) -> Result<String, dispatch::DispatchError> {
    let template = Template::parse(template.to_owned(), content_type).unwrap();
    template.fill(&View::of(&event(attributes))?)
}

const NUMBERS: [&str; 16] = [
    "0",
    "-0",
    "-12",
    "1.10",
    "1.0",
    "100.00",
    "1e3",
    "1E+3",
    "-2.50e-7",
    "9007199254740993",
    "18446744073709551616",
    "9405511899560000000001",
    "-170141183460469231731687303715884105728",
    "123456789012345678901234567890123456789012345678901234567890",
    "0.1000000000000000055511151231257827",
    "1234567890.12345678901234567890",
];

#[test]
fn a_list_in_a_text_has_its_numbers_as_they_came() {
    let long = NUMBERS[13];
    let list = format!(r#"{{"l":[1.10,[1e3,{{"k":{long}}}],"a<",true,null,7]}}"#);
    let plain = format!("[1.10, [1e3, {{'k': {long}}}], 'a<', True, None, 7]");
    let filled = |kind| filled("{{ event.attributes.l }}", kind, &list).unwrap();
    assert_eq!(filled("text/plain"), plain);
    let escaped = plain.replace('<', "&lt;").replace('\'', "&#x27;");
    assert_eq!(filled("text/html"), escaped);
    let without = r#"{"l":[1,"a",{"k":null}]}"#;
    assert_eq!(
        self::filled("{{ event.attributes.l }}", "text/plain", without).unwrap(),
        "[1, 'a', {'k': None}]",
        "as the engine writes it"
    );
}

#[test]
fn a_number_is_written_as_it_came() {
    for number in NUMBERS {
        for (content_type, template, expected) in [
            ("text/plain", "{{ event.attributes.n }}", number.to_owned()),
            (
                "text/html",
                "<b>{{ event.attributes.n }}</b>",
                format!("<b>{number}</b>"),
            ),
            (
                "application/json",
                r#"{"n": {{ event.attributes.n }}}"#,
                format!(r#"{{"n": {number}}}"#),
            ),
            (
                "application/json",
                "{{ event.attributes.l }}",
                format!(r#"["<",{number},{{"n":{number}}}]"#),
            ),
            (
                "text/plain",
                "{% for x in event.attributes.l[1:2] %}{{ x }}{% endfor %}",
                number.to_owned(),
            ),
            (
                "text/plain",
                "{{ event.attributes.l[1:2] | tojson }}",
                format!("[{number}]"),
            ),
            (
                "application/json",
                "{{ event.attributes.n | tojson }}",
                number.to_owned(),
            ),
            (
                "text/plain",
                "{% set x %}{{ event.attributes.n }}{% endset %}{{ x }}",
                number.to_owned(),
            ),
        ] {
            let attributes =
                format!(r#"{{"n": {number}, "l": ["<", {number}, {{"n": {number}}}]}}"#);
            assert_eq!(
                filled(template, content_type, &attributes).unwrap(),
                expected,
                "{template}"
            );
        }
    }
    for number in NUMBERS {
        let mut cx = Context::new("r", "key", Duration::from_secs(1));
        cx.enriched = ExactJson::parse(&format!(r#"{{"order": {{"n": {number}}}}}"#)).ok();
        let template = Template::parse(
            "{{ enriched.order.n }} {{ enriched.order }}".to_owned(),
            "application/json",
        );
        let filled = template
            .unwrap()
            .fill(&View::of_attempt(&event("{}"), &cx).unwrap())
            .unwrap();
        assert_eq!(
            filled,
            format!(r#"{number} {{"n":{number}}}"#),
            "what Fluent was asked about it"
        );
    }
    let list = format!("[{}]", NUMBERS[4..6].join(","));
    assert_eq!(
        filled(
            "{{ event.attributes.l }}",
            "application/json",
            &format!(r#"{{"l":{list}}}"#)
        )
        .unwrap(),
        list
    );
}

#[test]
fn a_number_can_be_counted_with() {
    let attributes = r#"{"price": 1.10, "big": 9405511899560000000001, "many": 1e3, "huge": 1234567890123456789012345678901234567890123}"#;
    for (template, expected) in [
        ("{{ event.attributes.price * 2 }}", "2.2"),
        (
            "{{ event.attributes.price > 1 and event.attributes.price < 1.2 }}",
            "True",
        ),
        ("{{ event.attributes.big + 1 }}", "9405511899560000000002"),
        ("{{ event.attributes.many | int }}", "1000"),
        ("{{ event.attributes.huge > event.attributes.big }}", "True"),
        ("{{ event.attributes.price == 1.1 }}", "True"),
    ] {
        assert_eq!(
            filled(template, "text/plain", attributes).unwrap(),
            expected,
            "{template}"
        );
    }
}

#[test]
fn numbers_that_are_nearly_the_same_are_never_taken_for_each_other() {
    for (a, b) in [
        ("0.10000000000000000001", "0.10000000000000000002"),
        ("1.10", "1.1"),
        ("1e2", "100.0"),
        ("0.1000000000000000055", "0.1"),
        ("12345678901234567890123.0", "12345678901234567890124.0"),
    ] {
        let attributes = format!(r#"{{"a": {a}, "b": {b}, "l": [{b}, {a}]}}"#);
        for content_type in ["text/plain", "text/html", "application/json"] {
            assert_eq!(
                filled(
                    "{{ event.attributes.a }} {{ event.attributes.b }} {{ event.attributes.l }}",
                    content_type,
                    &attributes
                )
                .unwrap()
                .replace(", ", ","),
                format!("{a} {b} [{b},{a}]")
            );
        }
    }
}

#[test]
fn a_missing_field_is_named_in_every_operator() {
    for expression in [
        "event.attributes.x ~ 1",
        "event.attributes.x + 1",
        "-event.attributes.x",
        "event.attributes.x == 1",
        "1 < event.attributes.x",
        "event.attributes.x in [1]",
        "event.attributes.x * event.attributes.n",
        "event.attributes.l[event.attributes.x - 1]",
    ] {
        let template = format!("a\n{{{{ {expression} }}}}");
        let error = filled(&template, "text/plain", r#"{"n": 1.10, "l": []}"#).unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.starts_with("line 2: "), "{expression}: {error}");
        assert!(error.contains("missing"), "{expression}: {error}");
        assert!(!error.contains("__"), "{expression}: {error}");
    }
}

#[test]
fn an_events_number_is_as_it_was_signed_whatever_fluent_answers() {
    for (signed, answered) in [("1.10", "1.1"), ("1.1", "1.10"), ("1e3", "1000.0")] {
        let mut cx = Context::new("r", "key", Duration::from_secs(1));
        cx.enriched = ExactJson::parse(&format!(r#"{{"n": {answered}}}"#)).ok();
        cx.outcome = Some(Arc::new(DeliveryOutcome::done(
            Some(201),
            answered.as_bytes(),
        )));
        let view = View::of_attempt(&event(&format!(r#"{{"n": {signed}}}"#)), &cx).unwrap();
        let template =
            Template::parse("{{ event.attributes.n }}".to_owned(), "application/json").unwrap();
        assert_eq!(template.fill(&view).unwrap(), signed, "{answered}");
    }
}

#[test]
fn an_answer_that_is_told_of_has_its_digits_too() {
    let answer = br#"{"id": 9405511899560000000001, "weights": [2.50]}"#;
    let mut cx = Context::new("r", "1", Duration::from_secs(1));
    cx.outcome = Some(Arc::new(DeliveryOutcome::done(Some(201), answer)));
    let view = View::of_attempt(&event("{}"), &cx).unwrap();
    let template = "{{ outcome.status }} {{ outcome.answer }} {{ outcome.reason }}";
    let template = Template::parse(template.to_owned(), "application/json").unwrap();
    let expected = r#"201 {"id":9405511899560000000001,"weights":[2.50]} null"#;
    assert_eq!(template.fill(&view).unwrap(), expected);
}

#[test]
fn json_is_safe_in_html_and_bounded_with_and_without_such_numbers() {
    for attributes in [
        r#"{"t": "<a href='&'>", "n": 1.50}"#,
        r#"{"t": "<a href='&'>", "n": 1}"#,
    ] {
        let made = filled("{{ event.attributes.t | tojson }}", "text/html", attributes).unwrap();
        assert_eq!(made, r#""\u003ca href=\u0027\u0026\u0027\u003e""#);
        let pretty = filled(
            "{{ event.attributes | tojson(indent=2) }}",
            "text/plain",
            attributes,
        )
        .unwrap();
        assert!(pretty.starts_with("{\n  \"n\": 1"), "{pretty}");
        let many =
            "{% for i in range(20000) %}{% set x = event.attributes.l | tojson %}{% endfor %}";
        let long = attributes.replace('{', &format!("{{\"l\": \"{}\", ", "x".repeat(10_000)));
        assert!(
            filled(many, "text/plain", &long).is_err(),
            "200 MB were made"
        );
    }
}

#[test]
fn nothing_else_is_written_otherwise() {
    let attributes = r#"{"x": 1.50, "t": "a<b\"\u00e9", "e": {}, "l": [], "n": null, "b": false, "k": {"b": 1, "a": [true]}}"#;
    let json = r#"{"b":false,"e":{},"k":{"a":[true],"b":1},"l":[],"n":null,"t":"a<b\"é","x":1.50}"#;
    assert_eq!(
        filled("{{ event.attributes }}", "application/json", attributes).unwrap(),
        json
    );
    let safe = r#"{{ event.attributes.k | tojson }}"#;
    assert_eq!(
        filled(safe, "application/json", attributes)
            .unwrap()
            .replace(' ', ""),
        r#"{"a":[true],"b":1}"#
    );
}
