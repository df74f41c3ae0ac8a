//! The subject under which an event is stored, and the bucket that keeps the events of one entity
//! together.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::Event;

/// Number of buckets that entities are spread over.
pub const BUCKETS: u8 = 64;

/// Longest token, in bytes, that is used as it is. A longer one is replaced by its digest, so
/// that a subject stays far below the server's limit on a protocol line (4 KiB).
const MAX_TOKEN: usize = 192;

/// Characters that have a meaning in a subject, or would end a protocol line.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'.')
    .add(b'*')
    .add(b'>')
    .add(b'%')
    .add(b'$')
    .add(b'~');

/// Encodes a field as one token of a subject: percent-encoded, `_` if it is absent.
///
/// A token is never empty, and two different fields never have the same token.
pub fn token(field: Option<&str>) -> String {
    match field {
        None | Some("") => "_".to_owned(),
        Some("_") => "%5F".to_owned(),
        Some(text) => shortened(utf8_percent_encode(text, RESERVED).to_string()),
    }
}

fn shortened(token: String) -> String {
    if token.len() <= MAX_TOKEN {
        return token;
    }
    format!("~{}", hex::encode(Sha256::digest(&token)))
}

/// The bucket of an entity: first byte, modulo [`BUCKETS`], of the SHA-256 of
/// environment, account, entity type and entity ref, separated by NUL.
pub fn bucket(environment: &str, account: &str, entity_type: &str, entity_ref: &str) -> u8 {
    let text = [environment, account, entity_type, entity_ref].join("\0");
    Sha256::digest(text)[0] % BUCKETS
}

impl Event {
    /// The bucket of the event's root entity, or of its entity if it names no root.
    pub fn bucket(&self) -> u8 {
        let fields = self.fields();
        let (kind, reference) = match &fields.root_entity_ref {
            Some(root) => (&fields.root_entity_type, Some(root)),
            None => (&fields.entity_type, fields.entity_ref.as_ref()),
        };
        bucket(
            self.environment().as_str(),
            self.account(),
            kind.as_deref().unwrap_or_default(),
            reference.map_or("", String::as_str),
        )
    }

    /// The subject,
    /// `fluent.events.<environment>.<account>.<retailer>.<entityType>.<name>.<bucket>`.
    pub fn subject(&self) -> String {
        let fields = self.fields();
        format!(
            "fluent.events.{}.{}.{}.{}.{}.{:02}",
            self.environment(),
            token(fields.account.as_deref()),
            token(fields.retailer.as_deref()),
            token(fields.entity_type.as_deref()),
            token(fields.name.as_deref()),
            self.bucket(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event_of;

    #[test]
    fn tokens_cannot_leave_their_place() {
        for (field, expected) in [
            (None, "_"),
            (Some(""), "_"),
            (Some("_"), "%5F"),
            (Some("order_webhook_status"), "order_webhook_status"),
            (Some("fc.connect.order"), "fc%2Econnect%2Eorder"),
            (Some("a b>*\r\n\0"), "a%20b%3E%2A%0D%0A%00"),
            (Some("é"), "%C3%A9"),
        ] {
            assert_eq!(token(field), expected);
        }
        let long = token(Some(&"x".repeat(10_000)));
        assert_eq!(long.len(), 65);
        assert_ne!(long, token(Some(&"x".repeat(10_001))));
    }

    #[test]
    fn buckets_are_those_of_the_vectors() {
        // printf 'sandbox\0ACME\0ORDER\0HD_1' | sha256sum: first byte, modulo 64.
        for (fields, expected) in [
            (("sandbox", "ACME", "ORDER", "HD_1"), 4),
            (("production", "ACME", "ORDER", "HD_1"), 12),
            (("sandbox", "ACME", "", ""), 40),
        ] {
            let (environment, account, kind, reference) = fields;
            assert_eq!(bucket(environment, account, kind, reference), expected);
        }
    }
    #[test]
    fn an_event_is_in_the_bucket_of_its_root_where_it_names_one() {
        let body = |entity: &str| {
            event_of(&format!(
                r#"{{"id":"1","name":"n","accountId":"ACME","retailerId":"1"{entity}}}"#
            ))
        };
        // The buckets of the vectors: 4 is the order's, 40 that of an event without an entity.
        for (entity, expected) in [
            (r#","entityType":"ORDER","entityRef":"HD_1""#, 4),
            (
                r#","entityType":"FULFILMENT","entityRef":"F_7","rootEntityType":"ORDER","rootEntityRef":"HD_1""#,
                4,
            ),
            (
                r#","entityType":"FULFILMENT","entityRef":"F_7""#,
                bucket("sandbox", "ACME", "FULFILMENT", "F_7"),
            ),
            ("", 40),
        ] {
            let event = body(entity);
            assert_eq!(event.bucket(), expected, "{entity}");
            assert!(
                event.subject().ends_with(&format!(".n.{expected:02}")),
                "{}",
                event.subject()
            );
        }
        assert_ne!(bucket("sandbox", "ACME", "FULFILMENT", "F_7"), 4);
    }
}
