//! The fields that an expression names: whether they are misspelt, and which of them an event
//! lacks.

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue, SourceInfo};
use event_model::{Event, ExactValue, KNOWN_FIELDS, misspelt_field};

use crate::bounds::misread;
use crate::names::EVENT;
use crate::{ConditionError, ConditionSyntaxError};

/// A field as an expression names it: `event.attributes.store`, or `line.qty` of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldPath {
    /// The variable, then the fields, one in the other.
    pub(crate) keys: Vec<String>,
    /// Whether the variable is the event, and not that of a loop.
    pub(crate) is_of_event: bool,
    /// The location in the expression.
    offset: usize,
}

impl FieldPath {
    /// The path that ends at `node`, if all of it is written out.
    pub(crate) fn of(node: &IdedExpr, is_of_event: bool, source: &SourceInfo) -> Option<Self> {
        let mut keys = Vec::new();
        let mut here = node;
        loop {
            here = match &here.expr {
                Expr::Ident(name) if !name.starts_with('@') => {
                    keys.push(name.clone());
                    break;
                }
                Expr::Select(select) => {
                    keys.push(select.field.clone());
                    &select.operand
                }
                Expr::Call(call) => {
                    let (of, field) = indexed(call)?;
                    keys.push(field.to_owned());
                    of
                }
                _ => return None,
            };
        }
        keys.reverse();
        let offset = source
            .offset_for(node.id)
            .map_or(0, |(start, _)| start as usize);
        Some(Self {
            keys,
            is_of_event,
            offset,
        })
    }

    /// The path as an expression has it.
    fn text(&self, length: usize) -> String {
        let mut text = self.keys[0].clone();
        for key in &self.keys[1..length] {
            match is_word(key) {
                true => text.push_str(&format!(".{key}")),
                false => text.push_str(&format!("[{key:?}]")),
            }
        }
        text
    }

    /// The number of keys up to the one that the event lacks and that is called `key`.
    fn missing_in(&self, event: &ExactValue, key: &str) -> Option<usize> {
        let mut here = event;
        for (index, name) in self.keys.iter().enumerate().skip(1) {
            let ExactValue::Table(fields) = here else {
                return None;
            };
            match fields
                .iter()
                .find(|(field, _)| field.as_str() == name.as_str())
            {
                Some((_, value)) => here = value,
                None => return (name == key).then_some(index + 1),
            }
        }
        None
    }
}

/// The value and the field in `value["field"]`.
pub(crate) fn indexed(call: &cel::common::ast::CallExpr) -> Option<(&IdedExpr, &str)> {
    match (call.func_name.as_str(), call.args.as_slice()) {
        (
            "_[_]",
            [
                of,
                IdedExpr {
                    expr: Expr::Literal(LiteralValue::String(field)),
                    ..
                },
            ],
        ) => Some((of, field.inner())),
        _ => None,
    }
}

fn is_word(key: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    key.chars().all(is_letter) && !key.starts_with(|c: char| c.is_ascii_digit())
}

/// Fails if a field of the event is a misspelling of one that is known.
pub(crate) fn check(text: &str, paths: &[FieldPath]) -> Result<(), ConditionSyntaxError> {
    let mut found: Vec<(&FieldPath, &str, &str)> = Vec::new();
    for path in paths.iter().filter(|path| path.is_of_event) {
        let Some(field) = path.keys.get(1) else {
            continue;
        };
        let is_new = !found.iter().any(|(_, known, _)| known == field);
        if let (true, Some(meant)) = (is_new, misspelt_field(field)) {
            found.push((path, field, meant));
        }
    }
    let Some((first, ..)) = found.first() else {
        return Ok(());
    };
    let messages: Vec<_> = found
        .iter()
        .map(|(_, field, meant)| {
            format!("an event has no field `{field}`; did you mean `{EVENT}.{meant}`?")
        })
        .collect();
    Err(misread(text, first.offset, messages.join(" And: ")))
}

/// The fields of the event that are not known, without those that the expression asks for by
/// `has`, in order.
pub(crate) fn unknown<'p>(text: &str, paths: &'p [FieldPath]) -> Vec<&'p str> {
    let mut found: Vec<&str> = Vec::new();
    let of_event = paths.iter().filter(|path| path.is_of_event);
    for field in of_event.filter_map(|path| path.keys.get(1)) {
        let is_known = KNOWN_FIELDS.contains(&field.as_str());
        if !is_known && !found.contains(&field.as_str()) && !is_asked_for(text, field) {
            found.push(field);
        }
    }
    found
}

/// Whether the expression has `has(event.field)`, or `has` of a field below it.
fn is_asked_for(text: &str, field: &str) -> bool {
    let words: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let asked = format!("has({EVENT}.{field}");
    words
        .match_indices(&asked)
        .any(|(at, _)| words[at + asked.len()..].starts_with([')', '.', '[']))
}

/// The error for a field called `key` that could not be read of `event`. Names it only where the
/// expression does: a computed name may be a value.
pub(crate) fn missing(paths: &[FieldPath], event: &Event, key: &str) -> ConditionError {
    let view = event.view().unwrap_or_default();
    let view = ExactValue::Table(view);
    let of_event = paths
        .iter()
        .filter(|path| path.is_of_event)
        .find_map(|path| {
            let length = path.missing_in(&view, key)?;
            Some(path.text(length))
        });
    let of_loop = || {
        let path = paths
            .iter()
            .find(|path| !path.is_of_event && path.keys.iter().skip(1).any(|name| name == key))?;
        let length = path.keys.iter().skip(1).position(|name| name == key)? + 2;
        Some(path.text(length))
    };
    match of_event.or_else(of_loop) {
        Some(path) if path.contains('[') => ConditionError(
            format!("the field `{path}` is missing: ask whether it is there first").into(),
        ),
        Some(path) => {
            ConditionError(format!("the field `{path}` is missing: ask `has({path})` first").into())
        }
        None => ConditionError("a field whose name it computes is missing".into()),
    }
}
