//! The answers to senders: short, and without anything that helps an attacker.

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use event_model::{AdmissionError, EventId, Malformed, TraceParent};
use process::ShareDenied;
use queue::QueueError;
use serde_json::json;
use verifier::SignatureError;

/// Seconds until a sender may come back after a 503. Fluent's own waits are 2, 4 and 8 s.
const COME_BACK_SECS: u32 = 2;

/// Every reason to refuse a webhook, in the order in which the reasons are checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("no such path")]
    Path,
    #[error("not a POST")]
    Method,
    #[error("the body is encoded")]
    Encoding,
    #[error("the body is too large")]
    TooLarge,
    #[error("too many bytes of bodies are being received")]
    Busy,
    #[error("its sender has more than its share, and others need room")]
    OverShare,
    #[error("it has no signature")]
    Unsigned(#[source] SignatureError),
    #[error("the body took too long")]
    TooSlow,
    #[error("the body broke off")]
    Broken,
    #[error("not genuine")]
    Rejected(#[from] SignatureError),
    #[error("not admitted")]
    NotAdmitted(#[from] AdmissionError),
    #[error("not an event")]
    Malformed(#[source] Malformed),
    #[error("not made durable")]
    NotDurable(#[source] QueueError),
    /// With what the last try ended with. `None` if none has ended.
    #[error("not made durable in time")]
    NotDurableInTime(#[source] Option<QueueError>),
}

impl From<ShareDenied> for ReceiveError {
    fn from(denied: ShareDenied) -> Self {
        match denied {
            ShareDenied::Full => Self::Busy,
            ShareDenied::OverShare => Self::OverShare,
        }
    }
}

impl ReceiveError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Rejected(_) | Self::Unsigned(_) => StatusCode::UNAUTHORIZED,
            Self::NotAdmitted(_) => StatusCode::FORBIDDEN,
            Self::Busy | Self::OverShare | Self::NotDurable(_) | Self::NotDurableInTime(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// True if the webhook has a valid signature of Fluent's.
    pub(crate) fn is_genuine(&self) -> bool {
        matches!(
            self,
            Self::NotAdmitted(_)
                | Self::Malformed(_)
                | Self::NotDurable(_)
                | Self::NotDurableInTime(_)
        )
    }

    /// True if the webhook has no signature that verifies.
    pub(crate) fn is_signature_error(&self) -> bool {
        matches!(self, Self::Rejected(_) | Self::Unsigned(_))
    }

    /// True if there was no room for the body, or its sender had more than its share.
    pub(crate) fn is_overload(&self) -> bool {
        matches!(self, Self::Busy | Self::OverShare)
    }

    /// The error code in the answer's body.
    fn code(&self) -> &'static str {
        match self {
            Self::Path => "not_found",
            Self::Method => "method_not_allowed",
            Self::Encoding => "unsupported_encoding",
            Self::TooLarge => "too_large",
            Self::TooSlow => "timeout",
            Self::Broken => "incomplete",
            Self::Malformed(_) => "malformed",
            Self::Rejected(_) | Self::Unsigned(_) => "unauthorized",
            Self::NotAdmitted(_) => "forbidden",
            Self::Busy | Self::OverShare | Self::NotDurable(_) | Self::NotDurableInTime(_) => {
                "unavailable"
            }
        }
    }

    /// The reason in metrics and the log, which is more exact than the code in the answer.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Rejected(rejection) | Self::Unsigned(rejection) => rejection.code(),
            Self::NotAdmitted(AdmissionError::UnknownAccount) => "unknown-account",
            Self::NotAdmitted(AdmissionError::UnknownRetailer) => "unknown-retailer",
            Self::NotAdmitted(AdmissionError::WrongKey) => "wrong-key",
            Self::Malformed(malformed) => malformed.code(),
            Self::Busy => "busy",
            Self::OverShare => "over-share",
            other => other.code(),
        }
    }

    /// The answer to a request; `has_body` says whether the request has a body. If that body
    /// stays unread, the answer closes the connection.
    pub(crate) fn response(&self, has_body: bool) -> Response<Body> {
        let mut response = json_response(self.status(), &json!({"error": self.code()}));
        let headers = response.headers_mut();
        match self.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                drop(headers.insert(ALLOW, HeaderValue::from_static("POST")))
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                drop(headers.insert(RETRY_AFTER, COME_BACK_SECS.into()))
            }
            _ => {}
        }
        if has_body && self.leaves_body_unread() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// True if the body is not read to its end, so that the connection can't carry another
    /// request.
    fn leaves_body_unread(&self) -> bool {
        matches!(
            self,
            Self::Path
                | Self::Method
                | Self::TooLarge
                | Self::TooSlow
                | Self::Busy
                | Self::OverShare
                | Self::Broken
                | Self::Encoding
                | Self::Unsigned(_)
        )
    }
}

/// The answer 200 for an event that is durable.
pub(crate) fn accepted(id: EventId, duplicate: bool, trace: TraceParent) -> Response<Body> {
    // Written by hand: nothing in it needs escaping, and every event pays for it.
    let body = format!(
        r#"{{"eventId":"{id}","duplicate":{duplicate},"traceId":"{}"}}"#,
        trace.trace_id()
    );
    with_json(StatusCode::OK, body)
}

/// The answer 200 for a genuine body that is no event and is kept in quarantine.
pub(crate) fn quarantined() -> Response<Body> {
    json_response(StatusCode::OK, &json!({"quarantined": true}))
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    with_json(status, value.to_string())
}

fn with_json(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
