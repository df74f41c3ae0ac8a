//! Errors of a dispatcher, by whether trying again may help.

use std::time::Duration;

/// Any underlying error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reason for which an event was not delivered. Its texts end up in logs and in the history: put
/// no data of the event, no URL and no secret into them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// Trying again may work.
    #[error("{action} failed, for now")]
    Transient {
        /// Action that failed, as a gerund phrase.
        action: &'static str,
        /// Wait that the destination asked for.
        retry_after: Option<Duration>,
        /// The destination's status, if it answered.
        status: Option<u16>,
        /// Underlying error.
        #[source]
        source: BoxError,
    },
    /// Trying again will fail the same way.
    #[error("{action} failed")]
    Permanent {
        /// Action that failed, as a gerund phrase.
        action: &'static str,
        /// The destination's status, if it answered.
        status: Option<u16>,
        /// Underlying error.
        #[source]
        source: BoxError,
    },
    /// The attempt was cut off, which says nothing of the destination: it is made again, and not
    /// counted against it.
    #[error("{action} was cut off")]
    Interrupted {
        /// Action that was cut off, as a gerund phrase.
        action: &'static str,
        /// Cause of the interruption.
        #[source]
        source: BoxError,
    },
    /// The destination was not called, which says nothing of it: the attempt is made again, and
    /// not counted against it.
    #[error("{action} was not begun")]
    NotAsked {
        /// Action that was not begun, as a gerund phrase.
        action: &'static str,
        /// Time for which it can't begin either.
        retry_after: Option<Duration>,
        /// What it lacks.
        #[source]
        source: BoxError,
    },
}

impl DispatchError {
    /// Makes an error after which trying again may work.
    pub fn transient(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Transient {
            action,
            retry_after: None,
            status: None,
            source: source.into(),
        }
    }

    /// Makes an error after which trying again would fail the same way.
    pub fn permanent(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Permanent {
            action,
            status: None,
            source: source.into(),
        }
    }

    /// Makes the error of an attempt that was cut off, which says nothing of the destination.
    pub fn interrupted(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Interrupted {
            action,
            source: source.into(),
        }
    }

    /// Makes the error of an attempt that was not begun, and can't be for this time.
    pub fn not_asked(
        action: &'static str,
        retry_after: Option<Duration>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self::NotAsked {
            action,
            retry_after,
            source: source.into(),
        }
    }

    /// Returns the wait that it asks for, if it does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } | Self::NotAsked { retry_after, .. } => {
                *retry_after
            }
            Self::Permanent { .. } | Self::Interrupted { .. } => None,
        }
    }

    /// Returns the destination's status, if it answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Transient { status, .. } | Self::Permanent { status, .. } => *status,
            Self::Interrupted { .. } | Self::NotAsked { .. } => None,
        }
    }
}

/// Words of a destination, as the last cause of an error: kept in the history, for people to
/// read, and never logged. Put in as little as will do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Excerpt(pub String);

/// Classifies any error where it happens: `send().await.transient("posting")?`.
pub trait ResultExt<T> {
    /// Converts the error into one after which trying again may work.
    fn transient(self, action: &'static str) -> Result<T, DispatchError>;

    /// Converts the error into one after which trying again would fail the same way.
    fn permanent(self, action: &'static str) -> Result<T, DispatchError>;
}

impl<T, E: Into<BoxError>> ResultExt<T> for Result<T, E> {
    fn transient(self, action: &'static str) -> Result<T, DispatchError> {
        self.map_err(|error| DispatchError::transient(action, error))
    }

    fn permanent(self, action: &'static str) -> Result<T, DispatchError> {
        self.map_err(|error| DispatchError::permanent(action, error))
    }
}
