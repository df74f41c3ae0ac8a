//! Looking events up by digests of the refs and ids that people know.

use sha2::{Digest, Sha256};

/// The digest of a ref: as many bytes as can be compared at once.
pub fn digest(reference: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(reference).into();
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Range of the first 8 bytes of an id, of which at least half are given in hex.
pub fn prefixes(reference: &str) -> Option<(i64, i64)> {
    let digits: String = reference.chars().take(16).collect();
    let padded = |fill| {
        let text: String = digits
            .chars()
            .chain(std::iter::repeat(fill))
            .take(16)
            .collect();
        u64::from_str_radix(&text, 16).ok().map(u64::cast_signed)
    };
    // With half of the digits in common, the bounds have the same sign.
    if digits.len() >= 8 {
        padded('0').zip(padded('f'))
    } else {
        None
    }
}
