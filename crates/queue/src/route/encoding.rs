//! Encoding of a filter, of which its digest is made. Digests are stored, on servers and in
//! files.
//!
//! ```text
//! filter = version, terms, count, terms …        those of `none_of`, in order of their bytes
//! terms  = count, (name, count, value …) …       fields that ask for something, in the order below
//! ```
//!
//! A count is 8 bytes, most significant first; a name or a value is its length as a count, then
//! its bytes. A field without allowed values leaves no trace: a new kind of condition must not
//! make every route look changed. Values are sorted and each is there once, so their order in the
//! settings does not matter.

use std::collections::BTreeSet;

use crate::route::{MatchFields, RouteFilter};

/// Version of the encoding. Another number makes every route look changed.
const VERSION: u8 = 1;

pub(super) fn of(filter: &RouteFilter) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(of_terms(&filter.matching));
    let none_of: BTreeSet<Vec<u8>> = filter.none_of.iter().map(of_terms).collect();
    push_count(&mut bytes, none_of.len());
    none_of.into_iter().for_each(|terms| bytes.extend(terms));
    bytes
}

fn of_terms(terms: &MatchFields) -> Vec<u8> {
    let MatchFields {
        event,
        environment,
        account,
        retailer,
        entity_type,
        entity_subtype,
        entity_status,
        origin,
        when,
    } = terms;
    let lists = [
        ("event", event),
        ("environment", environment),
        ("account", account),
        ("retailer", retailer),
        ("entity-type", entity_type),
        ("entity-subtype", entity_subtype),
        ("entity-status", entity_status),
        ("origin", origin),
    ];
    let mut fields: Vec<(&str, BTreeSet<&str>)> = lists
        .into_iter()
        .map(|(name, values)| (name, values.iter().map(String::as_str).collect()))
        .collect();
    fields.push(("when", when.iter().map(|when| when.text()).collect()));
    fields.retain(|(_, values)| !values.is_empty());
    let mut bytes = Vec::new();
    push_count(&mut bytes, fields.len());
    for (name, values) in fields {
        push_text(&mut bytes, name);
        push_count(&mut bytes, values.len());
        values
            .into_iter()
            .for_each(|value| push_text(&mut bytes, value));
    }
    bytes
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_count(bytes, text.len());
    bytes.extend(text.as_bytes());
}

fn push_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend((count as u64).to_be_bytes());
}
