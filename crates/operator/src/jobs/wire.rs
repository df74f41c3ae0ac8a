//! Messages of the contract within a record, as their own bytes in hexadecimal digits: the
//! contract breaks no stored message.

use std::fmt::Write;

use proto::Message;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<M: Message, S: Serializer>(message: &M, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&hex(&message.encode_to_vec()))
}

pub(super) fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
    from: D,
) -> Result<M, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = bytes(&text).ok_or_else(|| D::Error::custom("expected hexadecimal digits"))?;
    M::decode(&*bytes).map_err(D::Error::custom)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}
