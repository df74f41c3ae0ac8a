//! The meaning of an endpoint's answer.

use std::time::SystemTime;

use dispatch::{BoxError, DispatchError, Done, Excerpt};
use http::StatusCode;
use http::header::HeaderMap;

use crate::settings::StatusSettings;
use http_client::{SendError, retry_after};

const ACTION: &str = "posting to the endpoint";

/// Statuses that say that this very request will never be accepted. Any other is tried again: an
/// expired token or a bad deploy must not turn a thousand events into dead letters.
const PERMANENT: [u16; 5] = [400, 410, 413, 415, 422];

/// Answer of an endpoint that is a failure.
#[derive(Debug, thiserror::Error)]
enum EndpointAnswer {
    #[error("the endpoint answered {0}")]
    Status(u16),
    #[error("the endpoint answered {0}")]
    Excerpt(u16, #[source] Excerpt),
}

/// Longest excerpt, in bytes: the history has no room for more.
const LONGEST: usize = 400;

/// Meaning of statuses on a route.
#[derive(Debug)]
pub(crate) struct Statuses {
    settings: StatusSettings,
    excerpt: usize,
}

impl Statuses {
    pub(crate) fn new(settings: &StatusSettings, excerpt: usize) -> Result<Self, BoxError> {
        let StatusSettings {
            done,
            retry,
            permanent,
        } = settings;
        let all: Vec<u16> = [&done[..], retry, permanent].concat();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() < all.len() || all.iter().any(|status| !(200..600).contains(status)) {
            return Err("statuses: expected numbers from 200 to 599, each in one list only".into());
        }
        if excerpt > LONGEST {
            return Err(format!("error-body-bytes: expected at most {LONGEST} bytes").into());
        }
        Ok(Self {
            settings: settings.clone(),
            excerpt,
        })
    }

    /// Returns how many bytes of an answer to keep.
    pub(crate) fn excerpt(&self) -> usize {
        self.excerpt
    }

    /// Whether this status says that the endpoint has the event.
    pub(crate) fn is_done(&self, status: StatusCode) -> bool {
        let StatusSettings {
            done,
            retry,
            permanent,
        } = &self.settings;
        let code = status.as_u16();
        done.contains(&code)
            || (status.is_success() && !permanent.contains(&code) && !retry.contains(&code))
    }

    /// Returns the result that a status means, with an excerpt of the answer if that is a
    /// failure.
    pub(crate) fn outcome(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        excerpt: &[u8],
        now: SystemTime,
    ) -> Result<Done, DispatchError> {
        let code = status.as_u16();
        let StatusSettings {
            retry, permanent, ..
        } = &self.settings;
        let is_permanent = permanent.contains(&code);
        let is_other = is_permanent || retry.contains(&code);
        if self.is_done(status) {
            return Ok(Done::with_status(code));
        }
        let source = if excerpt.is_empty() {
            EndpointAnswer::Status(code)
        } else {
            EndpointAnswer::Excerpt(code, Excerpt(printable(excerpt)))
        };
        let status = Some(code);
        let source = source.into();
        if is_permanent || (PERMANENT.contains(&code) && !is_other) {
            return Err(DispatchError::Permanent {
                action: ACTION,
                status,
                source,
            });
        }
        let retry_after = retry_after(headers, Some(now));
        Err(DispatchError::Transient {
            action: ACTION,
            retry_after,
            status,
            source,
        })
    }
}

/// Makes one printable line of an answer.
fn printable(excerpt: &[u8]) -> String {
    let text = String::from_utf8_lossy(excerpt);
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

/// Returns the error of a request without an answer.
pub(crate) fn from_error(error: SendError) -> DispatchError {
    DispatchError::transient(ACTION, error)
}
