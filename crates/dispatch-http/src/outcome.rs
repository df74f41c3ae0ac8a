//! What an endpoint's answer means.

use std::time::{Duration, SystemTime};

use dispatch::{BoxError, DispatchError, Done, Excerpt};
use http::StatusCode;
use http::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::client::SendError;
use crate::settings::StatusSettings;

const ACTION: &str = "posting to the endpoint";

/// Statuses that say that this very request will never be taken. Anything
/// else is tried again: an expired token or a bad deploy must not bury a
/// thousand events.
const PERMANENT: [u16; 5] = [400, 410, 413, 415, 422];

/// What an endpoint said.
#[derive(Debug, thiserror::Error)]
enum Answered {
    #[error("the endpoint answered {0}")]
    Status(u16),
    #[error("the endpoint answered {0}")]
    Excerpt(u16, #[source] Excerpt),
}

/// Longest excerpt, in bytes: the history has room for no more.
const LONGEST: usize = 400;

/// What a route takes statuses to mean.
#[derive(Debug)]
pub(crate) struct Statuses {
    settings: StatusSettings,
    excerpt: usize,
}

impl Statuses {
    pub(crate) fn new(settings: &StatusSettings, excerpt: usize) -> Result<Self, BoxError> {
        let StatusSettings { done, again, permanent } = settings;
        let all: Vec<u16> = [&done[..], again, permanent].concat();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() < all.len() || all.iter().any(|status| !(200..600).contains(status)) {
            return Err("statuses: expected numbers from 200 to 599, each in one list only".into());
        }
        if excerpt > LONGEST {
            return Err(format!("excerpt: expected at most {LONGEST} bytes").into());
        }
        Ok(Self { settings: settings.clone(), excerpt })
    }

    /// Bytes of an answer to keep.
    pub(crate) fn excerpt(&self) -> usize {
        self.excerpt
    }

    /// Whether this status says that it is done.
    pub(crate) fn is_done(&self, status: StatusCode) -> bool {
        let StatusSettings { done, again, permanent } = &self.settings;
        let code = status.as_u16();
        done.contains(&code) || (status.is_success() && !permanent.contains(&code) && !again.contains(&code))
    }

    /// What an answer means, and what is kept of it if it is a failure.
    pub(crate) fn outcome(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        excerpt: &[u8],
    ) -> Result<Done, DispatchError> {
        let code = status.as_u16();
        let StatusSettings { again, permanent, .. } = &self.settings;
        let is_permanent = permanent.contains(&code);
        let is_other = is_permanent || again.contains(&code);
        if self.is_done(status) {
            return Ok(Done::with_status(code));
        }
        let source = if excerpt.is_empty() {
            Answered::Status(code)
        } else {
            Answered::Excerpt(code, Excerpt(printable(excerpt)))
        };
        let (status, source) = (Some(code), source.into());
        if is_permanent || (PERMANENT.contains(&code) && !is_other) {
            return Err(DispatchError::Permanent { action: ACTION, status, source });
        }
        let retry_after = retry_after(headers);
        Err(DispatchError::Transient { action: ACTION, retry_after, status, source })
    }
}

/// One line, whatever it was.
fn printable(excerpt: &[u8]) -> String {
    let text = String::from_utf8_lossy(excerpt);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

/// No answer at all.
pub(crate) fn from_error(error: SendError) -> DispatchError {
    DispatchError::transient(ACTION, error)
}

/// RFC 9110, section 10.2.3: seconds, or a date. A date is measured against
/// the answer's own, since its clock and ours may differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let at: SystemTime = date(text)?;
    let now = date(headers.get(DATE)?.to_str().ok()?)?;
    at.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[(&'static str, &'static str)], expected: Option<u64>) {
        let headers =
            lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        assert_eq!(retry_after(&headers), expected.map(Duration::from_secs));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        check(&[("retry-after", "120")], Some(120));
        let (date, later) =
            (("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT"));
        check(&[date, later], Some(60));
        check(&[later], None);
        check(&[("retry-after", "-5")], None);
        check(&[("retry-after", "soon")], None);
        check(&[], None);
    }
}
