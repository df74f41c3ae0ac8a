//! Numbers that are compared, rounded and calculated with.

use std::sync::atomic::{AtomicBool, Ordering};

use fluent_dispatch_kit::{Template, View};

use crate::{event, filled};

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
