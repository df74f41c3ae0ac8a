//! Numbers in texts have the digits of the event's, and can be calculated with.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dispatch::{Context, DeliveryOutcome, Event};
use event_model::{
    Account, Accounts, Algorithm, Environment, Evidence, ExactJson, Headers, Inbound, KeyId,
    KeyName, Proof, Timestamp, Verified,
};
use fluent_dispatch_kit::{Template, View};

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

/// Numbers that the engine has no number for, or writes differently.
const ODD: [&str; 10] = [
    "12345678901234567890123",
    "1.10",
    "1e2",
    "0.1000000000000000055",
    "-0",
    "-2.50E-7",
    "340282366920938463463374607431768211457",
    "100000000000000000000.10",
    "1e-320",
    "1e400",
];

#[test]
fn every_text_that_is_made_of_a_number_has_it_as_it_came() {
    // What is written in the place of N is the number.
    for (template, expected) in [
        ("{{ n }}", "N"),
        ("{{ 'a' ~ n ~ 'b' }}", "aNb"),
        ("{{ n ~ n }}", "NN"),
        ("{{ 'a' + n|string }}", "aN"),
        ("{{ l ~ '' }}", "[N, 'x']"),
        ("{{ l|join(',') }}", "N,x"),
        ("{{ [n, n]|join }}", "NN"),
        ("{{ ls|join(', ', attribute='n') }}", "N, N"),
        ("{{ n|string }}", "N"),
        ("{{ n|string|length == n|string|length }}", "True"),
        ("{{ n|tojson }}", "N"),
        ("{{ l|tojson }}", r#"[N, "x"]"#),
        ("{{ {'k': n}|tojson }}", r#"{"k": N}"#),
        ("{{ l|list|string }}", "[N, 'x']"),
        ("{{ {'k': [n]}|string }}", "{'k': [N]}"),
        ("{{ (n, 1)|string }}", "(N, 1)"),
        ("{{ n|default('x') }}", "N"),
        ("{{ none|default(n, true) }}", "N"),
        ("{{ n or 'x' if n else n }}", "N"),
        ("{{ n|safe }}", "N"),
        ("{{ n|escape }}", "N"),
        ("{{ n|e|safe }}", "N"),
        ("{{ n|trim }}", "N"),
        ("{{ n|replace('x', 'y') }}", "N"),
        ("{{ 'x'|replace('x', n) }}", "N"),
        ("{{ n|indent }}", "N"),
        ("{{ n|pprint }}", "N"),
        (
            "{{ l|pprint }}",
            "[
    N,
    'x',
]",
        ),
        ("{{ '%s|%s'|format(n, l) }}", "N|[N, 'x']"),
        ("{{ [n]|sort|string }}", "[N]"),
        ("{{ [n]|sort(reverse=true)|first }}", "N"),
        (
            "{{ ls|sort(attribute='n')|map(attribute='n')|join(',') }}",
            "N,N",
        ),
        ("{{ [n, n]|unique|join(',') }}", "N"),
        (
            "{{ ls|unique(attribute='n')|map(attribute='n')|join }}",
            "N",
        ),
        (
            "{% for k, g in ls|groupby('n') %}{{ k }}: {{ g|map(attribute='n')|join(',') }}{% endfor %}",
            "N: N,N",
        ),
        (
            "{% for g in ls|groupby('n') %}{{ g.grouper }}{{ g.list[0].n }}{% endfor %}",
            "NN",
        ),
        ("{{ ls|map(attribute='n')|join(',') }}", "N,N"),
        ("{{ [n]|map('string')|join }}", "N"),
        ("{{ [n]|map('tojson')|join }}", "N"),
        ("{{ [n, n, n]|batch(2)|list|string }}", "[[N, N], [N]]"),
        ("{{ [n, n, n]|slice(2)|list|string }}", "[[N, N], [N]]"),
        ("{{ [n]|list|reverse|first }}", "N"),
        ("{{ [n]|first }}{{ [n]|last }}", "NN"),
        ("{{ [n]|min }}{{ [n]|max }}", "NN"),
        ("{{ [[n], [1]]|sum(start=[])|list|string }}", "[N, 1]"),
        ("{{ {'k': n}|items|list|string }}", "[('k', N)]"),
        ("{{ {'k': n}|dictsort|string }}", "[('k', N)]"),
        ("{{ {'k': n}|dictsort(by='value')|string }}", "[('k', N)]"),
        (
            "{% for k, v in {'k': n}|dictsort(by='value') %}{{ k }}{{ v }}{% endfor %}",
            "kN",
        ),
        ("{{ {'k': n}|attr('k') }}", "N"),
        ("{{ [n]|chain([n])|join(',') }}", "N,N"),
        ("{{ [n]|zip([n])|list|string }}", "[(N, N)]"),
        (
            "{{ [n]|select|join }}{{ [n, 7]|select('eq', n)|join }}",
            "TN",
        ),
        ("{{ [n, 7]|reject('eq', 7)|join }}", "N"),
        (
            "{{ ls|selectattr('n', 'eq', n)|map(attribute='n')|join(',') }}",
            "N,N",
        ),
        (
            "{{ ls|rejectattr('n', 'eq', 7)|map(attribute='n')|join(',') }}",
            "N,N",
        ),
        ("{{ n|string|split('x')|join }}", "N"),
        ("{{ n|round(400) }}", "N"),
        ("{{ dict(k=n)|string }}", "{'k': N}"),
        ("{% set x %}{{ n }}{% endset %}{{ x }}", "N"),
        ("{% set x = [n] %}{{ x[0] }}", "N"),
        ("{% with x = n %}{{ x }}{% endwith %}", "N"),
        ("{% filter trim %}{{ n }}{% endfilter %}", "N"),
        (
            "{{ n == n and n in [n] and not n != n and n is eq n and n is in [n] and [n] == l[:1] }}",
            "True",
        ),
        (
            "{{ n is number and n is not string and n|string is string }}",
            "True",
        ),
        ("{{ (n|string) in ('a' ~ n) and n in ('a' ~ n) }}", "True"),
    ] {
        for number in ODD {
            // A number that is 0 is not true.
            let is_true = if number == "-0" { "" } else { number };
            let expected = expected.replace('T', "\u{1}").replace("\u{1}rue", "True");
            let expected = expected.replace('\u{1}', is_true).replace('N', number);
            let template = template.replace("N", number);
            let template = format!(
                "{{% set n = event.attributes.n %}}{{% set l = event.attributes.l %}}{{% set ls = event.attributes.ls %}}{template}"
            );
            let attributes = format!(
                r#"{{"n": {number}, "l": [{number}, "x"], "ls": [{{"n": {number}}}, {{"n": {number}}}]}}"#
            );
            match filled(&template, "text/plain", &attributes) {
                Ok(filled) => assert_eq!(filled, expected, "{template}"),
                Err(error) => panic!("{template}: {error}"),
            }
        }
    }
}

#[test]
fn numbers_are_compared_by_every_digit() {
    let attributes = r#"{"a": 100000000000000000000.1, "b": 100000000000000000000.2, "c": 100000000000000000000.10,
        "p": 0.10, "q": 0.1000000000000000055, "h": 1e2, "i": 100, "big": 12345678901234567890123,
        "bigger": 12345678901234567890124, "l": [10, 9.50, 1e1, 100000000000000000000.2, 100000000000000000000.1],
        "m": [{"n": 2.0}, {"n": 10}, {"n": 1.50}], "t": true}"#;
    for (expression, expected) in [
        ("e.a < e.b and not e.a >= e.b and e.a != e.b", "True"),
        ("e.a == e.c", "True"),
        ("e.p == 0.1 and e.p == 0.10 and 0.1 == e.p", "True"),
        ("e.q == 0.1", "False"),
        ("e.q == 0.1000000000000000055", "True"),
        ("e.q > 0.1", "True"),
        ("-e.p == -0.1 and e.p > -0.1", "True"),
        ("e.h == 100 and e.h == e.i and e.i == 1e2", "True"),
        ("e.big < e.bigger and e.big != e.bigger", "True"),
        ("e.big < 12345678901234567890123.5 < e.bigger", "True"),
        ("e.a in e.l and e.c in e.l and not 7 in e.l", "True"),
        ("e.h / 10 in e.l", "True"),
        (
            "e.p is eq 0.1 and e.p is lt 1 and e.p is ge(0.1) and e.p is ne 2",
            "True",
        ),
        ("[e.p, [e.h]] == [0.1, [100]]", "True"),
        ("{'k': e.p} == {'k': 0.1}", "True"),
        ("e.i > 100. or e.i < 100.", "False"),
        ("e.i == 100. and e.i == 0100.0 and e.i == 1.e2", "True"),
        ("e.i > 01.5 and e.i < 1.e3 and e.i == 00100.00", "True"),
        ("-1.5 < -01.4 and e.p == 00.1", "True"),
        ("e.t == true and e.t == 1 and e.t != 0", "True"),
        ("'x' in e", "False"),
        ("'p' in e", "True"),
        ("1 in {1: 2} and e.h in {100: 2}", "True"),
        (
            "e.l|sort|join(' ')",
            "9.50 10 1e1 100000000000000000000.1 100000000000000000000.2",
        ),
        ("e.l|sort(reverse=true)|first", "100000000000000000000.2"),
        ("e.l|min ~ ' ' ~ e.l|max", "9.50 100000000000000000000.2"),
        (
            "e.l|unique|join(' ')",
            "10 9.50 100000000000000000000.2 100000000000000000000.1",
        ),
        (
            "e.m|sort(attribute='n')|map(attribute='n')|join(' ')",
            "1.50 2.0 10",
        ),
        ("e.m|max(attribute='n')", "{'n': 10}"),
        (
            "e.m|selectattr('n', 'gt', 1.5)|map(attribute='n')|join(' ')",
            "2.0 10",
        ),
        (
            "e.m|groupby('n')|map(attribute='grouper')|join(' ')",
            "1.50 2.0 10",
        ),
        (
            "{'x': 10, 'y': 9.50}|dictsort(by='value')|join(' ')",
            "('y', 9.5) ('x', 10)",
        ),
        (
            "{'x': 10, 'y': e.l[1]}|dictsort(by='value')|first|last",
            "9.50",
        ),
    ] {
        let template = format!("{{% set e = event.attributes %}}{{{{ {expression} }}}}");
        match filled(&template, "text/plain", attributes) {
            Ok(filled) => assert_eq!(filled, expected, "{expression}"),
            Err(error) => panic!("{expression}: {error}"),
        }
    }
}

#[test]
fn a_number_is_rounded_and_cut_by_its_digits() {
    let attributes = r#"{"p": 2.675, "z": 1.10, "b": 12345678901234567890123.5, "w": 12345678901234567890123,
        "e": 1e3, "n": -7.90, "l": [1.10, 2.20, 3], "o": [{"n": 1.50}, {"n": 2}], "h": 1e400}"#;
    for (expression, expected) in [
        ("e.p|round(2)", "2.68"),
        ("e.p|round(2, 'floor')", "2.67"),
        ("e.z|round(2)", "1.10"),
        ("e.z|round(1)", "1.10"),
        ("e.z|round", "1.0"),
        ("e.b|round", "12345678901234567890124.0"),
        ("e.w|round(1)", "12345678901234567890123"),
        ("e.e|round(-3)", "1000.0"),
        ("e.b|int", "12345678901234567890123"),
        ("e.e|int", "1000"),
        ("e.n|int", "-7"),
        ("e.n|abs", "7.90"),
        ("e.w|float", "12345678901234567890123.0"),
        ("e.z|float", "1.10"),
        ("3|float", "3.0"),
        ("e.l|sum", "6.300000000000001"),
        ("e.o|sum(attribute='n')", "3.5"),
        ("e.z + 1", "2.1"),
        ("e.e * 2 - 1 ** 2", "1999.0"),
        ("-e.z", "-1.1"),
        ("e.e // 3 ~ ' ' ~ e.e % 7", "333.0 6.0"),
        ("'%d %.2f %5s'|format(e.e, e.z, e.z)", "1000 1.10  1.10"),
        (
            "e.z is float and e.z is not integer and e.w is integer and e.e is even",
            "True",
        ),
        (
            "e.e is divisibleby 10 and e.e is divisibleby(10) and not e.e is odd",
            "True",
        ),
        ("'zero' if not e.z - 1.1 else 'more'", "zero"),
    ] {
        let template = format!("{{% set e = event.attributes %}}{{{{ {expression} }}}}");
        match filled(
            &template,
            "text/plain",
            &attributes.replace(r#", "h": 1e400"#, ""),
        ) {
            Ok(filled) => assert_eq!(filled, expected, "{expression}"),
            Err(error) => panic!("{expression}: {error}"),
        }
    }
}

#[test]
fn a_number_as_long_as_a_body_is_written_and_never_compared() {
    let big = "9".repeat(60_000);
    let attributes =
        format!(r#"{{"n": {big}, "f": {big}.5, "l": [1, {big}], "o": [{{"n": {big}}}]}}"#);
    let written = "{{ event.attributes.n }}{% if event.attributes.f %}.{% endif %}";
    assert_eq!(
        filled(written, "text/plain", &attributes).unwrap(),
        format!("{big}.")
    );
    for expression in [
        "e.n > 1",
        "e.n == e.f",
        "e.f is lt 1",
        "e.n in e.l",
        "e.l == e.l + []",
        "[2, e.l[1]]|sort",
        "e.l|max",
        "e.l|sum",
        "e.n + 1",
        "-e.f",
        "e.f|abs",
        "e.f|round(1)",
        "e.f|int",
        "e.n|float",
        "'%d'|format(e.f)",
        "[e.o[0], {'n': 1}]|sort(attribute='n')",
    ] {
        let template =
            format!("{{% set e = event.attributes %}}{{{{ ({expression})|string|length }}}}");
        let error = filled(&template, "text/plain", &attributes).unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.contains("too many digits"), "{expression}: {error}");
    }
}

#[test]
fn a_number_that_is_too_long_fails_no_text_that_does_not_compare_it() {
    let attributes = format!(r#"{{"n": {}, "s": 1.10}}"#, "9".repeat(60_000));
    let view = View::of(&event(&attributes)).unwrap();
    let template = |text: &str| Template::parse(text.to_owned(), "text/plain").unwrap();
    let compares = template("{{ event.attributes.n > 1 }}");
    let other = template("{{ event.attributes.s > 1 }}");
    let is_over = AtomicBool::new(false);
    let failed = std::thread::scope(|scope| {
        // Texts of one attempt may be made at once: an address, headers and a body.
        let long = scope.spawn(|| {
            let mut failed = 0;
            loop {
                failed += usize::from(compares.fill(&view).is_err());
                if is_over.load(Ordering::Relaxed) {
                    return failed;
                }
            }
        });
        let filled: Vec<_> = (0..2000).map(|_| other.fill(&view)).collect();
        is_over.store(true, Ordering::Relaxed);
        for text in filled {
            assert_eq!(text.unwrap(), "True");
        }
        long.join().unwrap()
    });
    assert!(failed > 0, "it was compared meanwhile");
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
