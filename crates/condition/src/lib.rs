//! Conditions on an event, as expressions of the Common Expression Language
//! (<https://cel.dev>): a route's `when`.
//!
//! ```text
//! has(event.attributes.store) && event.attributes.store != "none"
//! ```
//!
//! `event` is the webhook's body with all its fields, whatever they are; its
//! `attributes` are a map by name in either form that Fluent sends, and empty
//! where there are none; `environment` and `origin` are added. Whole numbers are `int`;
//! one that is too long for that is a text of its digits.
//!
//! An expression is read once, at the start. What only an event can show, such
//! as a missing field, is an [`Undecided`]: it is no answer, and must not be
//! taken for one.
//!
//! Start reading at [`Condition`].

mod bounds;
mod names;
mod view;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Program, Value};
use event_model::Event;

/// Longest expression, in bytes: one that is longer wants to be a field of the
/// event, or a dispatcher.
pub const MAX_LENGTH: usize = 4096;

/// A condition that was read and can be asked. Cheap to clone.
#[derive(Clone)]
pub struct Condition {
    text: Arc<str>,
    program: Arc<Program>,
    /// How deep loops stand in each other.
    loops: u32,
}

/// Why a text is not a condition. What was written is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column} of the expression)")]
pub struct Misread {
    /// The line of the expression, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong there, and what to do.
    pub message: String,
}

/// Why a condition gave no answer for an event. Says nothing of the event's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route's `when` gave no answer: {0}")]
pub struct Undecided(&'static str);

/// What every expression may call.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

impl Condition {
    /// Reads an expression, and checks what can be checked without an event: its
    /// form, its bounds, and the names in it.
    pub fn parse(text: &str) -> Result<Self, Misread> {
        bounds::check(text)?;
        let (program, loops) = bounds::compile(text)?;
        Ok(Self { text: text.into(), program: Arc::new(program), loops })
    }

    /// The expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds for `event`.
    pub fn holds(&self, event: &Event) -> Result<bool, Undecided> {
        let (value, size) = view::of(event)?;
        bounds::check_work(size, self.loops)?;
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.add_variable_from_value("event", value);
        let answer = catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)));
        match answer {
            Ok(Ok(Value::Bool(answer))) => Ok(answer),
            Ok(Ok(_)) => Err(Undecided("it is neither true nor false")),
            Ok(Err(error)) => Err(explained(&error)),
            Err(_) => Err(Undecided("it can't be evaluated")),
        }
    }
}

/// The library's own words hold the values that it met.
fn explained(error: &ExecutionError) -> Undecided {
    Undecided(match error {
        ExecutionError::NoSuchKey(_) => "a field that it reads is missing: ask `has(...)` first",
        ExecutionError::UndeclaredReference(_) => "it calls something that does not exist for such a value",
        ExecutionError::IndexOutOfBounds(_) => "it reads past the end of a list: ask `size(...)` first",
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero",
        ExecutionError::Overflow(..) => "a number in it becomes too large",
        _ => "a value is of another type than it expects",
    })
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
