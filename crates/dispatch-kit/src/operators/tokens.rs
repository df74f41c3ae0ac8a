//! The tokens of an expression, as the engine reads them.

/// Operators of two characters.
const TWO: [&str; 6] = ["//", "**", "==", "!=", ">=", "<="];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Text,
    Whole,
    Fraction,
    Sign,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Reads the tokens up to `end`, as the engine does. Returns them, and the position of the end.
pub(super) fn tokens(source: &str, end: &str) -> Option<(Vec<Token>, usize)> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut open = 0_usize;
    let mut at = 0;
    loop {
        at += source[at..].len() - source[at..].trim_start().len();
        let rest = &source[at..];
        let closed = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if open == 0 && (rest.starts_with(end) || closed.starts_with(end)) {
            return Some((tokens, at));
        }
        let first = rest.chars().next()?;
        let (kind, length) = match first {
            '_' | 'a'..='z' | 'A'..='Z' => (Kind::Word, word(rest)),
            '0'..='9' => number(rest, at > 0 && source[..at].ends_with('.')),
            '"' | '\'' => (Kind::Text, text(rest)?),
            _ if TWO.iter().any(|two| rest.starts_with(two)) => (Kind::Sign, 2),
            _ => (Kind::Sign, first.len_utf8()),
        };
        match first {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        tokens.push(Token {
            kind,
            start: at,
            end: at + length,
        });
        at += length;
    }
}

fn word(rest: &str) -> usize {
    let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    rest.find(|c| !is_part(c)).unwrap_or(rest.len())
}

fn text(rest: &str) -> Option<usize> {
    let quote = rest.chars().next()?;
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The kind and the length of a number. One after a point is an index and has no fraction.
fn number(rest: &str, is_index: bool) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    if matches!(bytes.get(1), Some(b'b' | b'B' | b'o' | b'O' | b'x' | b'X')) && bytes[0] == b'0' {
        let digits = |byte: &u8| !(byte.is_ascii_hexdigit() || *byte == b'_');
        let length = bytes[2..].iter().position(digits);
        return (Kind::Whole, length.map_or(rest.len(), |length| length + 2));
    }
    let mut kind = Kind::Whole;
    let mut has_exponent = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied().unwrap_or_default();
        let before = at.checked_sub(1).map_or(0, |before| bytes[before]);
        match byte {
            b'0'..=b'9' | b'_' => {}
            b'.' if kind == Kind::Whole && !is_index => {
                let is_exponent = matches!(next, b'e' | b'E')
                    && matches!(bytes.get(at + 2), Some(b'+' | b'-' | b'0'..=b'9'));
                if !is_exponent && (next == b'_' || next.is_ascii_alphabetic()) {
                    break;
                }
                kind = Kind::Fraction;
            }
            b'e' | b'E' if !has_exponent => {
                has_exponent = true;
                kind = Kind::Fraction;
            }
            b'+' | b'-' if matches!(before, b'e' | b'E') => {}
            _ => break,
        }
        at += 1;
    }
    (kind, at)
}
