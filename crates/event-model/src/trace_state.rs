//! W3C's `tracestate`: data of tracing systems beside a `traceparent`.

use std::fmt;
use std::str;
use std::sync::Arc;

/// W3C's `tracestate`: data of tracing systems beside a `traceparent`. It is handed on as it
/// came, and means nothing without its `traceparent`.
/// <https://www.w3.org/TR/trace-context/#tracestate-header>
#[derive(Clone, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

/// Largest number of members, and of characters; a longer state loses members.
const MEMBERS: usize = 32;
const LONGEST: usize = 512;

/// Length above which members are removed first.
const LARGE_MEMBER: usize = 128;

const LONGEST_KEY: usize = 256;
const LONGEST_TENANT: usize = 241;
const LONGEST_SYSTEM: usize = 14;
const LONGEST_VALUE: usize = 256;

impl TraceState {
    /// Reads the values of all `tracestate` headers of a request, in their order. `None` if one
    /// of them is malformed, or there are too many members.
    pub fn read<'v>(headers: impl IntoIterator<Item = &'v [u8]>) -> Option<Self> {
        let mut members = Vec::new();
        for header in headers {
            for member in str::from_utf8(header).ok()?.split(',') {
                match member.trim_matches([' ', '\t']) {
                    "" => {}
                    member if is_member(member) && members.len() < MEMBERS => members.push(member),
                    _ => return None,
                }
            }
        }
        shorten(&mut members);
        (!members.is_empty()).then(|| Self(members.join(",").into()))
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shows the size, never the content, which is another system's.
impl fmt::Debug for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceState({} bytes)", self.0.len())
    }
}

/// Removes whole members, large ones first and then from the end, by section 3.3.1.5.
fn shorten(members: &mut Vec<&str>) {
    let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    while length(members) > LONGEST + 1 {
        match members
            .iter()
            .rposition(|member| member.len() > LARGE_MEMBER)
        {
            Some(large) => drop(members.remove(large)),
            None => drop(members.pop()),
        }
    }
}

fn is_member(member: &str) -> bool {
    member
        .split_once('=')
        .is_some_and(|(key, value)| is_key(key) && is_value(value))
}

fn is_key(key: &str) -> bool {
    match key.split_once('@') {
        Some((tenant, system)) => {
            let begins_well =
                tenant.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
            begins_well && is_name(tenant, LONGEST_TENANT) && is_system(system, LONGEST_SYSTEM)
        }
        None => is_system(key, LONGEST_KEY),
    }
}

fn is_system(name: &str, longest: usize) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && is_name(name, longest)
}

fn is_name(name: &str, longest: usize) -> bool {
    let may_be = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(&b);
    name.len() <= longest && name.bytes().all(may_be)
}

fn is_value(value: &str) -> bool {
    let may_be = |b: u8| (0x20..=0x7e).contains(&b) && b != b',' && b != b'=';
    (1..=LONGEST_VALUE).contains(&value.len()) && value.bytes().all(may_be) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Option<&str>) {
        let state = TraceState::read(headers.iter().map(|header| header.as_bytes()));
        assert_eq!(
            state.as_ref().map(TraceState::as_str),
            expected,
            "{headers:?}"
        );
    }

    #[test]
    fn what_is_well_formed_is_handed_on_as_it_came() {
        check(&["rojo=00f067aa0ba902b7"], Some("rojo=00f067aa0ba902b7"));
        check(
            &["foo=1, \tbar=2 ", "", "baz=3,,"],
            Some("foo=1,bar=2,baz=3"),
        );
        check(
            &["fw529a3039@dt=FfK8l;x:y !\"#~", "a-_*/0=~"],
            Some("fw529a3039@dt=FfK8l;x:y !\"#~,a-_*/0=~"),
        );
        check(
            &["0tenant@s=1", "foo=a  b", "foo=2"],
            Some("0tenant@s=1,foo=a  b,foo=2"),
        );
        let key = format!("{}=v", "k".repeat(256));
        let tenant = format!("{}@{}=v", "t".repeat(241), "s".repeat(14));
        check(&[&key], Some(&key));
        check(&[&tenant], Some(&tenant));
        let value = format!("k={}", "v".repeat(256));
        check(&[&value], Some(&value));
        check(&[], None);
        check(&["", " , "], None);
    }

    #[test]
    fn what_is_malformed_is_dropped_whole() {
        for bad in [
            "foo",
            "=1",
            "foo=",
            "foo =1",
            "Foo=1",
            "0foo=1",
            "foo@=1",
            "@foo=1",
            "foo@bar@baz=1",
            "foo@0b=1",
            "foo=bar=baz",
            "foo=\u{e9}",
            "foo.bar=1",
            "foo=a\u{7f}",
            "foo=a\tb",
            "foo=1;,bar",
            "f\u{e9}=1",
            "foo bar=1",
        ] {
            check(&["good=1", bad, "good=2"], None);
        }
        check(&[&format!("{}=v", "k".repeat(257))], None);
        check(&[&format!("{}@s=v", "t".repeat(242))], None);
        check(&[&format!("t@{}=v", "s".repeat(15))], None);
        check(&[&format!("k={}", "v".repeat(257))], None);
        assert_eq!(TraceState::read([&b"foo=\xff"[..]]), None);
    }

    #[test]
    fn there_are_at_most_32_members_and_512_characters() {
        let members = |count: usize| {
            (0..count)
                .map(|n| format!("k{n}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        check(&[&members(32)], Some(&members(32)));
        check(&[&members(33)], None);
        check(&[&members(20), &members(13)], None);
        let member =
            |name: &str, length: usize| format!("{name}={}", "v".repeat(length - 1 - name.len()));
        let exact = [
            member("a", 128),
            member("b", 128),
            member("c", 128),
            member("d", 125),
        ]
        .join(",");
        assert_eq!(exact.len(), 512);
        check(&[&exact], Some(&exact));
        // Large members first, and then from the end.
        let large = member("large", 200);
        let small = member("a", 128);
        let rest = [member("b", 128), member("c", 128), member("d", 120)].join(",");
        check(
            &[&large, &small, &rest, "z=1"],
            Some(&[small.as_str(), &rest, "z=1"].join(",")),
        );
        check(
            &[&small, &rest, "y=1234", "z=12345"],
            Some(&[small.as_str(), &rest].join(",")),
        );
    }
}
