//! The acknowledgement of a stream.
//!
//! A stream that names itself and the sequence under which it has stored an event has it,
//! whatever else is in its answer or is wrong with it. Otherwise it would be stored twice:
//! streams know the ids of what they have only for a while.

use std::fmt;

use async_nats::jetstream;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Result of an acknowledgement: a stream has the event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Remark on what was wrong with the rest of its answer.
    pub(crate) remark: Option<&'static str>,
}

/// Reason for which an answer is no acknowledgement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    #[error("the stream refused it: {0}")]
    Refused(Box<jetstream::Error>),
    #[error("the stream refused it, and its reason can't be read")]
    RefusedOddly,
    #[error("whoever answered is no stream that has stored it")]
    NoStream,
}

/// Returns what an answer means.
pub(crate) fn read(answer: &[u8]) -> Result<Stored, NotStored> {
    let text = String::from_utf8_lossy(answer);
    let mut read = Answer::default();
    let mut json = serde_json::Deserializer::from_str(&text);
    let whole = json
        .deserialize_map(Fields(&mut read))
        .and_then(|()| json.end());
    if let Some(error) = read.error {
        return Err(match jetstream::Error::deserialize(error) {
            Ok(error) => NotStored::Refused(Box::new(error)),
            Err(_) => NotStored::RefusedOddly,
        });
    }
    if !(read.has_stream && read.has_place) {
        return Err(NotStored::NoStream);
    }
    let is_odd = whole.is_err() || read.is_odd || matches!(text, std::borrow::Cow::Owned(_));
    Ok(Stored {
        remark: is_odd.then_some("the stream's answer can't be read in all its parts"),
    })
}

/// Fields that were read before the answer ended or became invalid.
#[derive(Default)]
struct Answer {
    has_stream: bool,
    /// Whether there is a sequence: they begin at 1, and an answer that refuses has 0.
    has_place: bool,
    error: Option<Value>,
    is_odd: bool,
}

struct Fields<'a>(&'a mut Answer);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream's answer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let read = self.0;
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "stream" => {
                    let stream: Value = fields.next_value()?;
                    read.has_stream |= stream.as_str().is_some_and(|name| !name.is_empty());
                }
                "seq" => {
                    let place: Value = fields.next_value()?;
                    read.has_place |= place.as_u64().is_some_and(|place| place > 0);
                }
                // Anything in this field: the answer is no acknowledgement.
                "error" => {
                    read.error = Some(fields.next_value().unwrap_or(Value::Bool(true)))
                        .filter(|it| !it.is_null())
                }
                "duplicate" => read.is_odd |= !fields.next_value::<Value>()?.is_boolean(),
                "domain" => read.is_odd |= !fields.next_value::<Value>()?.is_string(),
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_stream_and_a_place_is_stored() {
        let deep = format!(
            r#"{{"more":{}1{},"stream":"SHOP","seq":7}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        for plain in [
            r#"{"stream":"SHOP","seq":7}"#,
            r#"{"stream":"SHOP","domain":"hub","seq":18446744073709551615,"duplicate":true}"#,
            r#"{"type":"io.nats.jetstream.api.v9","val":5,"batch":{},"seq":7,"stream":"SHOP"}"#,
            r#"{"stream":"SHOP","seq":7,"error":null}"#,
            &deep,
        ] {
            assert_eq!(
                read(plain.as_bytes()).unwrap(),
                Stored { remark: None },
                "{plain:.60}"
            );
        }
        for odd in [
            &br#"{"stream":"SHOP","seq":7,"domain":"h"#[..],
            br#"{"stream":"SHOP","seq":7,"domain":5}"#,
            br#"{"stream":"SHOP","seq":7,"duplicate":"yes"}"#,
            br#"{"stream":"SHOP","seq":7} and more"#,
            br#"{"stream":"SHOP","seq":7,}"#,
            b"{\"stream\":\"SHOP\",\"seq\":7,\"domain\":\"\xff\"}",
        ] {
            let stored = read(odd).unwrap();
            assert!(stored.remark.is_some(), "{}", String::from_utf8_lossy(odd));
        }
    }

    #[test]
    fn what_refuses_or_names_neither_is_not_stored() {
        for bad in [
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"SHOP","seq":0}"#,
            r#"{"stream":"SHOP","seq":7,"error":{"code":400}}"#,
            r#"{"stream":"SHOP","seq":7,"error":"#,
            r#"{"error":true,"stream":"SHOP","seq":7}"#,
            r#"{"stream":"SHOP","seq":0}"#,
            r#"{"stream":"","seq":7}"#,
            r#"{"stream":"SHOP"}"#,
            r#"{"seq":7}"#,
            r#"{"stream":"SHOP","seq":"7"}"#,
            r#"["SHOP",7]"#,
            "+OK",
            "",
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
