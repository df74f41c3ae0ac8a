use std::time::Duration;

/// Whatever went wrong underneath.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an event was not delivered. Its texts end up in logs and in the history:
/// put no data of the event, no URL and no secret into them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// Trying again may work.
    #[error("{action} failed, for now")]
    Transient {
        /// What was being attempted, as a gerund phrase.
        action: &'static str,
        /// The destination's own advice when to come back.
        retry_after: Option<Duration>,
        /// Its status, where it answered.
        status: Option<u16>,
        /// What went wrong underneath.
        #[source]
        source: BoxError,
    },
    /// Trying again will fail the same way.
    #[error("{action} failed")]
    Permanent {
        /// What was being attempted, as a gerund phrase.
        action: &'static str,
        /// Its status, where it answered.
        status: Option<u16>,
        /// What went wrong underneath.
        #[source]
        source: BoxError,
    },
    /// It was cut off, which says nothing of the destination: tried again, and not
    /// counted against it.
    #[error("{action} was cut off")]
    Interrupted {
        /// What was being attempted, as a gerund phrase.
        action: &'static str,
        /// What cut it off.
        #[source]
        source: BoxError,
    },
}

impl DispatchError {
    /// Trying again may work.
    pub fn transient(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Transient { action, retry_after: None, status: None, source: source.into() }
    }

    /// Trying again will fail the same way.
    pub fn permanent(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Permanent { action, status: None, source: source.into() }
    }

    /// It was cut off, which says nothing of the destination.
    pub fn interrupted(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Interrupted { action, source: source.into() }
    }

    /// The destination's status, where it answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Transient { status, .. } | Self::Permanent { status, .. } => *status,
            Self::Interrupted { .. } => None,
        }
    }
}

/// What a destination said, as the last cause of an error: kept in the history,
/// for a person to see, and never logged. Put in as little as will do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Excerpt(pub String);

/// Classifies any error where it happens: `send().await.transient("posting")?`.
pub trait ResultExt<T> {
    /// Trying again may work.
    fn transient(self, action: &'static str) -> Result<T, DispatchError>;

    /// Trying again will fail the same way.
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
