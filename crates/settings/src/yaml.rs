//! YAML text to a tree with locations, of bounded depth, since reading it is recursive.

use std::borrow::Cow;

use saphyr::{MarkedYamlOwned, ScalarOwned, YamlDataOwned, YamlLoader};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};
use serde_json::Value;

use crate::error::SettingsError;
use crate::message::shortened;
use crate::tree::{Data, Location, Node};
use crate::yaml_message::in_words;

/// Deepest nesting of tables and lists: settings need about eight levels.
const MAX_DEPTH: usize = 64;

/// Parses one document. `place` gives the location of a line.
pub(crate) fn parse(text: &str, place: &dyn Fn(usize) -> Location) -> Result<Node, SettingsError> {
    check_depth(text, place)?;
    let documents = load(text).map_err(|error| SettingsError::NotYaml {
        place: place(error.marker().line()),
        message: explained(text, &error),
    })?;
    match &documents[..] {
        [document] => convert(document, place),
        [_, second, ..] => Err(SettingsError::NotYaml {
            place: place(second.span.start.line()),
            message: "a second document begins here: expected one".to_owned(),
        }),
        [] => Ok(Node {
            place: place(1),
            data: Data::Map(Vec::new()),
        }),
    }
}

/// The parser's message in our words, with the key that it is about if there is one.
fn explained(text: &str, error: &ScanError) -> String {
    if error.info() != "duplicated key in mapping" {
        return in_words(error.info());
    }
    let line = text.lines().nth(error.marker().line().saturating_sub(1));
    let rest: String = line
        .unwrap_or_default()
        .chars()
        .skip(error.marker().col())
        .collect();
    let key = rest.split(':').next().unwrap_or_default();
    let key = key.trim().trim_matches(['"', '\'']);
    format!("`{}` is there twice in one table", shortened(key))
}

/// Loads the text with scalars as they are written; their types are decided in [`scalar`].
fn load(text: &str) -> Result<Vec<MarkedYamlOwned>, ScanError> {
    let mut loader = YamlLoader::<MarkedYamlOwned>::default();
    loader.early_parse(false);
    Parser::new_from_str(text).load(&mut loader, true)?;
    match loader.error() {
        Some(error) => Err(error.clone()),
        None => Ok(loader.into_documents()),
    }
}

/// Checks the depth without recursion. Text that is no YAML is left to the parser.
fn check_depth(text: &str, place: &dyn Fn(usize) -> Location) -> Result<(), SettingsError> {
    let mut depth: usize = 0;
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else {
            return Ok(());
        };
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(SettingsError::NotYaml {
                place: place(span.start.line()),
                message: format!("tables and lists stand in each other more than {MAX_DEPTH} deep"),
            });
        }
    }
    Ok(())
}

fn convert(
    node: &MarkedYamlOwned,
    place: &dyn Fn(usize) -> Location,
) -> Result<Node, SettingsError> {
    let here = place(node.span.start.line());
    let data = match &node.data {
        YamlDataOwned::Representation(text, style, tag) => {
            Data::Scalar(scalar(text, *style, tag.as_ref()).ok_or_else(|| unusable(here.clone()))?)
        }
        YamlDataOwned::Sequence(nodes) => Data::List(
            nodes
                .iter()
                .map(|node| convert(node, place))
                .collect::<Result<_, _>>()?,
        ),
        YamlDataOwned::Mapping(entries) => Data::Map(table(entries, place)?),
        YamlDataOwned::Value(_)
        | YamlDataOwned::Tagged(..)
        | YamlDataOwned::Alias(_)
        | YamlDataOwned::BadValue => {
            return Err(unusable(here));
        }
    };
    Ok(Node { place: here, data })
}

fn table<'n>(
    entries: impl IntoIterator<Item = (&'n MarkedYamlOwned, &'n MarkedYamlOwned)>,
    place: &dyn Fn(usize) -> Location,
) -> Result<Vec<(String, Location, Node)>, SettingsError> {
    let mut table: Vec<(String, Location, Node)> = Vec::new();
    for (key, node) in entries {
        let name = text(key, place)?;
        let here = place(key.span.start.line());
        // `1` and `"1"` are two keys to YAML, and the same key to people.
        if table.iter().any(|(other, ..)| *other == name) {
            let message = format!("`{}` is there twice in one table", shortened(&name));
            return Err(SettingsError::NotYaml {
                place: here,
                message,
            });
        }
        table.push((name, here, convert(node, place)?));
    }
    Ok(table)
}

fn text(key: &MarkedYamlOwned, place: &dyn Fn(usize) -> Location) -> Result<String, SettingsError> {
    match &key.data {
        YamlDataOwned::Representation(written, style, tag) => {
            match scalar(written, *style, tag.as_ref()) {
                Some(Value::String(_) | Value::Number(_)) => Ok(written.clone()),
                _ => Err(unusable(place(key.span.start.line()))),
            }
        }
        // `[sydney_sandbox]` without quotes is a list to YAML, and a name to people.
        YamlDataOwned::Sequence(nodes) if nodes.len() == 1 => text(&nodes[0], place),
        _ => Err(unusable(place(key.span.start.line()))),
    }
}

/// The value of a scalar. It is a number only if that number is printed exactly as it was
/// written: `007`, `1.10`, `0x1F`, `1e3` and numbers out of range are ids and versions to people,
/// and stay texts. `None` if the tag does not fit.
fn scalar(written: &str, style: ScalarStyle, tag: Option<&Tag>) -> Option<Value> {
    if tag.is_some_and(|tag| !tag.is_yaml_core_schema()) {
        return None;
    }
    let tag = tag.cloned().map(Cow::Owned);
    let parsed = ScalarOwned::parse_from_cow_and_metadata(written.into(), style, tag.as_ref())?;
    let number = match parsed {
        ScalarOwned::Null => return Some(Value::Null),
        ScalarOwned::Boolean(value) => return Some(Value::Bool(value)),
        ScalarOwned::String(text) => return Some(Value::String(text)),
        ScalarOwned::Integer(number) => Value::from(number),
        ScalarOwned::FloatingPoint(number) => Value::from(number.into_inner()),
    };
    let shown = number.to_string();
    Some(if shown == written {
        number
    } else {
        Value::String(written.to_owned())
    })
}

fn unusable(place: Location) -> SettingsError {
    SettingsError::NotYaml {
        place,
        message: "expected a plain value, a list, or a table with plain keys".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Result<Value, SettingsError> {
        let place = |line| Location::File {
            file: std::path::Path::new("f").into(),
            line,
        };
        parse(text, &place).map(|node| node.value())
    }

    #[test]
    fn a_scalar_is_a_number_only_where_the_number_says_all_that_is_written() {
        for written in [
            "007",
            "0x1F",
            "0o17",
            "1e3",
            "1.10",
            "1234E5",
            "12345678901234567890123",
            "+5",
            "-0",
            ".5",
            "5.",
            "1.0e2",
            ".inf",
            ".nan",
            "18446744073709551615",
            "0.1000000000000000055511151231257827",
            "1_000",
        ] {
            assert_eq!(
                parsed(&format!("x: {written}")).unwrap(),
                json!({ "x": written })
            );
            assert_eq!(
                parsed(&format!("x: [{written}]")).unwrap(),
                json!({ "x": [written] })
            );
            assert_eq!(
                parsed(&format!("{written}: x")).unwrap(),
                json!({ written: "x" })
            );
        }
        let numbers = parsed("[7, -7, 0, 1.5, 0.1, 1.0, 9223372036854775807]").unwrap();
        assert_eq!(
            numbers,
            json!([7, -7, 0, 1.5, 0.1, 1.0, 9_223_372_036_854_775_807_i64])
        );
        let others = parsed("[true, False, null, ~, 'true', \"7\", yes, !!str 7, !!int 7]");
        assert_eq!(
            others.unwrap(),
            json!([true, false, null, null, "true", "7", "yes", "7", 7])
        );
        assert_eq!(
            parsed("x:\ny: |\n  7\n").unwrap(),
            json!({ "x": null, "y": "7\n" })
        );
    }

    #[test]
    fn a_key_is_there_once_however_it_is_written() {
        for twice in [
            "{ 1: a, '1': b }",
            "{ a: 1, \"a\": 2 }",
            "{ 1.10: a, '1.10': b }",
            "{ a: 1, [a]: 2 }",
            "{ a: 1, a: 2 }",
        ] {
            let error = parsed(twice).unwrap_err().to_string();
            assert!(error.contains("is there twice"), "{twice}: {error}");
        }
        assert!(parsed("{ 1: a, 1.0: b, 01: c }").is_ok());
        for none in [
            "{ true: a }",
            "{ ~: a }",
            "{ ? {} : a }",
            "!!int x",
            "!mine x: 1",
        ] {
            assert!(parsed(none).is_err(), "{none}");
        }
    }
}
