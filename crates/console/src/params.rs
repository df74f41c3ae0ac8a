//! Fields of forms and addresses.

use form_urlencoded::Serializer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::text::meant;

/// What stays as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The fields of a form or of an address, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn parse(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text);
        let pairs = pairs.map(|(name, value)| (name.into_owned(), meant(&value)));
        Self(pairs.collect())
    }

    /// The field's value without space around it; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map_or("", |(_, value)| value.trim())
    }

    /// Gives a field this value alone.
    pub(crate) fn set_to(&mut self, name: &str, value: &str) {
        self.0.retain(|(given, _)| given != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// Every value of a field that may be there several times.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Those of these names that have a value.
    pub(crate) fn set(&self, names: &[&'static str]) -> Vec<(&'static str, String)> {
        let pair = |name: &&'static str| (*name, self.get(name).to_owned());
        let pairs = names.iter().map(pair);
        pairs.filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// The address of a page with these fields.
pub(crate) fn link<N: AsRef<str>, V: AsRef<str>>(path: &str, fields: &[(N, V)]) -> String {
    if fields.is_empty() {
        return path.to_owned();
    }
    let mut query = Serializer::new(String::new());
    for (name, value) in fields {
        query.append_pair(name.as_ref(), value.as_ref());
    }
    format!("{path}?{}", query.finish())
}

/// A segment of a path.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The text within an address that the settings give.
pub(crate) fn encoded(text: &str) -> String {
    segment(text)
}

/// The segments of a path as they were meant.
pub(crate) fn segments(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            percent_encoding::percent_decode_str(part)
                .decode_utf8_lossy()
                .into_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_was_meant() {
        let odd = "a&b=c/d?e#f %ü";
        let made = link("/x", &[("ref", odd)]);
        let (_, query) = made.split_once('?').unwrap();
        assert_eq!(Params::parse(query.as_bytes()).get("ref"), odd);
        assert_eq!(segments(&format!("/events/{}", segment(odd)))[1], odd);
        assert_eq!(link::<&str, &str>("/x", &[]), "/x");
        assert_eq!(Params::parse(b"q=+0_123+").get("q"), "0_123");
    }
}
