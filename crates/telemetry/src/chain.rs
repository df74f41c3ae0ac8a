//! An error with all its causes in one line.

use std::error::Error;
use std::fmt;

/// Prints an error and its causes, each once, in one line.
///
/// An error describes only its own layer, and has its cause as `source()`. This puts them
/// together.
#[derive(Debug)]
pub struct ErrorChain<'e>(pub &'e dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(f, "{said}")?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries print their cause in their own text.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            (said, cause) = (text, error.source());
        }
        Ok(())
    }
}
