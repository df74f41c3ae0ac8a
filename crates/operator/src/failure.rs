//! Errors as gRPC statuses.

use anyhow::Error;
use queue::QueueError;
use telemetry::ErrorChain;
use tonic::Status;

/// The status for an error of the queue.
pub(crate) fn queue(error: &QueueError) -> Status {
    let said = ErrorChain(error).to_string();
    match error {
        QueueError::NotFound(_) => Status::not_found(said),
        QueueError::InUse(_) => Status::failed_precondition(said),
        QueueError::Full => Status::resource_exhausted(said),
        QueueError::TooLarge => Status::invalid_argument(said),
        QueueError::Closed | QueueError::Failed(_) => Status::aborted(said),
        _ => Status::unavailable(said),
    }
}

/// The status for settings that can't be read now.
pub(crate) fn settings(error: &Error) -> Status {
    Status::failed_precondition(format!("the settings: {}", ErrorChain(&**error)))
}
