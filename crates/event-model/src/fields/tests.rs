//! Tests of the fields that are read from a body.

use super::*;
use crate::KNOWN_FIELDS;

#[track_caller]
fn check(body: &str, malformed: Option<Malformed>) -> Read {
    let read = Read::body(body.as_bytes());
    assert_eq!(read.malformed, malformed, "{body}");
    read
}

#[test]
fn numbers_are_taken_as_their_text() {
    let read = check(
        r#"{"id":"a","name":"n","accountId":"A","retailerId":34,"entityId":9007199254740993,"entityRef":9405511899560000000001}"#,
        None,
    );
    assert_eq!(
        read.fields.entity_ref.as_deref(),
        Some("9405511899560000000001")
    );
    assert_eq!(read.fields.retailer.as_deref(), Some("34"));
    assert_eq!(read.fields.entity_id.as_deref(), Some("9007199254740993"));
    for written in [
        "1.10",
        "-5",
        "1e3",
        "0.0",
        "34.0",
        "-1234567890123456789012345",
    ] {
        let body = format!(
            r#"{{"id":{written},"name":"n","accountId":"A","retailerId":"1","entityRef":{written},"rootEntityId": {written} }}"#
        );
        let fields = check(&body, None).fields;
        for text in [
            &fields.fluent_event_id,
            &fields.entity_ref,
            &fields.root_entity_id,
        ] {
            assert_eq!(text.as_deref(), Some(written), "{body}");
        }
    }
}

#[test]
fn odd_optional_fields_are_absent() {
    let read = check(
        r#"{"id":"a","name":"n","accountId":"A","retailerId":"1","entityRef":{"x":[1]},"entityStatus":null,"type":true,"entityId":[]}"#,
        None,
    );
    let Fields {
        entity_ref,
        entity_status,
        kind,
        entity_id,
        ..
    } = read.fields;
    assert_eq!(
        (entity_ref, entity_status, kind, entity_id),
        (None, None, None, None)
    );
}

/// A body with the order of keys and the further fields of one that Fluent sent.
const ORDER: &str = concat!(
    r#"{"id":"53b7f2a1","name":"OrderStatusChange","accountId":"ACME","retailerId":"34","#,
    r#""entityId":"1","entityRef":"HD_1","entityType":"ORDER","entityStatus":"SHIPPED","#,
    r#""type":"NORMAL","attributes":{"TrackingNumber":"1","at":"2020-01-29T04:42:38.194+0000"},"#,
    r#""meta":{"mode":"SYNC","simulation":false,"models":[]},"trailLogs":[],"errorLogs":[],"#,
    r#""rootEntityId":7,"rootEntityType":"ORDER","rootEntityRef":"HD_1"}"#
);

#[test]
fn a_body_as_fluent_sends_it_is_read_and_one_without_its_commas_is_none() {
    let Fields {
        entity_status,
        root_entity_id,
        root_entity_ref,
        ..
    } = check(ORDER, None).fields;
    assert_eq!(entity_status.as_deref(), Some("SHIPPED"));
    assert_eq!(
        root_entity_id.as_deref(),
        Some("7"),
        "a number is taken as its text"
    );
    assert_eq!(root_entity_ref.as_deref(), Some("HD_1"));
    // The body as the documentation prints it, without a comma.
    check(
        &ORDER.replace(r#","entityRef""#, r#""entityRef""#),
        Some(Malformed::NotJson),
    );
}

#[test]
fn what_another_sender_makes_lacks_what_an_event_needs() {
    let call = r#"{"entityId":"1","entityRef":"HD_1","entityType":"ORDER","triggerSource":"UI","retailerId":"34","timestamp":"2026-01-29T04:42:38Z"}"#;
    check(call, Some(Malformed::Missing("id")));
}

#[test]
fn what_is_required_is_named() {
    check(
        r#"{"name":"n","accountId":"A","retailerId":"1"}"#,
        Some(Malformed::Missing("id")),
    );
    check(
        r#"{"id":"a","name":"","accountId":"A","retailerId":"1"}"#,
        Some(Malformed::Missing("name")),
    );
    check(
        r#"{"id":"a","name":"n","accountId":null,"retailerId":"1"}"#,
        Some(Malformed::Missing("accountId")),
    );
    check(
        r#"{"id":"a","name":"n","accountId":"A"}"#,
        Some(Malformed::Missing("retailerId")),
    );
    let long = format!(
        r#"{{"id":"a","name":"{}","accountId":"A","retailerId":"1"}}"#,
        "n".repeat(257)
    );
    check(&long, Some(Malformed::TooLong("name")));
}

#[test]
fn a_routed_key_twice_is_malformed_and_another_key_is_not() {
    check(
        r#"{"id":"a","id":"b","name":"n","accountId":"A","retailerId":"1"}"#,
        Some(Malformed::Repeated),
    );
    check(
        r#"{"id":"a","\u0069d":"b","name":"n","accountId":"A","retailerId":"1"}"#,
        Some(Malformed::Repeated),
    );
    check(
        r#"{"id":"a","name":"n","accountId":"A","retailerId":"1","x":1,"x":2}"#,
        None,
    );
}

#[test]
fn attributes_twice_and_capitals_that_other_readers_overlook_are_malformed() {
    let with =
        |rest: &str| format!(r#"{{"id":"a","name":"n","accountId":"A","retailerId":"1"{rest}}}"#);
    for twice in [
        r#","attributes":{},"attributes":{}"#,
        r#","Attributes":{},"attributes":null"#,
        r#","AccountId":"B""#,
        r#","ACCOUNTID":"A""#,
        r#","entityRef":"x","ent\u0069tyREF":"y""#,
        ",\"accountId\":null",
        ",\"entityStatu\u{17f}\":1,\"entityStatus\":2",
    ] {
        check(&with(twice), Some(Malformed::Repeated));
    }
    for once in [
        r#","attributes":{"id":1,"ID":2}"#,
        r#","Attributes":{}"#,
        r#","account_id":"B""#,
    ] {
        check(&with(once), None);
    }
}

#[test]
fn every_known_field_twice_is_malformed() {
    // These two are ours: what a condition reads under them is not of the body.
    let ours = ["environment", "origin"];
    for name in KNOWN_FIELDS.iter().filter(|name| !ours.contains(name)) {
        let twice = [name.to_string(), name.to_uppercase()].map(|second| {
            let own = r#""id":"a","name":"n","accountId":"A","retailerId":"1""#;
            format!(r#"{{{own},"{name}":1,"{second}":2}}"#)
        });
        for body in twice {
            check(&body, Some(Malformed::Repeated));
        }
    }
    let with =
        |rest: &str| format!(r#"{{"id":"a","name":"n","accountId":"A","retailerId":"1"{rest}}}"#);
    check(&with(r#","meta":{},"source":"s","flexType":"f""#), None);
}

#[test]
fn bytes_that_are_no_text_are_malformed_wherever_they_are() {
    let head = br#"{"id":"a","name":"n","accountId":"A","retailerId":"1","x":"#;
    for bytes in [
        &b"\"\xff\xfe\""[..],
        b"[{\"\xc0\xaf\":1}]",
        b"\"\xed\xa0\x80\"",
    ] {
        let body = [&head[..], bytes, b"}"].concat();
        let read = Read::body(&body);
        assert_eq!(read.malformed, Some(Malformed::NotJson));
        assert_eq!(
            read.accounts,
            ["A"],
            "and it is known whose it claims to be"
        );
    }
}

#[test]
fn escapes_and_numbers_that_no_program_can_hold_are_json_and_odd() {
    let body = r#"{"id":"a","name":"n","accountId":"A","retailerId":"1","entityId":1e400,"entityRef":"\ud800","\ud800":{"\udc00":1e999}}"#;
    let read = check(body, None);
    assert_eq!(
        (read.fields.entity_id, read.fields.entity_ref),
        (None, None)
    );
    check(
        &body.replace("\"n\"", "\"\\ud800\""),
        Some(Malformed::Missing("name")),
    );
}

#[test]
fn a_broken_body_still_says_whose_it_claims_to_be() {
    let read = check(r#"{"accountId":"STRANGER","id":"#, Some(Malformed::NotJson));
    assert_eq!(read.accounts, ["STRANGER"]);
    for broken in [
        "",
        "[]",
        "null",
        "{} x",
        "\u{feff}{}",
        r#"{"id":NaN}"#,
        &"[".repeat(100_000),
    ] {
        check(broken, Some(Malformed::NotJson));
    }
    assert_eq!(
        Read::body(b"{\"id\":\"\xff\"}").malformed,
        Some(Malformed::NotJson)
    );
}

#[test]
fn a_deep_value_does_not_overflow_the_stack() {
    let deep = format!(r#"{{"id":"a","attributes":{}"#, "[".repeat(100_000));
    check(&deep, Some(Malformed::NotJson));
    // Closed brackets are odd but harmless: fields that routes do not use are skipped without
    // recursion.
    let open = "[".repeat(100_000);
    let close = "]".repeat(100_000);
    let closed = format!(
        r#"{{"id":"a","name":"n","accountId":"A","retailerId":"1","attributes":{open}{close}}}"#
    );
    check(&closed, None);
}
