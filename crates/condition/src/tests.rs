//! Tests of conditions: what they decide, and what is refused at the start.

use std::sync::Arc;

use bytes::Bytes;
use cel::common::ast::Expr;
use event_model::{
    Account, Accounts, Algorithm, Environment, Evidence, Headers, Inbound, KeyId, KeyName, Proof,
    Timestamp, Verified,
};

use super::*;

fn event(rest: &str) -> Event {
    let key = KeyName::new("sydney", Environment::Sandbox);
    let accounts = Accounts::new([Account {
        name: "ACME".to_owned(),
        key: key.clone(),
        retailers: None,
    }]);
    let body = format!(r#"{{"id":"1","name":"E","accountId":"ACME","retailerId":"34"{rest}}}"#);
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
    // A test may assert what it wants to be believed.
    Event::admit(Verified::assert(inbound, evidence), &accounts, None).unwrap()
}

#[track_caller]
fn check(text: &str, rest: &str, expected: Result<bool, &str>) {
    let answer = Condition::parse(text).unwrap().holds(&event(rest));
    match (answer, expected) {
        (Err(ConditionError(why)), Err(expected)) => assert!(why.contains(expected), "{why}"),
        (answer, expected) => assert_eq!(answer.ok(), expected.ok(), "{text}"),
    }
}

#[test]
fn attributes_are_by_name_in_both_forms() {
    const WHEN: &str = r#"has(event.attributes.store) && event.attributes.store != "none""#;
    check(WHEN, r#","attributes":{"store":"S1"}"#, Ok(true));
    check(
        WHEN,
        r#","attributes":[{"name":"store","type":"STRING","value":"S1"}]"#,
        Ok(true),
    );
    check(
        WHEN,
        r#","attributes":[{"name":"store","value":"none"}]"#,
        Ok(false),
    );
    for absent in [
        "",
        r#","attributes":null"#,
        r#","attributes":[]"#,
        r#","attributes":[1,{"value":2}]"#,
    ] {
        check(WHEN, absent, Ok(false));
    }
}

#[test]
fn every_field_can_be_asked_also_unknown_ones() {
    check(
        "event.environment == 'sandbox' && event.name == 'E'",
        "",
        Ok(true),
    );
    check(
        "event.meta.mode == 'SYNC'",
        r#","meta":{"mode":"SYNC"}"#,
        Ok(true),
    );
    check(
        "event['x-extra'].deep[1] > 2",
        r#","x-extra":{"deep":[1,2.5]}"#,
        Ok(true),
    );
    check(
        "event.attributes.lines.exists(l, l.qty >= 3)",
        r#","attributes":{"lines":[{"qty":3}]}"#,
        Ok(true),
    );
    check(
        "event.entityRef.matches('^HD_[0-9]+$')",
        r#","entityRef":"HD_12""#,
        Ok(true),
    );
    check("size(event.attributes) == 0", "", Ok(true));
    const FILTERED: &str = "event.lines.filter(l, l.qty > 1).exists(l, l.sku == 'b')";
    check(
        FILTERED,
        r#","lines":[{"sku":"a","qty":1},{"sku":"b","qty":2}]"#,
        Ok(true),
    );
    check(
        "event.lines.map(l, l.sku) == ['a']",
        r#","lines":[{"sku":"a"}]"#,
        Ok(true),
    );
    check(
        "event.n == 9223372036854775807",
        r#","n":9223372036854775807"#,
        Ok(true),
    );
}

#[test]
fn numbers_are_those_of_the_event() {
    const BIG: &str = r#","n":9405511899560000000001,"l":[18446744073709551616,1.10,1e3,-0]"#;
    check("event.n == '9405511899560000000001'", BIG, Ok(true));
    check("event.n == '9405511899560000000002'", BIG, Ok(false));
    check(
        "event.l[0] == '18446744073709551616' && event.l[1] == 1.1 && event.l[2] == 1000.0",
        BIG,
        Ok(true),
    );
    check(
        "event.l[1] > 1.0 && event.l[1] < 2.0 && event.l[3] == 0.0",
        BIG,
        Ok(true),
    );
    check(
        "event.n > 5 && event.n < 1e22 && event.n != 5",
        BIG,
        Ok(true),
    );
}

#[test]
fn numbers_are_compared_by_every_digit() {
    const NUMBERS: &str = r#","p":0.10,"q":0.1000000000000000055,"i":9007199254740993,"j":9007199254740992.0,
        "a":100000000000000000000.1,"b":100000000000000000000.2,"c":100000000000000000000.10,"u":18446744073709551615,
        "key":9405511899560000000001,"h":1e2,"five":5,"f":5.0,"n":-0.10,"l":[0.10,9007199254740993,9405511899560000000001],
        "m":{"p":0.10,"i":9007199254740993},"text":"0.1","z":-0"#;
    for (text, expected) in [
        (
            "event.p == 0.1 && 0.1 == event.p && event.p == 0.10 && !(event.p != 0.1)",
            true,
        ),
        ("event.q == 0.1 || event.q <= 0.1", false),
        (
            "event.q == 0.1000000000000000055 && event.q > event.p",
            true,
        ),
        (
            "event.i > 9007199254740992 && event.i > 9007199254740992.0",
            true,
        ),
        (
            "event.i == event.j || event.j >= event.i || event.i == 9007199254740992.0",
            false,
        ),
        (
            "event.j == 9007199254740992 && 9007199254740992u == event.j",
            true,
        ),
        (
            "event.a < event.b && event.a != event.b && event.b > event.a",
            true,
        ),
        ("event.a == event.c && event.a <= event.c", true),
        (
            "event.a == 100000000000000000000.1 && event.a < 100000000000000000000.2",
            true,
        ),
        ("event.a == event.b || event.a >= event.b", false),
        (
            "event.u == 18446744073709551615u && event.u > 9223372036854775807",
            true,
        ),
        (
            "event.u == 18446744073709551614u || event.u == 18446744073709551616.0",
            false,
        ),
        (
            "event.key == 9405511899560000000001.0 && event.key > 9.405511899560000000000e21",
            true,
        ),
        (
            "event.key == 9405511899560000000002.0 || event.key < 1",
            false,
        ),
        ("event.key > event.u && event.u < event.key", true),
        (
            "event.key == '9405511899560000000001' && '9405511899560000000001' == event.key",
            true,
        ),
        ("event.key != '9405511899560000000001'", false),
        (
            "event.h == 100 && 100 == event.h && event.h == 1e2 && event.h == 100u",
            true,
        ),
        (
            "event.five == event.f && event.f == event.five && event.five == 5.0",
            true,
        ),
        (
            "event.n == -0.1 && event.n < 0.0 && -event.n == event.p && event.n < event.p",
            true,
        ),
        ("event.z == 0 && 0.0 == event.z", true),
        // In lists and maps, and of them.
        (
            "0.1 in event.l && event.p in [0.1] && event.p in event.l && event.i in event.l",
            true,
        ),
        (
            "9007199254740992.0 in event.l || 0.1000000000000000055 in event.l",
            false,
        ),
        (
            "event.key in event.l && '9405511899560000000001' in event.l",
            true,
        ),
        (
            "event.key in ['9405511899560000000001'] && event.key in [9405511899560000000001.0]",
            true,
        ),
        (
            "[event.p, [event.h]] == [0.1, [100]] && event.l[0] == 0.1",
            true,
        ),
        (
            "event.m == {'p': 0.1, 'i': 9007199254740993} && event.m != {'p': 0.1, 'i': 9007199254740992.0}",
            true,
        ),
        ("event.m == {'p': 0.1} || event.l == [0.1]", false),
        (
            "event.l.exists(x, x == 0.1) && event.l.all(x, x > 0) && event.l.exists_one(x, x == 0.1)",
            true,
        ),
        (
            "event.l.filter(x, x == 0.1) == [0.1] && event.l.map(x, x)[0] == 0.1",
            true,
        ),
        (
            "(event.five > 1 ? event.p : event.q) == 0.1 && dyn(event.p) == 0.1",
            true,
        ),
        // Other types are no numbers.
        (
            "event.p == '0.1' || event.p == event.text || event.text == 0.1 || event.five == '5'",
            false,
        ),
        (
            "event.p == null || event.p == true || event.p == [0.1] || event.l == 0.1",
            false,
        ),
        // Converted.
        (
            "string(event.p) == '0.10' && string(event.key) == '9405511899560000000001' && string(5) == '5'",
            true,
        ),
        (
            "string(event.a) == '100000000000000000000.1' && string(event.h) == '1e2'",
            true,
        ),
        (
            "double(event.p) == 0.1 && double('0.10') == event.p && double(event.text) == event.p",
            true,
        ),
        (
            "double(event.i) == 9007199254740993 && double(event.i) > 9007199254740992.0",
            true,
        ),
        (
            "double(event.key) == event.key && double(event.q) == event.q && double(event.five) == 5.0",
            true,
        ),
        (
            "int(event.h) == 100 && int(5.9) == 5 && int(event.j) == 9007199254740992 && int(event.n) == 0",
            true,
        ),
        (
            "uint(event.u) == 18446744073709551615u && uint(event.h) == 100u && int('5') == event.five",
            true,
        ),
        // What is calculated has what the language has.
        (
            "event.p + 0.2 > 0.3 && event.p * 2.0 == 0.2 && event.five + 1 == 6 && -event.p == -0.1",
            true,
        ),
        (
            "event.h / 3.0 > 33.3 && event.five % 2 == 1 && event.p - 0.1 == 0.0",
            true,
        ),
        (
            "type(event.p) == double && type(event.five) == int && type(event.key) == string",
            true,
        ),
        (
            "event.key.startsWith('9405') && size(event.key) == 22 && event.key.size() == 22 && event.key.matches('^94')",
            true,
        ),
        (
            "event.key + 'x' == '9405511899560000000001x' && 'x'.contains('x') && 'a' + event.key != ''",
            true,
        ),
        (
            "event.key in {'9405511899560000000001': 1} && {event.key: 1}['9405511899560000000001'] == 1",
            true,
        ),
        (
            "'p' in event.m && event.m['p'] == 0.1 && has(event.m.p)",
            true,
        ),
        ("double('inf') > event.a && event.p in [1.0, .1]", true),
    ] {
        check(text, NUMBERS, Ok(expected));
    }
    for (text, why) in [
        ("event.p > '0'", "another type"),
        ("event.p < true", "another type"),
        ("event.p in 5", "another type"),
        ("int(event.key) == 1", "too large"),
        ("uint(event.n * 100.0) == 1u", ""),
        ("int(event.a) == 1", "too large"),
    ] {
        check(text, NUMBERS, Err(why));
    }
}

#[test]
fn a_number_of_any_length_matters_only_where_it_is_read() {
    let long = format!("9{}", "0".repeat(309));
    let numbers = format!(
        r#","a":{long},"b":{}1,"e":1e400,"t":1e-400,"l":[{long}],"x":1e99999999999999999999"#,
        &long[1..].replacen('0', "9", 1)
    );
    for (text, expected) in [
        ("event.name == 'E'", true),
        (
            "event.a > 5 && event.a > 1e300 && event.a < event.e && event.b > event.a",
            true,
        ),
        (
            "event.a == event.a && event.a in event.l && event.a != event.b",
            true,
        ),
        (
            "event.a == event.b || event.e < event.a || event.t == 0.0 || event.t < 0",
            false,
        ),
        ("event.t > 0 && event.t < 1e-300", true),
    ] {
        check(text, &numbers, Ok(expected));
    }
    check("event.x > 5", &numbers, Err("too large"));
    check("event.x == 5", &numbers, Err("too large"));
}

#[test]
fn a_number_as_long_as_a_body_is_not_compared_in_loops() {
    let event = |digits: usize, items: usize| {
        let big = "9".repeat(digits);
        let items = (0..items).map(|n| n.to_string()).collect::<Vec<_>>();
        let items = items.join(",");
        format!(r#","big":{big},"fraction":{big}.5,"items":[{items}]"#)
    };
    check(
        "event.items.exists(a, event.items.exists(b, a + b == event.big))",
        &event(1 << 20, 1000),
        Err("too large for the loops"),
    );
    for text in [
        "event.items.exists(a, a == event.big)",
        "event.items.exists(a, a > event.fraction)",
        "event.items.exists(a, event.big == event.big)",
        "event.items.exists(a, event.big.startsWith('a'))",
        "event.items.exists(a, string(event.fraction) == 'a')",
        "event.items.exists(a, event.fraction * 2.0 < 1.0)",
        "event.items.exists(a, -event.big == a)",
        "event.big in event.items",
    ] {
        check(text, &event(5000, 100), Err("too many digits"));
    }
    check(
        "has(event.big) && event.big != null && event.name == 'E'",
        &event(1 << 20, 1000),
        Ok(true),
    );
}

#[test]
fn no_answer_is_not_an_answer() {
    const STORE: &str =
        "the field `event.attributes.store` is missing: ask `has(event.attributes.store)`";
    check("event.attributes.store == 'S1'", "", Err(STORE));
    check(
        "event.attributes.store > 3",
        r#","attributes":{"store":"secret"}"#,
        Err("another type"),
    );
    check("event.name", "", Err("neither true nor false"));
    check(
        "event.lines[3] == 1",
        r#","lines":[1]"#,
        Err("past the end"),
    );
    let deep = format!(r#","deep":{}{}"#, "[".repeat(1000), "]".repeat(1000));
    check("event.name == 'E'", &deep, Err("nested too deep"));
    check("event.name == 'E'", r#","n":"\ud800""#, Err("out of range"));
    for twice in [
        r#","x":1,"x":2"#,
        r#","attributes":{"tier":"gold","tier":"plain"}"#,
    ] {
        check("has(event.attributes.tier)", twice, Err("occurs twice"));
    }
    let two = format!(r#","a":[{0}1],"b":[{0}1]"#, "1,".repeat(3000));
    check(
        "event.a.all(x, x in event.b)",
        &two,
        Err("too large for the loops"),
    );
    check(
        "event.a.map(x, event.a).size() > 0",
        &two,
        Err("too large for the loops"),
    );
    let long = format!(r#","l":[{}1]"#, "1,".repeat(5000));
    check(
        "event.l.all(a, event.l.all(b, a == b))",
        &long,
        Err("too large for the loops"),
    );
    check("event.l.all(a, a == 1)", &long, Ok(true));
    let note = format!("{long},\"note\":\"{}\"", "x".repeat(1_000_000));
    for walks in [
        "size(event.note) >= 0",
        "event.note + 'x' != ''",
        "event.note <= event.note",
        "string(event.note) != ''",
    ] {
        check(
            &format!("event.l.all(x, {walks})"),
            &note,
            Err("too large for the loops"),
        );
        check(walks, &note, Ok(true));
    }
}

#[track_caller]
fn misread(text: &str, line: usize, column: usize, message: &str) {
    let found = Condition::parse(text).unwrap_err();
    assert_eq!((found.line, found.column), (line, column), "{found}");
    assert!(found.message.contains(message), "{found}");
}

#[test]
fn mistakes_are_found_at_the_start_and_where_they_are() {
    misread("", 1, 1, "expected a condition");
    misread("event.name == ", 1, 15, "");
    misread("evnt.name == 'E'", 1, 1, "nothing is called `evnt`");
    misread(
        "event.name == 'E' &&\n  name != 'x'",
        2,
        3,
        "nothing is called `name`",
    );
    misread(
        "event.name.startswith('E')",
        1,
        22,
        "no function is called `startswith`",
    );
    misread(
        "event.name.matches('[a-z')",
        1,
        19,
        "not a regular expression",
    );
    misread("event.name.matches(event.id)", 1, 19, "written out");
    misread(
        "contains(event.name, 'E')",
        1,
        9,
        "expected text.contains(text)",
    );
    misread(
        "event.name.startsWith()",
        1,
        22,
        "expected text.startsWith(text)",
    );
    misread("_f(event)", 1, 3, "no function is called `_f`");
    misread(
        &format!("event.n == {}1", "1*".repeat(200)),
        1,
        285,
        "nested more than 64 deep",
    );
    misread(
        &format!("event{}", ".a".repeat(200)),
        1,
        276,
        "nested more than 64 deep",
    );
    misread(&"(".repeat(4000), 1, 17, "brackets");
    misread(&"!".repeat(4000), 1, 1, "chain of signs");
    misread(
        &format!("event.name == '{}'", "x".repeat(5000)),
        1,
        1,
        "longer than",
    );
    misread(
        "[1].all(a, [1].all(b, [1].all(c, a == b && b == c)))",
        1,
        36,
        "loops",
    );
    misread(r"'a'.matches('\\w{90}')", 1, 12, "takes more than");
    misread(
        &format!("event.name == 'E'{} == 'E'", " + 'x'".repeat(17)),
        1,
        19,
        "more than 16 `+`",
    );
    // Each `map` would double what the one before it made.
    misread("['a'].map(x, x + x).map(x, x + x) == []", 1, 24, "loops");
    misread("[[1]].map(x, [x, x]).map(x, [x, x]) == []", 1, 25, "loops");
}

/// Found by fuzzing the parser, and reported to its authors.
#[test]
fn what_breaks_parsers_is_only_misread() {
    let mut text = ">".to_owned();
    text.push_str(&"{".repeat(12));
    text.push_str("?[l\0?(-");
    for text in [
        text.as_str(),
        "[[[[[[[[1]]]]]]]]",
        "\u{0}",
        "event.\u{200b}x",
        "'\\",
        "a.b{c:1}",
        "--1 == 1",
    ] {
        let _ = Condition::parse(text);
    }
}

/// Every allowed name is one that exists in the library.
#[test]
fn the_functions_are_those_of_the_library() {
    for text in [
        "bool('true')",
        "bytes('a') == b'a'",
        "'ab'.contains('a')",
        "double(1) == 1.0",
        "dyn(1) == 1",
        "'ab'.endsWith('b')",
        "int('1') == 1",
        "'a'.matches('a')",
        "size('ab') == 2",
        "'ab'.startsWith('a')",
        "string(1) == '1'",
        "uint(1) == 1u",
        "type(event.name) == string",
    ] {
        check(text, "", Ok(true));
    }
}

#[test]
fn only_the_fields_that_an_expression_names_are_read() {
    let some =
        |fields: &[&str]| Reads::Fields(fields.iter().map(|field| (*field).to_owned()).collect());
    for (text, expected) in [
        ("true", some(&[])),
        ("event.name == 'E' || event.name == 'F'", some(&["name"])),
        (
            "has(event.a.b.c) && event['x-y'].z > 1",
            some(&["a", "x-y"]),
        ),
        (
            "event.lines.exists(l, l.sku == event.sku)",
            some(&["lines", "sku"]),
        ),
        (
            "event.lines.exists(event, event.sku == 'b')",
            some(&["lines"]),
        ),
        ("event[event.which] == 1", Reads::Everything),
        ("size(event) > 3", Reads::Everything),
        ("event.lines.exists(l, l == event)", Reads::Everything),
        ("'x' in event", Reads::Everything),
        ("[event].exists(e, e.name == 'E')", Reads::Everything),
    ] {
        assert_eq!(
            Condition::parse(text).unwrap().read.reads,
            expected,
            "{text}"
        );
    }
    const LINES: &str = r#","lines":[{"sku":"a"},{"sku":"b"}],"sku":"b","which":"sku""#;
    check("event.lines.exists(l, l.sku == event.sku)", LINES, Ok(true));
    check(
        "event.lines.exists(event, event.sku == 'b')",
        LINES,
        Ok(true),
    );
    check("event[event.which] == 'b'", LINES, Ok(true));
    check(
        "event.environment == 'sandbox' && event.origin == 'webhook'",
        LINES,
        Ok(true),
    );
    check(
        "has(event.nothing) || event.lines[0].sku == 'a'",
        LINES,
        Ok(true),
    );
    check("size(event) == 10", LINES, Ok(true));
}

#[test]
fn what_is_not_read_may_be_of_any_size() {
    let lines = vec![r#"{"a":1}"#; 200_000].join(",");
    let rest = format!(r#","lines":[{lines}],"few":[1,2]"#);
    check("event.few.all(n, n > 0)", &rest, Ok(true));
    check("event.lines.all(n, n.a > 0)", &rest, Err("too many values"));
}

#[test]
fn patterns_are_compiled_with_the_expression() {
    const TWO: &str = "event.lines.all(l, l.sku.matches('^[a-z]$')) && !event.name.matches('x') && {'k': 'ab'.matches('b$')}.k";
    const LINES: &str = r#","lines":[{"sku":"a"},{"sku":"\u00e4"}]"#;
    check(TWO, r#","lines":[{"sku":"a"},{"sku":"b"}]"#, Ok(true));
    check(TWO, LINES, Ok(false));
    check("event.n.matches('^1')", r#","n":1"#, Err("of another type"));
    let mut left = Vec::new();
    let condition = Condition::parse(TWO).unwrap();
    let mut expression = condition.read.expression.clone();
    patterns::visit(&mut expression, &mut |call| {
        let is_left = call.func_name == "matches" && matches!(call.args[0].expr, Expr::Literal(_));
        left.extend(is_left.then(|| format!("{:?}", call.args)));
    });
    assert_eq!(left, [""; 0], "compiled anew for every value");
}

#[test]
fn a_field_that_is_missing_is_named_and_a_value_never() {
    const NESTED: &str = r#","meta":{"mode":"SYNC"},"lines":[{"sku":"a"}],"which":"s3cret""#;
    for (text, named) in [
        ("event.meta.mood == 'SYNC'", "`event.meta.mood`"),
        ("event.meta.user.name == 'SYNC'", "`event.meta.user`"),
        (
            "event.name == 'E' && event.meta['mood'] == 'x'",
            "`event.meta.mood`",
        ),
        ("event['x-extra'] == 1", "`event[\"x-extra\"]`"),
        ("event.lines.exists(l, l.qty > 1)", "`l.qty`"),
        (
            "event.lines.exists(l, event.meta.mood == l.sku)",
            "`event.meta.mood`",
        ),
        ("event.meta.mood == event.other.mood", "`event.meta.mood`"),
        ("event[event.which] == 1", "whose name it computes"),
        ("event.meta[event.which] == 1", "whose name it computes"),
    ] {
        check(text, NESTED, Err(named));
        let error = Condition::parse(text)
            .unwrap()
            .holds(&event(NESTED))
            .unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn a_misspelt_field_is_found_without_an_event() {
    #[track_caller]
    fn misspelt(text: &str) -> String {
        Condition::parse(text)
            .unwrap()
            .check_fields()
            .unwrap_err()
            .to_string()
    }
    for text in [
        "event.atributes.store == 'S1'",
        "has(event.atributes.store)",
        "has(event.atributes)",
        "event['atributes'].store == 'S1'",
        "event.name == 'E' || !(event.atributes.store in ['a', 'b'])",
        "event.lines.exists(l, l.sku == event.atributes.sku)",
        "event.atributes.lines.all(l, l.qty > 1)",
        "event.lines.map(l, event.atributes.x).size() > 0",
        "event.name == 'E' ? event.atributes.x == 1 : true",
        "size(event.atributes) > 0",
    ] {
        let said = misspelt(text);
        assert!(
            said.contains("did you mean `event.attributes`?"),
            "{text}: {said}"
        );
    }
    let two = misspelt("event.entityreff == 'x' &&\n  event.acountId == 'y'");
    assert!(
        two.contains("`event.entityRef`") && two.contains("`event.accountId`"),
        "{two}"
    );
    assert!(two.contains("line 1"), "{two}");
    for text in [
        "event.attributes.atributes == 'x'",
        "event.lines.exists(event, event.atributes == 'x')",
        "event['x-extra'].deep > 1 && event.lines.exists(l, l.nme == 'x')",
    ] {
        assert_eq!(
            Condition::parse(text).unwrap().check_fields(),
            Ok(()),
            "{text}"
        );
    }
}

#[test]
fn a_field_that_is_like_none_is_found_unless_the_expression_asks_whether_it_is_there() {
    for (text, expected) in [
        ("event.foo == 'x' && event.name == 'E'", &["foo"][..]),
        (
            "event['foo'].bar == 'x' || event.foo.baz > 1 || event.other",
            &["foo", "other"],
        ),
        ("event.attributes.foo == 'x'", &[]),
        ("has(event.foo) && event.foo == 'x'", &[]),
        ("has( event.foo.bar ) && event.foo.bar == 'x'", &[]),
        ("has(event.foobar) && event.foo == 'x'", &["foo"]),
        ("event.lines.exists(event, event.foo == 'x')", &["lines"]),
    ] {
        let condition = Condition::parse(text).unwrap();
        assert_eq!(condition.unknown_fields(), expected, "{text}");
    }
}

#[test]
fn a_mistake_in_the_syntax_says_what_to_write() {
    for (text, expected) in [
        ("event.name = 'E'", "write `==`"),
        ("event.name === 'E'", "write `==`"),
        ("event.name == 'E' and true", "write `&&`"),
        ("event.name == 'E' or true", "write `||`"),
        ("event.name == 'E' & true", "write `&&`"),
        ("event.name == 'E' | true", "write `||`"),
        ("event.name <> 'E'", ""),
        ("not (event.name == 'E')", ""),
        ("event.name == 'E", "a quote is not closed"),
        ("event.name == \"E", "a quote is not closed"),
        ("(event.name == 'E'", "`)` is missing"),
        ("event.name == ", "ends too early"),
        ("event.name 'E'", "can't stand here"),
        ("event.name == 'E')", "can't stand here"),
        ("event..name == 'E'", "can't stand here"),
        ("$event == 1", "`$` means nothing here"),
    ] {
        let found = Condition::parse(text).unwrap_err().to_string();
        assert!(found.contains(expected), "{text}: {found}");
        for word in [
            "token",
            "mismatched",
            "extraneous",
            "EOF",
            "viable",
            "input",
        ] {
            assert!(!found.contains(word), "{text}: {found}");
        }
    }
}

#[test]
fn an_expression_that_is_neither_true_nor_false_is_refused_where_that_is_sure() {
    for (text, what) in [
        ("event.retailerId", "this is a text"),
        ("1 + 1", "this is a sum"),
        ("size(event.name)", "this is a number"),
        ("[1, 2]", "this is a list"),
        ("has(event.attributes.a) && event.name", "this is a text"),
        ("event.name == 'E' ? 'yes' : 'no'", "this is a text"),
    ] {
        let refused = Condition::parse(text).unwrap().check_answer().unwrap_err();
        assert!(refused.message.starts_with(what), "{text}: {refused}");
        assert!(
            refused.message.contains("event.entityStatus =="),
            "{refused}"
        );
    }
    for text in [
        "true",
        "event.attributes.isGift",
        "event.lines.exists(line, line.qty > 1)",
        "event.name.startsWith('Order')",
        "!(event.retailerId in ['1', '2']) || bool(event.attributes.b)",
        "event.attributes['a'] ? event.attributes.b : false",
    ] {
        assert_eq!(
            Condition::parse(text).unwrap().check_answer(),
            Ok(()),
            "{text}"
        );
    }
}

#[test]
fn a_text_that_is_compared_with_a_number_is_named() {
    for (text, named) in [
        ("event.retailerId == 34", &["event.retailerId"][..]),
        ("34 != event.retailerId", &["event.retailerId"]),
        (
            "event.retailerId in [34, 35] && event[\"entityId\"] > 5",
            &["event.retailerId", "event.entityId"],
        ),
        ("event.retailerId == '34'", &[]),
        ("int(event.retailerId) > 30", &[]),
        ("event.attributes.count == 34", &[]),
        ("event.lines.exists(event, event.id == 1)", &[]),
        ("1 in [1, 2]", &[]),
    ] {
        let condition = Condition::parse(text).unwrap();
        assert_eq!(condition.texts_as_numbers(), named, "{text}");
    }
}
