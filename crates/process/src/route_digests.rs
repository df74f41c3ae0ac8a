//! Digests of the routes' settings, by which two versions of them are told apart. Neither secrets
//! nor addresses are in them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use settings::SettingsTree;
use sha2::{Digest, Sha256};

/// Bytes of a digest: enough to see that two versions differ.
const BYTES: usize = 8;

/// The digest of each part of a route's settings, by the part's key.
pub type RouteDigests = BTreeMap<String, String>;

/// The digests of every route, by its name.
pub fn route_digests(tree: &SettingsTree) -> BTreeMap<String, RouteDigests> {
    let of_part = |(key, value): (String, Value)| {
        let digest = Sha256::digest(format!("{key}\0{}", canonical(&value)));
        (key, hex::encode(&digest[..BYTES]))
    };
    tree.written_routes()
        .into_iter()
        .map(|(name, parts)| (name, parts.into_iter().map(of_part).collect()))
        .collect()
}

/// The keys of the parts that differ, in order.
pub fn changed_parts<'d>(one: &'d RouteDigests, other: &'d RouteDigests) -> Vec<&'d str> {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    keys.into_iter()
        .filter(|key| one.get(*key) != other.get(*key))
        .map(String::as_str)
        .collect()
}

/// A value as a text that does not depend on the order of keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let sorted: BTreeMap<_, _> = table
                .iter()
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            format!("{sorted:?}")
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(canonical).collect();
            format!("{values:?}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn digests(route: &str) -> RouteDigests {
        let text = format!("fluent-connect: {{ routes: [{{ name: r, {route} }}] }}");
        let tree = SettingsTree::parse(Path::new("t.yml"), &text, []).unwrap();
        route_digests(&tree).remove("r").unwrap()
    }

    #[test]
    fn a_changed_part_is_named_whatever_the_order_and_the_match() {
        let one = digests("match: {}, dispatcher: http, http: { url: a, timeout: 1s }");
        let same = digests("dispatcher: http, http: { timeout: 1s, url: a }, match: { event: E }");
        assert_eq!(changed_parts(&one, &same), [""; 0]);
        let other = digests("dispatcher: http, http: { timeout: 1s, url: b }, retry: {}");
        assert_eq!(changed_parts(&one, &other), ["http", "retry"]);
        assert_eq!(changed_parts(&other, &one), ["http", "retry"]);
    }
}
