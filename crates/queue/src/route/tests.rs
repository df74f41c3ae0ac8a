//! Tests of filters: their digests and what they match.

use super::*;

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn when(text: &str) -> Option<Condition> {
    Some(Condition::parse(text).unwrap())
}

/// Filters that are much alike, no two the same.
fn filters() -> Vec<RouteFilter> {
    let of = |terms: MatchFields| RouteFilter::from(terms);
    let event = |values: &[&str]| MatchFields {
        event: list(values),
        ..MatchFields::default()
    };
    let account = |values: &[&str]| MatchFields {
        account: list(values),
        ..MatchFields::default()
    };
    let origin = |values: &[&str]| MatchFields {
        origin: list(values),
        ..MatchFields::default()
    };
    let none_of = |none_of: Vec<MatchFields>| RouteFilter {
        none_of,
        ..RouteFilter::default()
    };
    vec![
        RouteFilter::default(),
        of(event(&["A"])),
        of(event(&["A", "B"])),
        of(event(&["AB"])),
        of(event(&["A\", \"B"])),
        of(event(&["A, when: None"])),
        of(event(&[""])),
        of(account(&["A"])),
        of(MatchFields {
            event: list(&["A"]),
            account: list(&["B"]),
            ..MatchFields::default()
        }),
        of(MatchFields {
            event: list(&["B"]),
            account: list(&["A"]),
            ..MatchFields::default()
        }),
        of(MatchFields {
            event: list(&["account", "B"]),
            ..MatchFields::default()
        }),
        of(origin(&["webhook"])),
        of(origin(&["webhook", "reconciled"])),
        of(MatchFields {
            when: when("event.name == 'A'"),
            ..MatchFields::default()
        }),
        of(event(&["event.name == 'A'"])),
        none_of(vec![event(&["A"])]),
        none_of(vec![event(&["A"]), event(&["B"])]),
        none_of(vec![event(&["A", "B"])]),
        none_of(vec![MatchFields::default()]),
        none_of(vec![MatchFields {
            event: list(&["A"]),
            account: list(&["B"]),
            ..MatchFields::default()
        }]),
        none_of(vec![event(&["A"]), account(&["B"])]),
        RouteFilter {
            matching: event(&["A"]),
            none_of: vec![account(&["B"])],
        },
        RouteFilter {
            matching: account(&["B"]),
            none_of: vec![event(&["A"])],
        },
    ]
}

#[test]
fn filters_that_differ_have_digests_that_do() {
    let filters = filters();
    for (at, one) in filters.iter().enumerate() {
        for other in &filters[at + 1..] {
            assert_ne!(one.digest(), other.digest(), "{one:?} and {other:?}");
        }
    }
}

#[test]
fn how_a_filter_is_written_down_says_nothing() {
    let of = |values: &[&str]| MatchFields {
        retailer: list(values),
        ..MatchFields::default()
    };
    assert_eq!(
        RouteFilter::from(of(&["1", "2"])).digest(),
        RouteFilter::from(of(&["2", "1", "2"])).digest()
    );
    let none_of = |terms: [MatchFields; 2]| {
        RouteFilter {
            none_of: terms.into(),
            ..RouteFilter::default()
        }
        .digest()
    };
    assert_eq!(
        none_of([of(&["1"]), of(&["2"])]),
        none_of([of(&["2"]), of(&["1"])])
    );
}

/// Digests are stored on servers and in files: another digest counts as another match.
#[test]
fn digests_stay_what_they_were() {
    let found: Vec<String> = filters().iter().map(RouteFilter::digest).collect();
    assert_eq!(found, DIGESTS);
}

const DIGESTS: [&str; 23] = [
    "f0d278eacbee4eeac1f3cc75d5efda8d",
    "c42a66df803942f34b030802f82183cb",
    "bc5c644b07ae331e86579be8ab7cdbf8",
    "cb5454eea100866482891c95e8c40813",
    "d0a92668bc4ac08ad20ab946bd1f2f00",
    "156ba396d98689e2e7286163b7518dab",
    "ac67a8d58da18984eaea987d78848bda",
    "b6d922cd026ce3641622c47a51552f1c",
    "6b654cf8844e12e955e5468ee263ab57",
    "2fcf94b11c9a073c274ba4e8c041a9ed",
    "610f81356cd39d68fdb66a85fe611ff2",
    "eac2f4ce14af9090687ed89378a15fab",
    "cee837252f8162cfb29c2b483514d6d9",
    "3025783c04b2625b453d2f79544d4777",
    "d10354ffc639fad9c9b1e6835f6ba7bb",
    "91200b62524f46d5454546c68acc8190",
    "05180ec2e2037a467c4e6929df52da0f",
    "5a5eb14a1c151d0449cf12672f39c1fc",
    "fd1a84804a1d19ff2a99dbbcd50b1bcf",
    "8ba598806fef44d7927ed47b50ef645a",
    "ecdff324c710c08c571941a8aa68543e",
    "34ad083ffd23a6c708723e4f126e72c9",
    "92346740a74706b7f2145953b03ab924",
];
