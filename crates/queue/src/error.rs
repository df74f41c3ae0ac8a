//! The error of every queue, split by what the caller can do about it.

/// The error that an adapter's library returned.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Error of a queue, split by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// No room on the disk or within the retention limit. Nothing was stored; trying again later
    /// may work.
    #[error("the queue is full")]
    Full,
    /// The event is larger than the queue accepts: trying again is useless until its limit is
    /// raised.
    #[error("larger than the queue takes")]
    TooLarge,
    /// A failure that may pass; trying again may work.
    #[error("{action} failed, for now")]
    Unavailable {
        /// The action that failed, as a gerund phrase.
        action: &'static str,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// This handle has failed for good: its storage can't be trusted.
    #[error("the queue has failed: {0}")]
    Failed(String),
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
    /// The lease ran out, and the delivery was given to another process.
    #[error("the lease on this delivery has expired")]
    LeaseLost,
    /// The route is in use: trying again is useless until it is taken out of the settings.
    #[error("{0} is in use: take it out of the settings first")]
    InUse(String),
    /// There is no such route, dead letter or quarantined body.
    #[error("there is no {0}")]
    NotFound(String),
}

impl QueueError {
    /// Wraps a failure of `action` that may pass.
    pub fn unavailable(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            action,
            source: source.into(),
        }
    }

    /// Returns a copy of this error for another caller who waits for the same answer. The cause
    /// becomes a text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Full => Self::Full,
            Self::TooLarge => Self::TooLarge,
            Self::Unavailable { action, source } => Self::unavailable(action, source.to_string()),
            Self::Failed(why) => Self::Failed(why.clone()),
            Self::Closed => Self::Closed,
            Self::LeaseLost => Self::LeaseLost,
            Self::InUse(what) => Self::InUse(what.clone()),
            Self::NotFound(what) => Self::NotFound(what.clone()),
        }
    }
}
