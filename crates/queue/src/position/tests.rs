//! Tests of a position's forms, and of values that are none.

use proptest::prelude::*;

use super::*;

fn at(shard: u8, sequence: u64) -> Position {
    Position::new(shard, sequence).unwrap()
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(Position::new(64, 0), Err(PositionError::Shard(64)));
    assert_eq!(Position::new(u8::MAX, 0), Err(PositionError::Shard(255)));
    assert_eq!(
        Position::new(0, 1 << 56),
        Err(PositionError::Sequence(1 << 56))
    );
    assert_eq!(
        Position::from_packed(64 << 56),
        Err(PositionError::Shard(64))
    );
    assert_eq!(
        Position::from_packed(u64::MAX),
        Err(PositionError::Shard(255))
    );
}

#[test]
fn the_largest_is_one_number_that_sqlite_has_too() {
    let largest = at(Position::MAX_SHARD, Position::MAX_SEQUENCE);
    assert_eq!(largest.packed(), 0x3FFF_FFFF_FFFF_FFFF);
    assert!(i64::try_from(largest.packed()).is_ok());
    assert_eq!((largest.shard(), largest.sequence()), (63, (1 << 56) - 1));
}

#[test]
fn the_start_is_before_every_event() {
    assert_eq!(
        (Position::START.shard(), Position::START.sequence()),
        (0, 0)
    );
    assert_eq!(Position::default(), Position::START);
    assert!(Position::START < at(0, 1));
}

#[test]
fn shard_0_is_written_as_the_sequence_alone() {
    assert_eq!(at(0, 1234).to_string(), "1234");
    assert_eq!(at(3, 1234).to_string(), "3:1234");
    assert_eq!("0:1234".parse(), Ok(at(0, 1234)));
    assert_eq!(at(0, 1234).packed(), 1234);
}

#[test]
fn text_that_is_none_says_what_was_expected() {
    for text in [
        "", ":", "1:", ":1", "-1", "+1", "1:2:3", "1:-2", " 1", "1 ", "0x1", "1.0", "a",
    ] {
        let error = text.parse::<Position>().unwrap_err();
        assert_eq!(error, PositionError::Text(text.to_owned()));
        assert!(
            error
                .to_string()
                .contains("expected a sequence such as `1234`"),
            "{error}"
        );
    }
    assert_eq!("64:1".parse::<Position>(), Err(PositionError::Shard(64)));
    assert_eq!("300:1".parse::<Position>(), Err(PositionError::Shard(300)));
    let too_long = (1_u64 << 56).to_string();
    assert_eq!(
        too_long.parse::<Position>(),
        Err(PositionError::Sequence(1 << 56))
    );
    assert!(
        "18446744073709551616".parse::<Position>().is_err(),
        "more than 64 bits"
    );
    let error = "64:1".parse::<Position>().unwrap_err().to_string();
    assert_eq!(error, "shard 64 is too large: expected 0 to 63");
}

#[test]
fn json_has_it_as_a_string() {
    assert_eq!(
        serde_json::to_string(&at(0, 1 << 55)).unwrap(),
        "\"36028797018963968\""
    );
    assert_eq!(serde_json::to_string(&at(3, 7)).unwrap(), "\"3:7\"");
    assert_eq!(
        serde_json::from_str::<Position>("\"3:7\"").unwrap(),
        at(3, 7)
    );
}

#[test]
fn json_of_earlier_versions_has_numbers() {
    assert_eq!(
        serde_json::from_str::<Position>("1234").unwrap(),
        at(0, 1234)
    );
    assert_eq!(
        serde_json::from_value::<Position>(1234.into()).unwrap(),
        at(0, 1234)
    );
    assert_eq!(
        serde_json::from_str::<Position>("0").unwrap(),
        Position::START
    );
}

#[test]
fn json_that_is_none_says_why() {
    for (json, why) in [
        ("-1", "-1 is negative: expected a position, 0 or more"),
        (
            "18446744073709551615",
            "shard 255 is too large: expected 0 to 63",
        ),
        ("\"64:1\"", "shard 64 is too large"),
        ("\"1:2:3\"", "`1:2:3` is no position: expected a sequence"),
        ("1.5", "expected a position, such as"),
        ("null", "expected a position, such as"),
        ("[1]", "expected a position, such as"),
    ] {
        let error = serde_json::from_str::<Position>(json)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{json}: {error}");
    }
}

proptest! {
    #[test]
    fn every_form_can_be_read_back(shard in 0..=Position::MAX_SHARD, sequence in 0..=Position::MAX_SEQUENCE) {
        let position = at(shard, sequence);
        prop_assert_eq!((position.shard(), position.sequence()), (shard, sequence));
        prop_assert_eq!(Position::from_packed(position.packed()), Ok(position));
        prop_assert_eq!(position.to_string().parse(), Ok(position));
        let json = serde_json::to_string(&position).unwrap();
        prop_assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
    }

    #[test]
    fn a_number_that_is_packed_stays_what_it_was(packed: u64) {
        match Position::from_packed(packed) {
            Ok(position) => prop_assert_eq!(position.packed(), packed),
            Err(error) => prop_assert_eq!(error, PositionError::Shard(packed >> 56)),
        }
    }

    #[test]
    fn they_are_ordered_by_shard_and_then_by_sequence(
        one in (0..=Position::MAX_SHARD, 0..=Position::MAX_SEQUENCE),
        other in (0..=Position::MAX_SHARD, 0..=Position::MAX_SEQUENCE),
    ) {
        prop_assert_eq!(at(one.0, one.1).cmp(&at(other.0, other.1)), one.cmp(&other));
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = text.parse::<Position>();
    }
}
