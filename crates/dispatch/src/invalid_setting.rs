//! An error of opening that one value of the settings is to blame for.

use std::error::Error;
use std::fmt;

use crate::BoxError;

/// A value of a route's settings that is not valid, or names something that is not there. Who
/// reports it finds the value's line in the settings.
///
/// ```
/// use fluent_dispatch::InvalidSetting;
///
/// let error = InvalidSetting::new("secrets/token", "expected a secret of at most 64 bytes");
/// assert_eq!(error.to_string(), "expected a secret of at most 64 bytes");
/// assert_eq!(error.written(), "secrets/token");
/// ```
pub struct InvalidSetting {
    written: String,
    source: BoxError,
}

impl InvalidSetting {
    /// Makes the error. `written` is the value as it is in the settings, or the path that a
    /// relative one leads to.
    pub fn new(written: impl Into<String>, error: impl Into<BoxError>) -> Self {
        Self {
            written: written.into(),
            source: error.into(),
        }
    }

    /// The value as it is in the settings, by which it is found there. Not for messages.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Returns the one among an error and its causes, if there is one.
    pub fn among<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Debug for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InvalidSetting").field(&self.source).finish()
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for InvalidSetting {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}
