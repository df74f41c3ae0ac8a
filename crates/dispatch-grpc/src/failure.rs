//! Errors of a dispatcher as statuses of gRPC, in both directions.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use dispatch::{DispatchError, Excerpt};
use grpc::MAX_DETAIL;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of the reasons: `google.rpc.ErrorInfo.domain`.
const DOMAIN: &str = "fluent-webhooks";
const TRANSIENT: &str = "TRANSIENT";
const PERMANENT: &str = "PERMANENT";
const STOPPING: &str = "STOPPING";
const STATUS: &str = "status";

const ACTION: &str = "asking the remote dispatcher";

/// Answer of a handler. Its words may be anybody's data: they are the cause, which is kept with
/// the attempt and never logged.
#[derive(Debug, thiserror::Error)]
#[error("it answered {code:?}")]
struct HandlerError {
    code: Code,
    #[source]
    said: Option<Excerpt>,
}

/// Converts an error into a status.
pub fn status(error: &DispatchError) -> Status {
    let (code, reason, retry_after) = match error {
        DispatchError::Permanent { .. } => (Code::FailedPrecondition, PERMANENT, None),
        error => (Code::Unavailable, TRANSIENT, error.retry_after()),
    };
    let metadata: HashMap<String, String> = error
        .status()
        .map(|status| (STATUS.to_owned(), status.to_string()))
        .into_iter()
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Some(wait) = retry_after {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(code, shortened(&chain(error)), details)
}

/// Returns the status of a process that stops and has begun nothing: another may be called at
/// once.
pub(crate) fn stopping() -> Status {
    let details = ErrorDetails::with_error_info(STOPPING, DOMAIN, HashMap::new());
    Status::with_error_details(Code::Unavailable, "this process stops", details)
}

/// Whether nothing was begun because the process stops.
pub(crate) fn is_stopping(status: &Status) -> bool {
    let details = status.get_error_details();
    details
        .error_info()
        .is_some_and(|info| info.domain == DOMAIN && info.reason == STOPPING)
}

/// Converts a status of any server into an error.
pub fn failure(status: &Status) -> DispatchError {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let number = info.and_then(|info| info.metadata.get(STATUS)?.parse().ok());
    let is_permanent = match info.map(|info| info.reason.as_str()) {
        Some(PERMANENT) => true,
        Some(TRANSIENT) => false,
        _ => matches!(
            status.code(),
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange
        ),
    };
    let said = Some(shortened(status.message()))
        .filter(|said| !said.is_empty())
        .map(Excerpt);
    let source = HandlerError {
        code: status.code(),
        said,
    }
    .into();
    match is_permanent {
        true => DispatchError::Permanent {
            action: ACTION,
            status: number,
            source,
        },
        false => {
            let retry_after: Option<Duration> =
                details.retry_info().and_then(|info| info.retry_delay);
            DispatchError::Transient {
                action: ACTION,
                retry_after,
                status: number,
                source,
            }
        }
    }
}

/// Joins the error and its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.ends_with(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said
}

/// Shortens an explanation to the length that is kept.
pub(crate) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_DETAIL)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: Code, is_permanent: bool) {
        let failure = failure(&Status::new(code, "why"));
        assert_eq!(
            matches!(failure, DispatchError::Permanent { .. }),
            is_permanent,
            "{code:?}"
        );
    }

    #[test]
    fn a_code_alone_says_whether_to_come_again() {
        for code in (1..=16).map(Code::from) {
            let is_permanent = [
                Code::InvalidArgument,
                Code::FailedPrecondition,
                Code::OutOfRange,
            ]
            .contains(&code);
            check(code, is_permanent);
        }
    }

    #[test]
    fn details_decide_before_the_code() {
        let details = ErrorDetails::with_error_info(PERMANENT, DOMAIN, HashMap::new());
        let status = Status::with_error_details(Code::Unavailable, "no", details);
        assert!(matches!(failure(&status), DispatchError::Permanent { .. }));
        let foreign = ErrorDetails::with_error_info(PERMANENT, "example.com", HashMap::new());
        let status = Status::with_error_details(Code::Unavailable, "no", foreign);
        assert!(matches!(failure(&status), DispatchError::Transient { .. }));
    }

    #[test]
    fn what_a_handler_says_is_the_last_cause() {
        let failure = failure(&Status::new(Code::Unknown, "é".repeat(600)));
        let answered = failure.source().and_then(Error::source);
        let Some(Excerpt(said)) = answered.and_then(|cause| cause.downcast_ref()) else {
            panic!("{failure:?}")
        };
        assert_eq!(said.len(), MAX_DETAIL);
    }
}
