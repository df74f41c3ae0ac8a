//! Every command that the documents name is one that there is, with these arguments.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;

const PROGRAM: &str = "fluent-webhooks ";

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = vec![root.join("README.md"), root.join("examples/README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// A command in a document, and whether it stands for itself, in a block to copy.
struct Named {
    words: Vec<String>,
    is_whole: bool,
}

fn commands(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut prose = String::new();
    let mut in_block = None;
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim();
        match (line.strip_prefix("```"), in_block) {
            (Some(language), None) => in_block = Some(["sh", "bash"].contains(&language)),
            (Some(_), Some(_)) => in_block = None,
            (None, Some(true)) => {
                let command = line.trim_start_matches("sudo -u fluent-webhooks ");
                found.extend(command.strip_prefix(PROGRAM).map(|rest| named(rest, true)));
            }
            (None, Some(false)) => {}
            // Code may go on in the next line.
            (None, None) => prose = prose + line + " ",
        }
    }
    let code = prose.split('`').skip(1).step_by(2);
    found.extend(code.filter_map(|code| Some(named(code.strip_prefix(PROGRAM)?, false))));
    found
}

/// What stands for a value in a sentence is one that every option takes.
fn filled_in(word: String) -> String {
    match word.as_str() {
        "N" | "ID" => "1".to_owned(),
        _ => word,
    }
}

/// The words as a shell would make them, up to a comment, a pipe or the next command.
fn named(text: &str, is_whole: bool) -> Named {
    let mut words = vec![PROGRAM.trim().to_owned()];
    let mut word = String::new();
    let mut quote = None;
    for letter in text.chars() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            // A name in angle brackets is one word.
            ('<', None) => quote = Some('>'),
            ('|' | ';' | '>' | '&' | '#', None) if word.is_empty() => break,
            (' ', None) => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    let words = words.into_iter().map(filled_in).collect();
    Named { words, is_whole }
}

#[test]
fn every_documented_command_is_one_that_there_is() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for path in documents() {
        for Named { words, is_whole } in commands(&fs::read_to_string(&path).unwrap()) {
            seen += 1;
            let Err(error) = Cli::try_parse_from(&words) else {
                continue;
            };
            let is_fine = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
                // In a sentence a command may be named without what it needs.
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                | ErrorKind::MissingSubcommand
                | ErrorKind::MissingRequiredArgument => !is_whole,
                _ => false,
            };
            if !is_fine {
                let why = error.to_string();
                let why = why.lines().next().unwrap_or_default().to_owned();
                wrong.push(format!("{}: {}: {why}", path.display(), words.join(" ")));
            }
        }
    }
    assert!(seen > 100, "only {seen} commands were found");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_wrong_command_would_be_found() {
    let text = "Run `fluent-webhooks events sow HD_1`:\n```sh\nfluent-webhooks routes test --event \
                'a b.json'   # why\nfluent-webhooks status | jq\n```\n";
    let found = commands(text);
    let words: Vec<_> = found.iter().map(|found| found.words.join("_")).collect();
    let expected = [
        "fluent-webhooks_routes_test_--event_a b.json",
        "fluent-webhooks_status",
        "fluent-webhooks_events_sow_HD_1",
    ];
    assert_eq!(words, expected);
    assert!(Cli::try_parse_from(&found[2].words).is_err());
    assert!(
        found[..2]
            .iter()
            .all(|named| Cli::try_parse_from(&named.words).is_ok())
    );
}
