//! An event as a CloudEvent 1.0 in binary mode: attributes beside the body.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::Event;

/// The header that carries an event's id.
pub const EVENT_ID_HEADER: &str = "ce-id";

/// Longest attribute value sent as a header, in bytes; a longer one is left
/// out (the body has it), since receivers bound their headers. Whatever an
/// account, a retailer and a name may be, they fit.
pub const MAX_HEADER_VALUE: usize = 2048;

/// Section 3.1.3.2 of the HTTP binding: space, quote, percent, and everything
/// outside printable ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// `text` as a header value by the HTTP binding's rules.
pub fn encode_header_value(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

impl Event {
    /// `/fluent/<environment>/<account>/<retailer>`.
    pub fn source(&self) -> String {
        format!("/fluent/{}/{}/{}", self.environment(), self.account(), self.retailer())
    }

    /// `<entityType>/<entityRef>`, the entity this event is about.
    pub fn entity(&self) -> Option<String> {
        let fields = self.fields();
        let reference = fields.entity_ref.as_deref()?;
        let kind = fields.entity_type.as_deref().unwrap_or_default();
        Some(format!("{kind}/{reference}"))
    }

    /// The CloudEvents attributes as header names and encoded values.
    pub fn cloud_event_headers(&self) -> Vec<(&'static str, String)> {
        [
            (EVENT_ID_HEADER, Some(self.id().to_string())),
            ("ce-specversion", Some("1.0".to_owned())),
            ("ce-type", Some(self.name().to_owned())),
            ("ce-source", Some(self.source())),
            ("ce-subject", self.entity()),
            ("ce-time", Some(self.received_at().to_string())),
            ("content-type", Some("application/json".to_owned())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, encoded(name, &value?)?)))
        .collect()
    }
}

fn encoded(name: &str, value: &str) -> Option<String> {
    let value = if name == "content-type" { value.to_owned() } else { encode_header_value(value) };
    (value.len() <= MAX_HEADER_VALUE).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_always_fits() {
        let longest = encode_header_value(&"\u{1}".repeat(crate::MAX_FIELD));
        assert!("/fluent/production//".len() + 2 * longest.len() <= MAX_HEADER_VALUE);
    }

    #[test]
    fn values_cannot_break_out_of_a_header() {
        assert_eq!(encode_header_value("a\r\nx: y"), "a%0D%0Ax:%20y");
        assert_eq!(encode_header_value("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode_header_value("100%\""), "100%25%22");
    }
}
