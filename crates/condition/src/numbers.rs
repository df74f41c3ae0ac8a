//! Numbers that are compared by every digit. The language has numbers of 64 bits, and its own
//! comparisons would take others for the nearest.
//!
//! An event's number that is no `int` is a [`Number`], and so is a fraction in the expression.
//! Comparisons and conversions are calls of functions of ours, which see all its digits; every
//! other call is given what the language has for it: a `double`, or a text where a whole number
//! has more than 64 bits.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use cel::common::traits::Negator;
use cel::common::types::{CelDouble, CelInt, CelString, CelUInt, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{ExecutionError, Value};
use event_model::{Decimal, ExactNumber};

/// Longest text of a number that an expression may read. A loop reads it up to a million times,
/// which would take hours with one as long as a body.
pub(crate) const LONGEST: usize = 4096;

/// A number with its text. Cheap to clone, since a loop does that at every step.
#[derive(Clone, Debug)]
pub(crate) struct Number(Arc<Written>);

/// What is known of a number's text.
#[derive(Debug)]
struct Written {
    /// `None` if it is too long to be read.
    digits: Option<Digits>,
    /// Whether it is an event's whole number of more than 64 bits, which is mostly an id.
    is_id: bool,
}

/// A number's text and what it says, so that no comparison has to find that out again.
#[derive(Debug)]
struct Digits {
    text: Box<str>,
    /// `None` if its exponent is too large.
    decimal: Option<Decimal>,
    nearest: f64,
}

impl Digits {
    fn of(text: &str) -> Option<Self> {
        let is_short = text.trim_start_matches('-').len() <= LONGEST;
        is_short.then(|| Self {
            text: text.into(),
            decimal: Decimal::parse(text),
            nearest: text.parse().unwrap_or(f64::NAN),
        })
    }
}

static TYPE: Type = Type::new_unspecified_type("number");

impl Number {
    pub(crate) fn of_event(number: &ExactNumber) -> Self {
        Self(Arc::new(Written {
            digits: Digits::of(number.as_str()),
            is_id: number.is_whole(),
        }))
    }

    pub(crate) fn fraction(text: &str) -> Self {
        Self(Arc::new(Written {
            digits: Digits::of(text),
            is_id: false,
        }))
    }

    pub(crate) fn is_id(&self) -> bool {
        self.0.is_id
    }

    fn digits(&self) -> Result<&Digits, ExecutionError> {
        self.0.digits.as_ref().ok_or_else(too_long)
    }

    pub(crate) fn text(&self) -> Result<&str, ExecutionError> {
        self.digits().map(|digits| &*digits.text)
    }

    pub(crate) fn decimal(&self) -> Result<&Decimal, ExecutionError> {
        self.digits()?.decimal.as_ref().ok_or_else(too_large)
    }

    /// The value that the language has for it.
    pub(crate) fn plain<'v>(&self) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        let digits = self.digits()?;
        Ok(match self.is_id() {
            true => Box::new(CelString::from(digits.text.to_string())),
            false => Box::new(CelDouble::from(digits.nearest)),
        })
    }
}

/// What an [`ExecutionError::Overflow`] says of a number with too many digits to be read.
pub(crate) const TOO_LONG: &str = "digits";

pub(crate) fn too_long() -> ExecutionError {
    ExecutionError::Overflow(TOO_LONG, Value::Null, Value::Null)
}

pub(crate) fn too_large() -> ExecutionError {
    ExecutionError::Overflow("number", Value::Null, Value::Null)
}

impl Val for Number {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn as_negator<'b, 'v>(&'b self) -> Option<&'b (dyn Negator + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Number {}

impl Negator for Number {
    fn negate<'v>(&self) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let text = self.text()?;
        let text = match text.strip_prefix('-') {
            Some(text) => text.to_owned(),
            None => format!("-{text}"),
        };
        Ok(Box::new(Self::fraction(&text)))
    }
}

/// The exact value of a number of any type; `None` if this is no number.
pub(crate) fn decimal(value: &dyn Val) -> Option<Result<Cow<'_, Decimal>, ExecutionError>> {
    if let Some(number) = value.downcast_ref::<Number>() {
        return Some(number.decimal().map(Cow::Borrowed));
    }
    let text = if let Some(whole) = value.downcast_ref::<CelInt>() {
        whole.inner().to_string()
    } else if let Some(whole) = value.downcast_ref::<CelUInt>() {
        whole.inner().to_string()
    } else {
        // What was calculated is the shortest text that says it. A fraction without end is none.
        let fraction = value.downcast_ref::<CelDouble>()?;
        fraction.inner().to_string()
    };
    Decimal::parse(&text).map(|decimal| Ok(Cow::Owned(decimal)))
}

/// The text of a text, or of a number that is one.
pub(crate) fn text(value: &dyn Val) -> Option<Result<&str, ExecutionError>> {
    match value.downcast_ref::<Number>() {
        Some(number) => number.is_id().then(|| number.text()),
        None => {
            let text = value.downcast_ref::<CelString<'_>>()?;
            Some(Ok(text.inner()))
        }
    }
}

pub(crate) fn of_another_type() -> ExecutionError {
    ExecutionError::no_such_overload("comparison", Vec::new())
}

/// What the functions return, for values that live as long as one evaluation.
pub(crate) type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;
