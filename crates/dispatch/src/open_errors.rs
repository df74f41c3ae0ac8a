//! Everything that keeps a dispatcher from opening.

use std::error::Error;
use std::fmt;

use crate::BoxError;

/// Everything that keeps a dispatcher from opening. A person who mends several mistakes sees all
/// of them in one run.
///
/// ```
/// use fluent_dispatch::{BoxError, OpenErrors};
///
/// fn open(port: &str, code: &str) -> Result<(u16, u8), BoxError> {
///     let mut errors = OpenErrors::default();
///     let port = errors.check(port.parse());
///     let code = errors.check(code.parse());
///     match (port, code) {
///         (Some(port), Some(code)) => Ok((port, code)),
///         _ => Err(errors.into_error()),
///     }
/// }
///
/// assert_eq!(open("80", "7").unwrap(), (80, 7));
/// let errors = OpenErrors::each(open("x", "y").unwrap_err());
/// assert_eq!(errors.len(), 2);
/// ```
#[derive(Debug, Default)]
pub struct OpenErrors(Vec<BoxError>);

impl OpenErrors {
    /// Returns what was opened, or notes the error.
    pub fn check<T>(&mut self, opened: Result<T, impl Into<BoxError>>) -> Option<T> {
        match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                self.0.extend(Self::each(error.into()));
                None
            }
        }
    }

    /// Whether nothing was wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the error for all of it: if there is one alone, that one.
    pub fn into_error(mut self) -> BoxError {
        match self.0.len() {
            1 => self.0.remove(0),
            _ => Box::new(self),
        }
    }

    /// Returns the errors that an error of opening is made of.
    pub fn each(error: BoxError) -> Vec<BoxError> {
        match error.downcast::<Self>() {
            Ok(errors) => errors.0,
            Err(error) => vec![error],
        }
    }
}

impl fmt::Display for OpenErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl Error for OpenErrors {}
