use std::time::Duration;

use event_model::Timestamp;
use fluent_api::ApiError;
use queue::QueueError;

use crate::window::Undrained;

/// Why a time was not compared, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// What came in that time is not kept, or came before there was a queue: everything
    /// would look as if it were missing.
    #[error(
        "what came before {since} is not known here, and everything would look missing: begin at {since}, or later"
    )]
    Unknown {
        /// Since when everything is kept.
        since: Timestamp,
    },
    /// What came may still be in a gateway's spool.
    #[error("the spool {} of {} is drained up to {} only: wait, or if that gateway is gone for good, empty its spool (`fluent-webhooks spool drain`) or give it up (`fluent-webhooks spool forget {}`)", .0.id, .0.host, .0.drained_to, .0.id)]
    NotDrained(Undrained),
    /// Fluent did not tell.
    #[error("asking Fluent for its log of account {account}")]
    Api {
        /// The account.
        account: String,
        /// Why not.
        #[source]
        source: ApiError,
    },
    /// More in a second than is read.
    #[error("Fluent has logged more than {0} records called `{1}` within a second")]
    TooMany(usize, String),
    /// More in an hour than can be held.
    #[error("Fluent has logged more than {0} events within an hour: give `reconcile.events` fewer names")]
    TooLong(usize),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl ReconcileError {
    /// How long to wait before it is tried again, where Fluent says so.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Api { source, .. } => source.wait(),
            _ => None,
        }
    }
}
