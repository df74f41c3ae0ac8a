//! Tests of exact JSON values and numbers.

use super::*;

fn number(text: &str) -> ExactValue {
    ExactValue::Number(ExactNumber(text.into()))
}

#[test]
fn a_value_is_the_same_however_it_is_written() {
    let number = |text: &str| ExactNumber(text.into());
    for (one, other) in [
        ("1.10", "1.1"),
        ("110e-2", "1.1"),
        ("0.000", "-0"),
        ("12e2", "1200"),
        ("9405511899560000000001.0", "9405511899560000000001"),
    ] {
        assert!(
            number(one).is_same_value(other) && number(other).is_same_value(one),
            "{one} {other}"
        );
    }
    for (one, other) in [
        ("1.1", "1.01"),
        ("1", "-1"),
        ("9405511899560000000001", "9405511899560000000002"),
        ("1", "one"),
        ("1", ""),
        ("1", "1.1.1"),
        ("1e1", "1e99999999999999999999"),
        ("123", "0123"),
        ("1", "1."),
        ("1", ".1e1"),
        ("0", "00"),
        ("0", "0exyz"),
        ("0", "0e"),
        ("10", "1e+-1"),
        ("1", "+1"),
        ("1", "--1"),
        ("1", " 1"),
    ] {
        assert!(!number(one).is_same_value(other), "{one} {other}");
    }
    assert!(
        number("10").is_same_value("1e+01"),
        "an exponent may begin with 0"
    );
}

#[test]
fn every_number_is_the_text_that_was_written() {
    let texts = [
        "0",
        "-0",
        "7",
        "-12",
        "1.10",
        "1.0",
        "1e3",
        "1E+3",
        "-2.50e-7",
        "9405511899560000000001",
        "18446744073709551616",
        "123456789012345678901234567890123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        "1e-999",
    ];
    for text in texts {
        assert_eq!(ExactValue::parse(text.as_bytes()).unwrap(), number(text));
    }
    let list: Vec<_> = texts.iter().map(|text| number(text)).collect();
    let nested = format!(
        r#" {{"1": "2", "\"3": [ {} ], "t": true, "4\\": {{"5": -6}}}}"#,
        texts.join(" , ")
    );
    let ExactValue::Table(fields) = ExactValue::parse(nested.as_bytes()).unwrap() else {
        panic!()
    };
    assert_eq!(fields["\"3"], ExactValue::List(list));
    assert_eq!(fields["4\\"].get("5"), Some(&number("-6")));
    assert_eq!(fields["1"], "2".into());
}

#[test]
fn a_whole_number_is_one_only_as_it_fits() {
    let of = |text: &str| ExactNumber(text.into());
    assert_eq!(of("-12").as_whole::<i64>(), Some(-12));
    assert_eq!(of("9223372036854775808").as_whole::<i64>(), None);
    assert_eq!(of("9223372036854775808").as_whole::<u64>(), Some(1 << 63));
    for none in ["-0", "1.0", "1e3"] {
        assert_eq!(of(none).as_whole::<i64>(), None, "{none}");
    }
    assert!((of("1e3").as_f64() - 1000.0).abs() < f64::EPSILON);
}
