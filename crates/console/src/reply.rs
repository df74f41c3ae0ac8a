//! Answers: pages, redirections, files, and errors in words.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use maud::{Markup, html};
use tonic::{Code, Status};

use crate::live::LiveBody;

/// A whole answer.
pub(crate) type HttpResponse = Response<LiveBody>;

/// No source but ourselves, nothing within the page that runs or styles, no frames, no base, and
/// no form that leads elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Headers of every answer.
const ALWAYS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // Nothing is said to other sites. `no-referrer` would take the origin from our own forms, by
    // which a page of ours is known where a browser does not send `Sec-Fetch-Site`.
    (REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// What a page function answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A page with this title.
    Page(&'static str, Markup),
    /// Another page of ours.
    See(String),
    /// A stream of server-sent events.
    Live(LiveBody),
    /// A file to be stored.
    File(Download),
}

/// A file that a browser stores instead of showing it.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

/// Why there is no such page.
#[derive(Debug)]
pub(crate) struct PageError {
    pub(crate) status: StatusCode,
    pub(crate) words: String,
}

impl PageError {
    pub(crate) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self {
            status,
            words: words.into(),
        }
    }

    pub(crate) fn not_found(words: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, words)
    }

    pub(crate) fn bad(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, words)
    }

    /// A short title for the kind of error.
    pub(crate) fn title(&self) -> &'static str {
        match self.status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::UNAUTHORIZED => "Sign in",
            StatusCode::TOO_MANY_REQUESTS => "Too many",
            status if status.is_server_error() => "Not now",
            _ => "Not possible",
        }
    }
}

impl From<Status> for PageError {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::FailedPrecondition | Code::AlreadyExists => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(code, status.message())
    }
}

/// A page as it is sent. It is stored nowhere.
pub(crate) fn page(status: StatusCode, markup: Markup) -> HttpResponse {
    let mut response = respond(status, "text/html; charset=utf-8", markup.into_string());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

/// A text, without a word about the console.
pub(crate) fn plain(status: StatusCode, words: String) -> HttpResponse {
    let mut response = respond(status, "text/plain; charset=utf-8", words + "\n");
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

/// A file of ours, whose name changes with what is in it.
pub(crate) fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    let mut response = respond(StatusCode::OK, kind, text);
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, kept);
    response
}

/// A redirection to a page of ours, which is asked for with GET.
pub(crate) fn see(place: &str) -> HttpResponse {
    let mut response = page(StatusCode::SEE_OTHER, html! {});
    match HeaderValue::from_str(place) {
        Ok(place) => response.headers_mut().insert(LOCATION, place),
        Err(_) => response
            .headers_mut()
            .insert(LOCATION, HeaderValue::from_static("/")),
    };
    response
}

/// A file, which is stored by nobody but who asked for it.
pub(crate) fn download(file: Download) -> HttpResponse {
    let mut response = respond(StatusCode::OK, file.kind, file.text);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let stored = format!("attachment; filename=\"{}\"", file.name);
    if let Ok(stored) = HeaderValue::from_str(&stored) {
        headers.insert(CONTENT_DISPOSITION, stored);
    }
    response
}

/// A stream, which is stored nowhere, and passed on at once by proxies.
pub(crate) fn live(body: LiveBody) -> HttpResponse {
    let mut response = respond(StatusCode::OK, "text/event-stream", "");
    *response.body_mut() = body;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}

/// The same answer, with the time after which to try again.
pub(crate) fn later(mut response: HttpResponse, wait: Duration) -> HttpResponse {
    let seconds = HeaderValue::from(wait.as_secs().max(1));
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

fn respond(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(LiveBody::Whole(Full::new(text.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
