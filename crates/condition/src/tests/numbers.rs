//! Numbers in conditions: those of the event, with every digit.

use super::*;

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
