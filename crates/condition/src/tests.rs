//! Tests of conditions: what they decide, and what is refused at the start.

use std::sync::Arc;

use bytes::Bytes;
use cel::common::ast::Expr;
use event_model::{
    Account, Accounts, Algorithm, Environment, Evidence, Headers, Inbound, KeyId, KeyName, Proof,
    Timestamp, Verified,
};

use super::*;

mod mistakes;
mod numbers;

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
