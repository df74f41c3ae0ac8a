//! Values of different kinds are compared and sorted as the template engine does.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use fluent_dispatch_kit::{Template, View};
use minijinja::Environment;

/// One or two of each kind, as templates and JSON write them.
const VALUES: [&str; 21] = [
    "null",
    "false",
    "true",
    "-1",
    "1",
    "2",
    "1.5",
    "100000000000000000000",
    "\"\"",
    "\"1\"",
    "\"B\"",
    "\"a\"",
    "[]",
    "[1]",
    "[\"1\"]",
    "[[1]]",
    "{}",
    "{\"a\": 1}",
    "{\"a\": \"1\"}",
    "{\"b\": 1}",
    "[null, 1.5, \"a\"]",
];

fn with_values(template: &str) -> String {
    let values = VALUES.join(",").replace("null", "none");
    format!("{{% set v = [{values}] %}}{template}")
}

/// What the engine itself makes of it.
fn by_engine(template: &str) -> String {
    let made = Environment::new().render_str(&with_values(template), ());
    made.unwrap_or_else(|error| panic!("{template}: {error}"))
}

fn by_template(template: &str) -> String {
    let parsed = Template::parse(with_values(template), "text/plain").unwrap();
    let filled = parsed.fill(&View::none());
    filled.unwrap_or_else(|error| panic!("{template}: {error}"))
}

#[test]
fn values_of_every_two_kinds_are_compared_as_the_engine_does() {
    let mut wrong = Vec::new();
    for (one, value) in VALUES.iter().enumerate() {
        for (other, other_value) in VALUES.iter().enumerate() {
            for operator in ["==", "!=", "<", "<=", ">", ">="] {
                let template = format!("{{{{ v[{one}] {operator} v[{other}] }}}}");
                let (ours, theirs) = (by_template(&template), by_engine(&template));
                if ours != theirs {
                    wrong.push(format!("{value} {operator} {other_value}: {ours}"));
                }
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn lists_of_mixed_kinds_are_sorted_and_searched_as_by_the_engine() {
    let mut wrong = Vec::new();
    for template in [
        "{{ v|sort|tojson }}",
        "{{ v|sort(reverse=true)|tojson }}",
        "{{ v|sort(case_sensitive=true)|tojson }}",
        "{{ v|unique|list|tojson }}",
        "{{ v|min|tojson }} {{ v|max|tojson }}",
        "{{ ['b', 'A', 'a', 'B', 1]|unique|list|tojson }}",
        "{{ ['b', 'A', 'a', 'B', 1]|sort|tojson }}",
        "{{ ['b', 'A', 'a', 'B', 1]|sort(case_sensitive=true)|tojson }}",
        "{{ ['b', 'A', 1]|max|tojson }} {{ ['b', 'A', 1]|min|tojson }}",
        "{{ {'x': 'b', 'y': 1, 'z': none, 'w': 'A'}|dictsort(by='value')|tojson }}",
        "{{ {'b': 1, 'A': 2, 'c': 3, 1: 4}|dictsort|map('last')|join(',') }}",
        "{{ [{'n': 'b'}, {'n': 1}, {'n': 'A'}]|sort(attribute='n')|tojson }}",
        "{{ [{'n': 'b', 'm': 1}, {'n': 'B', 'm': 0}, {'n': 1, 'm': 2}]|sort(attribute='n,m')|tojson }}",
        "{{ [{'n': 'b'}, {'n': 1}, {'n': 'B'}]|groupby('n')|map(attribute='0')|join(',') }}",
        "{% for g in [{'n': 'b'}, {'n': 1}]|groupby('n') %}{{ g }}{% endfor %}",
        "{{ {'b': 'x', 'a': ['y']}|dictsort }} {{ ['b', 'a']|sort }} {{ ['b', ['a']]|unique|list }}",
        "{{ [{'n': {'k': 'b'}}, {'n': {'k': 2}}]|sort(attribute='n.k')|tojson }}",
        "{{ [[2, 'x'], [1, 'y']]|sort(attribute='0')|tojson }}",
        "{{ '1' in v }} {{ 'x' in v }} {{ none in v }} {{ [1] in v }} {{ {'a': 1} in v }}",
        "{{ 'a' in 'bab' }} {{ 1 in '213' }} {{ 'a' in {'a': 1} }} {{ 'b' not in {'a': 1} }}",
        "{{ (1, 2) == [1, 2] }} {{ (1, 2) < (1, 3) }} {{ [(1, 2)] == [(1, 2)] }}",
        "{{ 'a' < 'b' < 'c' }} {{ 1 < 2 == true }}",
        "{{ v|select('eq', '1')|list|tojson }} {{ v|select('lt', 'a')|list|tojson }}",
        "{{ '1' is in v }} {{ 'a' is eq 'a' }} {{ 'a' is lt 1 }} {{ none is ne 1 }}",
        "{{ [1, 2]|map('string')|list == ['1', '2'] }} {{ range(3) == [0, 1, 2] }}",
    ] {
        let (ours, theirs) = (by_template(template), by_engine(template));
        if ours != theirs {
            wrong.push(format!("{template}: {ours}\nexpected: {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
