//! The parser's messages in words that say what to write.

/// Longest part of an expression that a message repeats.
const MAX_SHOWN: usize = 24;

/// Words of other languages, and the operator to write.
const OPERATORS: [(&str, &str); 8] = [
    ("=", "=="),
    ("===", "=="),
    ("<>", "!="),
    ("&", "&&"),
    ("|", "||"),
    ("and", "&&"),
    ("or", "||"),
    ("not", "!"),
];

/// What is wrong, for the first line of a parser's message.
pub(crate) fn in_words(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    if let Some(text) = message.strip_prefix("token recognition error at: ") {
        return unreadable(text);
    }
    if let Some(rest) = message.strip_prefix("missing ") {
        let missing = rest.split(" at ").next().unwrap_or(rest).trim_matches('\'');
        return format!("`{missing}` is missing here");
    }
    match quoted(message) {
        Some(text) if text.ends_with("<EOF>") => "the expression ends too early: look for what is missing here, or for a bracket that is not closed".to_owned(),
        Some(text) => unexpected(text),
        None => "this can't be read as a condition".to_owned(),
    }
}

/// A character that begins nothing: mostly half of an operator, or a quote that is not closed.
fn unreadable(text: &str) -> String {
    let text = text.strip_prefix('\'').unwrap_or(text);
    let text = text.strip_suffix('\'').unwrap_or(text).trim();
    match operator(text) {
        Some(right) => format!("`{text}` is no operator here: write `{right}`"),
        None if text.is_empty() || text.starts_with(['"', '\'']) => {
            "a quote is not closed".to_owned()
        }
        None => format!("`{}` means nothing here", shown(text)),
    }
}

fn unexpected(text: &str) -> String {
    match operator(text) {
        Some(right) => format!("`{text}` is no operator: write `{right}`"),
        None => format!(
            "`{}` can't stand here: look for a missing operator, comma or quote before it",
            shown(text)
        ),
    }
}

fn operator(text: &str) -> Option<&'static str> {
    let known = OPERATORS.iter().find(|(wrong, _)| *wrong == text);
    known.map(|(_, right)| *right)
}

/// What a message has between its first quotes.
fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('\'')?;
    let end = rest.find("' expecting").or_else(|| rest.rfind('\''))?;
    Some(&rest[..end])
}

fn shown(text: &str) -> String {
    match text.chars().count() > MAX_SHOWN {
        true => text.chars().take(MAX_SHOWN).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
