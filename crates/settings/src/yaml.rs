//! YAML text to a located tree: of bounded depth, since reading it calls itself for each.

use saphyr::{LoadableYamlNode, MarkedYamlOwned, ScalarOwned, YamlDataOwned};
use saphyr_parser::{Event, Parser};
use serde_json::Value;

use crate::error::SettingsError;
use crate::tree::{Data, Node, Place};

/// How deep tables and lists may stand in each other: settings need eight or so, and
/// nobody reads more.
const MAX_DEPTH: usize = 64;

/// Parses one document; `place` says where a line is.
pub(crate) fn parse(text: &str, place: &dyn Fn(usize) -> Place) -> Result<Node, SettingsError> {
    check_depth(text, place)?;
    let documents = MarkedYamlOwned::load_from_str(text).map_err(|error| SettingsError::NotYaml {
        place: place(error.marker().line()),
        message: error.info().to_owned(),
    })?;
    match &documents[..] {
        [document] => convert(document, place),
        [_, second, ..] => Err(SettingsError::NotYaml {
            place: place(second.span.start.line()),
            message: "a second document begins here: expected one".to_owned(),
        }),
        [] => Ok(Node { place: place(1), data: Data::Map(Vec::new()) }),
    }
}

/// Steps through the text without calling itself. What is no YAML is left to who reads it.
fn check_depth(text: &str, place: &dyn Fn(usize) -> Place) -> Result<(), SettingsError> {
    let mut depth: usize = 0;
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { return Ok(()) };
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

fn convert(node: &MarkedYamlOwned, place: &dyn Fn(usize) -> Place) -> Result<Node, SettingsError> {
    let here = place(node.span.start.line());
    let data = match &node.data {
        YamlDataOwned::Value(scalar) => Data::Scalar(value(scalar)),
        YamlDataOwned::Representation(text, ..) => Data::Scalar(Value::String(text.clone())),
        YamlDataOwned::Sequence(nodes) => {
            Data::List(nodes.iter().map(|node| convert(node, place)).collect::<Result<_, _>>()?)
        }
        YamlDataOwned::Mapping(entries) => Data::Map(
            entries
                .iter()
                .map(|(key, node)| {
                    Ok((text(key, place)?, place(key.span.start.line()), convert(node, place)?))
                })
                .collect::<Result<_, SettingsError>>()?,
        ),
        YamlDataOwned::Tagged(..) | YamlDataOwned::Alias(_) | YamlDataOwned::BadValue => {
            return Err(unusable(here));
        }
    };
    Ok(Node { place: here, data })
}

fn text(key: &MarkedYamlOwned, place: &dyn Fn(usize) -> Place) -> Result<String, SettingsError> {
    match &key.data {
        YamlDataOwned::Value(ScalarOwned::String(text)) => Ok(text.clone()),
        YamlDataOwned::Value(ScalarOwned::Integer(number)) => Ok(number.to_string()),
        // `[sydney_sandbox]` without quotes is a list to YAML, and a name to people.
        YamlDataOwned::Sequence(nodes) if nodes.len() == 1 => text(&nodes[0], place),
        _ => Err(unusable(place(key.span.start.line()))),
    }
}

fn value(scalar: &ScalarOwned) -> Value {
    match scalar {
        ScalarOwned::Null => Value::Null,
        ScalarOwned::Boolean(value) => Value::Bool(*value),
        ScalarOwned::Integer(number) => Value::from(*number),
        ScalarOwned::FloatingPoint(number) => Value::from(number.into_inner()),
        ScalarOwned::String(text) => Value::String(text.clone()),
    }
}

fn unusable(place: Place) -> SettingsError {
    SettingsError::NotYaml {
        place,
        message: "expected a plain value, a list, or a table with plain keys".to_owned(),
    }
}
