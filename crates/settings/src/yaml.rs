//! YAML text to a located tree.

use saphyr::{LoadableYamlNode, MarkedYamlOwned, ScalarOwned, YamlDataOwned};
use serde_json::Value;

use crate::error::SettingsError;
use crate::tree::{Data, Node, Place};

/// Parses one document; `place` says where a line is.
pub(crate) fn parse(text: &str, place: &dyn Fn(usize) -> Place) -> Result<Node, SettingsError> {
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
