//! Texts that filters and operators make of a number.

use crate::filled;

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
