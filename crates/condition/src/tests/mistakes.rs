//! Mistakes in expressions, found at the start and where they are.

use super::*;

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
