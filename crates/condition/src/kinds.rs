//! What can be said of an expression's values without an event: that its answer is neither true
//! nor false, and that it compares a text of Fluent's with a number.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, SourceInfo};

use crate::fields::FieldPath;
use crate::names::EVENT;

/// The fields of an event that Fluent sends as texts, ids of digits included.
const TEXTS: [&str; 15] = [
    "accountId",
    "entityId",
    "entityRef",
    "entityStatus",
    "entitySubtype",
    "entityType",
    "environment",
    "id",
    "name",
    "origin",
    "retailerId",
    "rootEntityId",
    "rootEntityRef",
    "rootEntityType",
    "type",
];

/// Operators whose value is true or false.
const ANSWERS: [&str; 10] = [
    "_&&_", "_||_", "!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in",
];

/// Functions whose value is true or false.
const QUESTIONS: [&str; 5] = ["bool", "contains", "endsWith", "matches", "startsWith"];

/// Comparisons of two values.
const COMPARISONS: [&str; 6] = ["_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"];

/// What is known of the values of an expression.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    /// The part that is to be true or false and is neither: its location, and what it is.
    pub(crate) no_answer: Option<(usize, &'static str)>,
    /// The fields that are compared with numbers although they are texts, as they are written.
    pub(crate) texts_as_numbers: Vec<String>,
}

/// Looks at an expression whose names were checked, so that it is not nested deeply.
pub(crate) fn of(root: &IdedExpr, source: &SourceInfo) -> Kinds {
    let mut kinds = Kinds {
        no_answer: no_answer(root, source),
        texts_as_numbers: Vec::new(),
    };
    kinds.look_at(root);
    kinds.texts_as_numbers.dedup();
    kinds
}

/// The part of an answer that is neither true nor false, if that is sure.
fn no_answer(node: &IdedExpr, source: &SourceInfo) -> Option<(usize, &'static str)> {
    match &node.expr {
        Expr::Call(call) if ["_&&_", "_||_", "!_"].contains(&call.func_name.as_str()) => {
            call.args.iter().find_map(|part| no_answer(part, source))
        }
        Expr::Call(call) if call.func_name == "_?_:_" => {
            call.args.iter().find_map(|part| no_answer(part, source))
        }
        _ => {
            let what = other_than_an_answer(node)?;
            let offset = source.offset_for(node.id);
            Some((offset.map_or(0, |(start, _)| start as usize), what))
        }
    }
}

/// What a part is, if it is sure that it is neither true nor false.
fn other_than_an_answer(node: &IdedExpr) -> Option<&'static str> {
    match &node.expr {
        Expr::Literal(LiteralValue::Boolean(_)) => None,
        Expr::Literal(LiteralValue::String(_) | LiteralValue::Bytes(_)) => Some("a text"),
        Expr::Literal(LiteralValue::Null) => Some("null"),
        Expr::Literal(_) => Some("a number"),
        Expr::List(_) => Some("a list"),
        Expr::Map(_) => Some("a map"),
        Expr::Select(select) if select.test => None,
        Expr::Select(_) => text_of_event(node).map(|_| "a text"),
        Expr::Call(call) => match call.func_name.as_str() {
            name if ANSWERS.contains(&name) || QUESTIONS.contains(&name) => None,
            "size" | "int" | "uint" | "double" | "_-_" | "_*_" | "_/_" | "_%_" | "-_" => {
                Some("a number")
            }
            "string" => Some("a text"),
            "_+_" => Some("a sum"),
            "_[_]" => text_of_event(node).map(|_| "a text"),
            _ => None,
        },
        _ => None,
    }
}

/// The name of the field, if this is a field of the event that is a text.
fn text_of_event(node: &IdedExpr) -> Option<String> {
    let path = FieldPath::of(node, true, &SourceInfo::default())?;
    match &path.keys[..] {
        [variable, field] if variable == EVENT && TEXTS.contains(&field.as_str()) => {
            Some(format!("{EVENT}.{field}"))
        }
        _ => None,
    }
}

fn is_number(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Literal(LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_)) => {
            true
        }
        Expr::List(list) => list.elements.iter().any(is_number),
        _ => false,
    }
}

impl Kinds {
    fn look_at(&mut self, node: &IdedExpr) {
        match &node.expr {
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if let [one, other] = call.args.as_slice()
                    && (COMPARISONS.contains(&name) || name == "@in")
                {
                    self.compared(one, other);
                }
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.look_at(part);
                }
            }
            Expr::Select(select) => self.look_at(&select.operand),
            Expr::List(list) => {
                for element in &list.elements {
                    self.look_at(element);
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.look_at(&entry.key);
                        self.look_at(&entry.value);
                    }
                }
            }
            // A loop's variable may be called `event`.
            Expr::Comprehension(inner) => self.look_at(&inner.iter_range),
            _ => {}
        }
    }

    fn compared(&mut self, one: &IdedExpr, other: &IdedExpr) {
        let text = match (is_number(one), is_number(other)) {
            (false, true) => text_of_event(one),
            (true, false) => text_of_event(other),
            _ => None,
        };
        self.texts_as_numbers.extend(text);
    }
}
