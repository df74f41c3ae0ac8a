//! Translation of the server's refusals into errors of the queue.

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use queue::QueueError;

/// No room: of the stream, the account, or the disk.
const FULL: [ErrorCode; 3] = [
    ErrorCode::STREAM_STORE_FAILED,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::INSUFFICIENT_RESOURCES,
];

/// Converts an error into the failure of `action`.
pub(crate) fn failed<E>(action: &'static str) -> impl FnOnce(E) -> QueueError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |error| match code(&error) {
        Some(code) if FULL.contains(&code) => QueueError::Full,
        Some(
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM,
        ) => QueueError::TooLarge,
        _ => QueueError::unavailable(action, error),
    }
}

/// Returns the server's own code of a refusal, wherever in the chain of errors it is.
pub(crate) fn code(error: &(dyn std::error::Error + 'static)) -> Option<ErrorCode> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<jetstream::Error>() {
            return Some(refusal.error_code());
        }
        next = error.source();
    }
    None
}
