//! What others wrote, without what a terminal would obey or hide.

/// Whether a letter makes a terminal do something else than show a letter: control
/// characters (C0, DEL, C1), marks that turn the direction of a text around, letters
/// without any width, separators of lines, and what annotates or tags a text unseen.
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

/// The text with `\u{fffd}` for whatever a terminal would obey or hide.
///
/// ```
/// assert_eq!(telemetry::plain("orders\u{1b}[2J\u{9b}m\u{202e}"), "orders\u{fffd}[2J\u{fffd}m\u{fffd}");
/// ```
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if is_unsafe(letter) { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}
