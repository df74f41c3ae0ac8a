//! An event as a CloudEvent 1.0 in binary mode: attributes beside the body.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::Event;

/// The header that carries an event's id.
pub const EVENT_ID_HEADER: &str = "ce-id";

/// Longest value of an optional attribute in a header, in bytes. A longer one is left out (the
/// body has it), since receivers bound their headers. Required attributes are always sent: they
/// are bounded by the bounds of account, retailer and name.
pub const MAX_HEADER_VALUE: usize = 2048;

/// Characters to encode by section 3.1.3.2 of the HTTP binding: space, quote, percent, and
/// everything outside printable ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Characters to encode in a segment by RFC 3986, section 3.3: all except unreserved characters,
/// sub-delimiters, `:` and `@`.
const IN_SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Encodes `text` as a segment of a URI's path. Dots alone are encoded too, since they would lead
/// to another path.
fn segment(text: &str) -> Cow<'_, str> {
    match text {
        "." => Cow::Borrowed("%2E"),
        ".." => Cow::Borrowed("%2E%2E"),
        _ => utf8_percent_encode(text, IN_SEGMENT).into(),
    }
}

/// Encodes `text` as a header value by the HTTP binding's rules.
pub fn encode_header_value(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ENCODED).into()
}

impl Event {
    /// The event's source, `/fluent/<environment>/<account>/<retailer>`: a URI, with everything
    /// percent-encoded that a path segment can't have.
    pub fn source(&self) -> String {
        format!(
            "/fluent/{}/{}/{}",
            self.environment(),
            segment(self.account()),
            segment(self.retailer())
        )
    }

    /// The entity that the event is about, `<entityType>/<entityRef>`.
    pub fn entity(&self) -> Option<String> {
        let fields = self.fields();
        let reference = fields.entity_ref.as_deref()?;
        let kind = fields.entity_type.as_deref().unwrap_or_default();
        Some(format!("{kind}/{reference}"))
    }

    /// The CloudEvents attributes as header names and encoded values.
    pub fn cloud_event_headers(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        [
            (EVENT_ID_HEADER, Some(Cow::Owned(self.id().to_string()))),
            ("ce-specversion", Some(Cow::Borrowed("1.0"))),
            ("ce-type", Some(encode_header_value(self.name()))),
            ("ce-source", Some(encoded(self.source()))),
            (
                "ce-subject",
                self.entity()
                    .map(encoded)
                    .filter(|subject| subject.len() <= MAX_HEADER_VALUE),
            ),
            ("ce-time", Some(Cow::Owned(self.received_at().to_string()))),
            ("content-type", Some(Cow::Borrowed("application/json"))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

fn encoded(text: String) -> Cow<'static, str> {
    match encode_header_value(&text) {
        Cow::Borrowed(_) => Cow::Owned(text),
        Cow::Owned(encoded) => Cow::Owned(encoded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event_of;

    #[test]
    fn what_is_required_is_bounded() {
        let longest = "\u{1}".repeat(crate::MAX_FIELD);
        let source =
            encode_header_value(&segment(&longest)).len() * 2 + "/fluent/production//".len();
        assert!(source <= 4096, "{source}: servers take 8 KiB of headers");
    }

    #[test]
    fn a_segment_is_one_whatever_is_in_it() {
        for (text, expected) in [
            ("ACME", "ACME"),
            ("a-b_c.d~e:f@g!h$i", "a-b_c.d~e:f@g!h$i"),
            ("ACME Ltd/50%", "ACME%20Ltd%2F50%25"),
            ("größe", "gr%C3%B6%C3%9Fe"),
            ("a?b#c", "a%3Fb%23c"),
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("...", "..."),
            ("a\\b\u{7f}", "a%5Cb%7F"),
        ] {
            assert_eq!(segment(text), expected);
        }
    }

    #[test]
    fn values_cannot_break_out_of_a_header() {
        assert_eq!(encode_header_value("a\r\nx: y"), "a%0D%0Ax:%20y");
        assert_eq!(
            encode_header_value("Euro € 😀"),
            "Euro%20%E2%82%AC%20%F0%9F%98%80"
        );
        assert_eq!(encode_header_value("100%\""), "100%25%22");
    }
    #[test]
    fn the_time_is_when_the_webhook_came_and_the_type_of_the_data_is_the_bodys() {
        let event = event_of(
            r#"{"id":"1","name":"OrderStatusChange","accountId":"ACME","retailerId":"34","entityType":"ORDER","entityRef":"HD_1"}"#,
        );
        let headers: Vec<_> = event.cloud_event_headers().collect();
        let id = event.id().to_string();
        let expected = [
            ("ce-id", &*id),
            ("ce-specversion", "1.0"),
            ("ce-type", "OrderStatusChange"),
            ("ce-source", "/fluent/sandbox/ACME/34"),
            ("ce-subject", "ORDER/HD_1"),
            // RFC 3339; Fluent's body has no time of its own.
            ("ce-time", "1970-01-01T00:00:00Z"),
            // Section 3.1.1 of the HTTP binding: `datacontenttype` is this header, and no other.
            ("content-type", "application/json"),
        ];
        assert_eq!(
            headers,
            expected.map(|(name, value)| (name, Cow::Borrowed(value)))
        );
    }
}
