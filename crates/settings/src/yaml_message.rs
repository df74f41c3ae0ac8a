//! The parser's messages about YAML, in words that say where to look.

const INDENTATION: &str = "look at the indentation here and above: keys of one table begin in the same column, with spaces";
const COLON: &str = "a key needs a colon and a space after it, as in `path: data`: look for a missing colon, here or in the line above";
const SECOND_COLON: &str = "there is a second colon in this line, or it is indented further than the one above: put a text with `: ` in quotes, look at the indentation, or close a bracket";
const QUOTES: &str =
    "a quote is not closed, or closed too early: look for the missing quote here and above";
const BRACKETS: &str =
    "a bracket is not closed, or a comma is missing in it: look at `[ ]` and `{ }` here and above";
const TABS: &str = "there is a tab: indent with spaces";
const QUOTE_TEXT: &str = "a text can't begin with this character: put the text in quotes";

/// Parts of the parser's messages, and what to look at. The first that fits is taken.
const KNOWN: [(&str, &str); 30] = [
    ("tab", TABS),
    ("mapping values are not allowed", SECOND_COLON),
    ("illegal placement of ':'", SECOND_COLON),
    ("mapping keys are not allowed", INDENTATION),
    ("block sequence entries are not allowed", INDENTATION),
    ("simple key", COLON),
    ("in quoted scalar", INDENTATION),
    ("quoted scalar", QUOTES),
    ("double-quoted", QUOTES),
    ("flow mapping", BRACKETS),
    ("flow sequence", BRACKETS),
    ("in flow construct", BRACKETS),
    ("misplaced bracket", BRACKETS),
    ("block mapping", INDENTATION),
    ("block collection", INDENTATION),
    ("block scalar", INDENTATION),
    ("invalid indentation", INDENTATION),
    ("comment intercepting", INDENTATION),
    (
        "comments must be separated",
        "write a space before the # of a comment",
    ),
    ("unexpected character", QUOTE_TEXT),
    ("plain scalar cannot start", QUOTE_TEXT),
    ("unexpected end of plain scalar", QUOTE_TEXT),
    ("did not find expected node content", BRACKETS),
    (
        "anchor",
        "`&` and `*` have a meaning in YAML: put the text in quotes",
    ),
    (
        "alias",
        "`&` and `*` have a meaning in YAML: put the text in quotes",
    ),
    ("tag", "`!` has a meaning in YAML: put the text in quotes"),
    (
        "handle wasn't declared",
        "`!` has a meaning in YAML: put the text in quotes",
    ),
    (
        "directive",
        "`%` has a meaning in YAML: put the text in quotes",
    ),
    (
        "unprintable",
        "there is a character that can't be seen: remove it",
    ),
    (
        "byte order mark",
        "there is a character that can't be seen: remove it",
    ),
];

/// What to look at, for a message of the parser.
pub(crate) fn in_words(message: &str) -> String {
    let message = message.to_lowercase();
    let found = KNOWN.iter().find(|(part, _)| message.contains(part));
    found.map_or(INDENTATION, |(_, words)| words).to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::SettingsTree;

    #[track_caller]
    fn refused(text: &str, line: usize, expected: &str) {
        let error = SettingsTree::parse(Path::new("application.yml"), text, [])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("application.yml:{line}: ")),
            "{text:?}: {error}"
        );
        assert!(error.contains(expected), "{text:?}: {error}");
        for word in [
            "scalar", "mapping", "sequence", "node", "token", "context", ": : ",
        ] {
            assert!(!error.contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn mistakes_in_yaml_say_what_to_look_at() {
        refused("fluent-connect:\n  health: a: b\n", 2, "second colon");
        refused("fluent-connect:\n  health a\n  queue: {}\n", 3, "colon");
        refused("fluent-connect:\n\thealth: a\n", 2, "tab");
        refused("fluent-connect:\n  health: \"a\n", 2, "quote");
        refused("fluent-connect:\n  health: 'a'b\n", 2, "quote");
        refused("fluent-connect:\n  queue: { path: a\n", 3, "bracket");
        refused("fluent-connect:\n  queue: [a\n  health: x\n", 3, "bracket");
        refused(
            "fluent-connect:\n    health: a\n  queue: {}\n",
            3,
            "indentation",
        );
        refused("fluent-connect:\n  health: @a\n", 2, "quotes");
        refused("fluent-connect:\n  health: *a\n", 2, "quotes");
        refused(
            "just a text\n",
            1,
            "expected a table of keys such as `fluent-connect:`",
        );
        refused(
            "- a\n",
            1,
            "expected a table of keys such as `fluent-connect:`",
        );
        refused("fluent-connect: 7\n", 1, "expected a table of keys");
        refused(
            "fluent-connect:\n  health: a\n  health: b\n",
            3,
            "`health` is there twice",
        );
    }
}
