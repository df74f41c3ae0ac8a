//! Byte order marks, which some editors and servers put before what they write.

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Returns `bytes` without the byte order mark of UTF-8 before them, which is no part of the text
/// (RFC 8259, section 8.1).
///
/// ```
/// assert_eq!(fluent_dispatch_kit::without_bom("\u{feff}{}".as_bytes()), b"{}");
/// assert_eq!(fluent_dispatch_kit::without_bom(b"{}"), b"{}");
/// ```
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}
