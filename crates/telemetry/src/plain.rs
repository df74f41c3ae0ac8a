//! Text as a terminal may show it, and numbers of things.

/// True if a character makes a terminal do something else than show a character: control
/// characters (C0, DEL, C1), marks that change the direction of text, characters without width,
/// line separators, and unseen annotations and tags.
pub fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A number of things in words.
///
/// ```
/// use fluent_telemetry::count;
///
/// assert_eq!([count(1, "event"), count(2, "event")], ["1 event", "2 events"]);
/// ```
pub fn count(number: u64, one: &str) -> String {
    count_of(number, one, &format!("{one}s"))
}

/// The same for words whose plural is not formed by `s`.
pub fn count_of(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

/// The text with `\u{fffd}` for every character that a terminal would obey or hide.
///
/// ```
/// assert_eq!(fluent_telemetry::plain("orders\u{1b}[2J\u{9b}m\u{202e}"), "orders\u{fffd}[2J\u{fffd}m\u{fffd}");
/// ```
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if is_unsafe(letter) {
                char::REPLACEMENT_CHARACTER
            } else {
                letter
            }
        })
        .collect()
}
