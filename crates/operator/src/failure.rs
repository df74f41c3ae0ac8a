//! What went wrong, as gRPC says it.

use anyhow::Error;
use queue::QueueError;
use telemetry::Chain;
use tonic::Status;

/// A failure of the queue.
pub(crate) fn queue(error: &QueueError) -> Status {
    let said = Chain(error).to_string();
    match error {
        QueueError::NotFound(_) => Status::not_found(said),
        QueueError::InUse(_) => Status::failed_precondition(said),
        QueueError::Full => Status::resource_exhausted(said),
        QueueError::TooLarge => Status::invalid_argument(said),
        QueueError::Closed | QueueError::Failed(_) => Status::aborted(said),
        _ => Status::unavailable(said),
    }
}

/// Settings that can't be read now.
pub(crate) fn settings(error: &Error) -> Status {
    Status::failed_precondition(format!("the settings: {}", Chain(&**error)))
}
