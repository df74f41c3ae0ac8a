//! The difference between a name, which an error may repeat, and what could be a secret.

/// Longest name that is repeated, and longest word of it: a token has 16 letters or more.
const MAX_NAME: usize = 32;
const MAX_WORD: usize = 15;

/// Most digits at the end of a part of a name, as in `sha512`; or of one that is nothing
/// else, as an index.
const MAX_DIGITS: usize = 4;

/// Longest part that is all capitals, as `URL`.
const MAX_CAPITALS: usize = 8;

/// True if a text looks like a name that a person chose: words of letters, with hyphens,
/// underscores, dots or capitals between them, and with digits only at the end of a word. Keys
/// and tokens, in hex, base32 or base64, have digits and capitals anywhere.
pub(crate) fn looks_like_a_name(text: &str) -> bool {
    let is_word = |part: &str| part.is_empty() || is_word(part);
    !text.is_empty() && text.len() <= MAX_NAME && text.split(['-', '_', '.', '[', ']']).all(is_word)
}

fn is_word(part: &str) -> bool {
    let letters = part.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_upper = |c: char| c.is_ascii_uppercase();
    let is_all_capitals = letters.len() <= MAX_CAPITALS && letters.chars().all(is_upper);
    part.len() <= MAX_WORD
        && part.len() - letters.len() <= MAX_DIGITS
        && letters.chars().all(|c| c.is_ascii_alphabetic())
        && (is_all_capitals || has_humps_only(letters))
}

/// True if each capital begins a word of at least two letters.
fn has_humps_only(letters: &str) -> bool {
    let bytes = letters.as_bytes();
    let is_lower = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_lowercase);
    (0..bytes.len())
        .filter(|index| bytes[*index].is_ascii_uppercase())
        .all(|index| is_lower(index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_secrets_are_not() {
        for name in [
            "accounts",
            "body-limt",
            "bodyLimit",
            "[sydney_sandbox]",
            "x-api-key",
            "allow-plaintext-credentials",
            "sha256",
            "URL",
            "0",
            "Orders",
        ] {
            assert!(looks_like_a_name(name), "{name}");
        }
        for secret in [
            "0123456789abcdef0123456789abcdef",
            "d41d8cd98f00b204e9800998",
            "wJalrXUtnFEMIK7MDENGbPxR",
            "AKIAIOSFODNN7EXAMPLE",
            "JBSWY3DPEHPK3PXPJBSWY3DP",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "hunter2hunter",
            "correcthorsebattery",
            "correct horse battery staple",
            "4111111111111111",
            "user:word",
            "",
        ] {
            assert!(!looks_like_a_name(secret), "{secret}");
        }
    }
}
