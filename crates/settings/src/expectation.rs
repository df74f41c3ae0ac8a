//! What a value of the settings should be, in words with an example, as the JSON Schema has it.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Most keys in the example of a table.
const MAX_KEYS: usize = 2;

/// Stands for a text of which there is no example.
const UNKNOWN: &str = "...";

/// Deepest nesting of an example.
const MAX_DEPTH: usize = 3;

/// Returns the schema of what is at `path` below a value with this schema.
pub(crate) fn at<'s>(schema: &'s Value, path: &[String]) -> Option<&'s Value> {
    let Some((key, rest)) = path.split_first() else {
        return Some(schema);
    };
    let below = schema["properties"].get(key).or_else(|| items(schema, key));
    if let Some(below) = below.or_else(|| schema.get("additionalProperties").filter(is_schema)) {
        return at(below, rest);
    }
    alternatives(schema).find_map(|one| at(one, path))
}

fn items<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    key.parse::<usize>().ok().and_then(|_| schema.get("items"))
}

fn is_schema(schema: &&Value) -> bool {
    schema.is_object()
}

/// The path to a list that stands for a table. Readers of tables take lists too, and give their
/// elements to the keys in the order of the code.
pub(crate) fn list_for_table(schema: &Value, value: &Value) -> Option<Vec<String>> {
    let below = |key: &str, value: &Value| {
        let schema = at(schema, &[key.to_owned()])?;
        let path = list_for_table(schema, value)?;
        Some([vec![key.to_owned()], path].concat())
    };
    match value {
        Value::Array(_) if takes(schema, "object") && !takes(schema, "array") => Some(Vec::new()),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .find_map(|(index, value)| below(&index.to_string(), value)),
        Value::Object(table) => table.iter().find_map(|(key, value)| below(key, value)),
        _ => None,
    }
}

/// Whether a value of this type may have this schema.
fn takes(schema: &Value, wanted: &str) -> bool {
    kind(schema) == Some(wanted) || alternatives(schema).any(|one| takes(one, wanted))
}

/// The schemas of which a value may have any, without that of an empty value.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"]
        .into_iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten()
        .filter(|one| one["type"] != "null")
}

/// The type of a value with this schema, if there is one.
pub(crate) fn kind(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null"),
        _ => None,
    }
}

/// Describes what is expected: `a duration such as 10s`.
pub(crate) fn describe(schema: &Value) -> String {
    if is_secret_file(schema) {
        return format!("{} (what is secret stands in a file)", example(schema));
    }
    if let Some(title) = schema["title"].as_str() {
        return match stated_example(schema) {
            Some(example) => format!("{title} such as {}", flow(example)),
            None => title.to_owned(),
        };
    }
    let names = names(schema);
    if !names.is_empty() {
        return match &names[..] {
            [one] => format!("`{one}`"),
            _ => format!("one of `{}`", names.join("`, `")),
        };
    }
    let different: Vec<_> = alternatives(schema).map(describe).collect();
    if !different.is_empty() {
        return different.join(", or ");
    }
    match kind(schema) {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => format!("{} such as {}", whole_number(schema), example(schema)),
        Some("number") => format!("a number such as {}", example(schema)),
        Some("array") => format!("a list such as {}", example(schema)),
        Some("object") if is_empty_table(schema) => "an empty table, `{}`".to_owned(),
        Some("object") => format!("a table such as {}", example(schema)),
        _ => match example(schema) {
            unknown if unknown == UNKNOWN => "a text".to_owned(),
            example => format!("a text such as {example}"),
        },
    }
}

/// Whether this is a table with a file and nothing else, as secrets are given.
fn is_secret_file(schema: &Value) -> bool {
    let properties = schema["properties"].as_object();
    properties.is_some_and(|keys| keys.len() == 1 && keys.contains_key("file"))
}

fn is_empty_table(schema: &Value) -> bool {
    schema["additionalProperties"] == false
        && schema["properties"].as_object().is_none_or(Map::is_empty)
}

/// The texts of which a value must be one.
pub(crate) fn names(schema: &Value) -> Vec<&str> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let mut names: Vec<_> = listed.filter_map(Value::as_str).collect();
    names.extend(schema["const"].as_str());
    let branches: Vec<_> = alternatives(schema).collect();
    let of_branches: Vec<_> = branches.iter().map(|one| self::names(one)).collect();
    if of_branches.iter().all(|names| !names.is_empty()) {
        names.extend(of_branches.concat());
    }
    names
}

fn whole_number(schema: &Value) -> String {
    let min = schema["minimum"].as_i64().unwrap_or(0);
    match schema["maximum"].as_i64() {
        Some(max) => format!("a whole number from {min} to {max}"),
        None => format!("a whole number from {min}"),
    }
}

fn stated_example(schema: &Value) -> Option<&Value> {
    schema["examples"].get(0)
}

/// An example of a value with this schema, as YAML writes it in one line.
pub(crate) fn example(schema: &Value) -> String {
    flow(&example_of(schema, MAX_DEPTH))
}

fn example_of(schema: &Value, depth: usize) -> Cow<'_, Value> {
    let usual = schema
        .get("default")
        .filter(|usual| !usual.is_null() && !usual.is_object() && **usual != Value::Array(vec![]));
    if let Some(stated) = stated_example(schema).or(usual) {
        return Cow::Borrowed(stated);
    }
    if let Some(name) = names(schema).first() {
        return Cow::Owned(Value::from(*name));
    }
    if let Some(one) = alternatives(schema).next() {
        return example_of(one, depth);
    }
    Cow::Owned(match kind(schema) {
        Some("boolean") => Value::Bool(true),
        Some("integer") => Value::from(schema["minimum"].as_i64().unwrap_or(0).max(1)),
        Some("number") => Value::from(1),
        Some("array") if depth == 0 => Value::Array(Vec::new()),
        Some("array") => Value::Array(vec![example_of(&schema["items"], depth - 1).into_owned()]),
        Some("object") => example_table(schema, depth),
        _ => Value::from(UNKNOWN),
    })
}

/// The keys that must be there, or the first ones.
fn example_table(schema: &Value, depth: usize) -> Value {
    let mut table = Map::new();
    let (Some(properties), true) = (schema["properties"].as_object(), depth > 0) else {
        return Value::Object(table);
    };
    let required: Vec<_> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let keys = properties.keys().map(String::as_str);
    let shown: Vec<_> = match required.is_empty() {
        true => keys.take(MAX_KEYS).collect(),
        false => required,
    };
    for key in shown {
        let value = example_of(&properties[key], depth - 1).into_owned();
        table.insert(key.to_owned(), value);
    }
    Value::Object(table)
}

/// A value as YAML has it in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(flow).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Object(table) => {
            let entries: Vec<_> = table
                .iter()
                .map(|(key, value)| format!("{key}: {}", flow(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}
