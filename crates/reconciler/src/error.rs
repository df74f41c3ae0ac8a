//! Errors of a comparison.

use std::time::Duration;

use event_model::Timestamp;
use fluent_api::ApiError;
use queue::QueueError;

/// Reason for which a time was not compared, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// It is not known what was received in that time, which is not kept or was before there was
    /// a queue: every event would look missing.
    #[error(
        "what came before {since} is not known here, and everything would look missing: begin at {since}, or later"
    )]
    Unknown {
        /// Time since which everything is kept.
        since: Timestamp,
    },
    /// Events of that time may still be in a gateway's spool.
    #[error("the spool {} of {} is drained up to {} only: wait, or if that gateway is gone for good, empty its spool (`fluent-webhooks spool drain`) or give it up (`fluent-webhooks spool forget {}`)", .0.id, .0.host, .0.drained_to, .0.id)]
    NotDrained(Undrained),
    /// Fluent did not give its log.
    #[error("asking Fluent for its log of account {account}")]
    Api {
        /// Name of the account.
        account: String,
        /// Error of Fluent's API.
        #[source]
        source: ApiError,
    },
    /// A second of the log has more records of this name than this limit.
    #[error("Fluent has logged more than {0} records called `{1}` within a second")]
    TooMany(usize, String),
    /// An hour of the log has more events than this limit, which memory sets.
    #[error(
        "Fluent has logged more than {0} events within an hour: give `reconcile.event-names` fewer names"
    )]
    TooLong(usize),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// A spool that may hold events which look missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undrained {
    /// Its id.
    pub id: String,
    /// Host on which it is.
    pub host: String,
    /// Everything that came there up to this time is in the queue.
    pub drained_to: Timestamp,
}

impl ReconcileError {
    /// Returns how long to wait before it is tried again, if Fluent says so.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Api { source, .. } => source.wait(),
            _ => None,
        }
    }
}
