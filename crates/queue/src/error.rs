/// Whatever an adapter's library returned.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a queue did not do what it was asked, split by what the caller can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// No room: of the disk, or of the retention limit. Nothing was stored;
    /// trying again later may work.
    #[error("the queue is full")]
    Full,
    /// Larger than the queue takes: trying again is in vain until it is told to
    /// take more.
    #[error("larger than the queue takes")]
    TooLarge,
    /// Not now; trying again may work.
    #[error("{action} failed, for now")]
    Unavailable {
        /// What was being attempted, as a gerund phrase.
        action: &'static str,
        /// What went wrong underneath.
        #[source]
        source: BoxError,
    },
    /// Never again through this handle: its storage can't be trusted.
    #[error("the queue has failed: {0}")]
    Failed(String),
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
    /// The delivery was given to somebody else in the meantime.
    #[error("the lease on this delivery has expired")]
    LeaseLost,
    /// Somebody uses it: trying again is in vain until it is taken out of the settings.
    #[error("{0} is in use: take it out of the settings first")]
    InUse(String),
    /// No such route, dead letter or quarantined body.
    #[error("there is no {0}")]
    NotFound(String),
}

impl QueueError {
    /// Wraps a passing failure of `action`.
    pub fn unavailable(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { action, source: source.into() }
    }

    /// The same answer for somebody else who waited for it.
    #[must_use]
    pub fn again(&self) -> Self {
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
