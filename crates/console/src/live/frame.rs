//! The text of one server-sent event.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;

/// Time after which a browser that lost its connection asks again.
const RETRY_AFTER_MS: u32 = 1000;

/// Begins a stream.
pub(super) fn hello() -> Bytes {
    Bytes::from(format!("retry: {RETRY_AFTER_MS}\n{}", text("hello", "{}")))
}

/// Says that the stream is still there.
pub(super) fn beat() -> Bytes {
    Bytes::from(text("beat", "{}"))
}

/// Ends a stream for good: the browser must not ask again.
pub(super) fn end() -> Bytes {
    Bytes::from(text("end", "{}"))
}

/// Says that more came than is told: the page must be loaded again to be complete.
pub(super) fn behind() -> Bytes {
    Bytes::from(text("behind", "{}"))
}

/// An event with what it says, as of a time or a place, which a browser that comes back names.
pub(super) fn of<T: Serialize>(event: &str, at: impl Display, data: &T) -> Bytes {
    // What is serialized here are texts and numbers, which is always possible; JSON has no line
    // ends outside of texts, and none within.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("id: {at}\n{}", text(event, &data)))
}

fn text(event: &str, data: &str) -> String {
    format!("event: {event}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use event_model::Timestamp;

    use super::*;

    #[test]
    fn an_event_is_one_line_of_data_whatever_is_in_it() {
        let at: Timestamp = "2026-11-25T08:00:00.5Z".parse().unwrap();
        let made = of("rows", at, &"a\nb\r\ndata: x\u{2028}");
        let made = String::from_utf8(made.to_vec()).unwrap();
        let lines: Vec<&str> = made.split(['\n', '\r']).collect();
        assert_eq!(lines[0], "id: 2026-11-25T08:00:00.5Z");
        assert_eq!(lines[1], "event: rows");
        assert!(lines[2].starts_with("data: \"a\\nb\\r\\ndata: x"), "{made}");
        assert_eq!(lines[3..], ["", ""]);
    }
}
