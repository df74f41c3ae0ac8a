//! Conditions on an event, as expressions of the Common Expression Language (<https://cel.dev>):
//! a route's `when`.
//!
//! ```text
//! has(event.attributes.store) && event.attributes.store != "none"
//! ```
//!
//! `event` is the webhook's body with all its fields; its `attributes` are a map by name in
//! either form that Fluent sends, and empty if there are none; `environment` and `origin` are
//! added. Whole numbers are `int`; one that is too long for that is a text of its digits too.
//! Numbers are compared by every digit, whatever their types are.
//!
//! An expression is parsed once, at the start. Problems that only an event can show, such as a
//! missing field, are a [`ConditionError`]: that is no answer, and must not be taken for one.
//!
//! ```
//! use fluent_condition::Condition;
//!
//! let condition = Condition::parse("event.name.startsWith('Order') && event.retailerId == '1'")?;
//! let event = event_model::testing::event("OrderStatusChange", "HD_1");
//! assert_eq!(condition.holds(&event), Ok(true));
//!
//! let condition = Condition::parse("event.attributes.store == 'Sydney'")?;
//! assert!(condition.holds(&event).is_err(), "the event has no such attribute");
//! # Ok::<(), fluent_condition::ConditionSyntaxError>(())
//! ```
//!
//! Start reading at [`Condition`].

mod bounds;
mod comparison;
mod conversion;
mod exact_calls;
mod fields;
mod kinds;
mod names;
mod numbers;
mod patterns;
mod syntax;
mod view;

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::parser::Expression;
use cel::{Context, ExecutionError, Value};
use event_model::Event;

use crate::fields::FieldPath;
use crate::kinds::Kinds;
use crate::names::Reads;

/// Longest expression, in bytes: a longer one should be a field of the event, or a dispatcher.
pub const MAX_LENGTH: usize = 4096;

/// A condition that was parsed and can be evaluated. Cheap to clone.
#[derive(Clone)]
pub struct Condition {
    text: Arc<str>,
    read: Arc<Read>,
}

/// The parsed form of a condition.
struct Read {
    expression: Expression,
    /// The scope of every evaluation: the functions, and the expression's patterns.
    scope: Context<'static, 'static>,
    /// Depth to which loops are nested.
    loops: u32,
    reads: Reads,
    /// The fields that it names.
    fields: Vec<FieldPath>,
    kinds: Kinds,
}

/// Reason why a text is not a condition. Does not repeat the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column} of the expression)")]
pub struct ConditionSyntaxError {
    /// The line of the expression, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The problem there, and what to do about it.
    pub message: String,
}

/// Reason why a condition gave no answer for an event. Names fields, and says nothing of the
/// event's values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route's `when` gave no answer: {0}")]
pub struct ConditionError(Cow<'static, str>);

impl Condition {
    /// Parses an expression, and checks everything that can be checked without an event: its
    /// form, its bounds, and the names in it.
    pub fn parse(text: &str) -> Result<Self, ConditionSyntaxError> {
        bounds::check(text)?;
        let (program, loops, reads, fields, kinds) = bounds::compile(text)?;
        let (expression, scope) = patterns::compile(&program);
        Ok(Self {
            text: text.into(),
            read: Arc::new(Read {
                expression,
                scope,
                loops,
                reads,
                fields,
                kinds,
            }),
        })
    }

    /// Checks that no field of the event is a misspelling of a known one. Apart from
    /// [`Condition::parse`]: a condition that a queue has stored is read whatever is known now.
    pub fn check_fields(&self) -> Result<(), ConditionSyntaxError> {
        fields::check(&self.text, &self.read.fields)
    }

    /// Checks that its value can be true or false. Apart from [`Condition::parse`], too.
    pub fn check_answer(&self) -> Result<(), ConditionSyntaxError> {
        let Some((offset, what)) = self.read.kinds.no_answer else {
            return Ok(());
        };
        let message = format!(
            "this is {what}, and neither true nor false: expected a comparison, such as `event.entityStatus == \"BOOKED\"`"
        );
        Err(bounds::misread(&self.text, offset, message))
    }

    /// Returns the fields that are compared with numbers, and that Fluent sends as texts, each as
    /// `event.retailerId`: such a comparison is never true, or gives no answer.
    pub fn texts_as_numbers(&self) -> &[String] {
        &self.read.kinds.texts_as_numbers
    }

    /// Returns the fields of the event that are like no known one, each once. An event may have
    /// them all the same: whoever asks `has(event.field)` first knows that.
    pub fn unknown_fields(&self) -> Vec<&str> {
        fields::unknown(&self.text, &self.read.fields)
    }

    /// The expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the condition is true for `event`. `Err` if it gives no answer.
    pub fn holds(&self, event: &Event) -> Result<bool, ConditionError> {
        let Read {
            expression,
            scope,
            loops,
            reads,
            fields,
            ..
        } = &*self.read;
        let (value, size) = view::of(event, reads)?;
        bounds::check_work(size, *loops)?;
        let mut scope = scope.new_inner_scope();
        scope.add_variable_as_val(names::EVENT, value);
        let answer = catch_unwind(AssertUnwindSafe(|| scope.resolve(expression)));
        match answer {
            Ok(Ok(Value::Bool(answer))) => Ok(answer),
            Ok(Ok(_)) => Err(ConditionError("it is neither true nor false".into())),
            Ok(Err(ExecutionError::NoSuchKey(key))) => Err(fields::missing(fields, event, &key)),
            Ok(Err(error)) => Err(explained(&error)),
            Err(_) => Err(ConditionError("it can't be evaluated".into())),
        }
    }
}

/// Describes an error in words of ours, since the library's messages have the values that it met.
fn explained(error: &ExecutionError) -> ConditionError {
    let why = match error {
        ExecutionError::UndeclaredReference(_) => {
            "it calls something that does not exist for such a value"
        }
        ExecutionError::IndexOutOfBounds(_) => {
            "it reads past the end of a list: ask `size(...)` first"
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero"
        }
        ExecutionError::Overflow(numbers::TOO_LONG, ..) => "a number in it has too many digits",
        ExecutionError::Overflow(..) => "a number in it becomes too large",
        _ => "a value is of another type than it expects",
    };
    ConditionError(why.into())
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

#[cfg(test)]
mod tests;
