//! What an endpoint's answer means.

use std::time::{Duration, SystemTime};

use dispatch::{DispatchError, Done};
use reqwest::Response;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

const ACTION: &str = "posting to the endpoint";

/// Statuses that say that this very request will never be taken. Anything
/// else is tried again: an expired token or a bad deploy must not bury a
/// thousand events.
const PERMANENT: [u16; 5] = [400, 410, 413, 415, 422];

#[derive(Debug, thiserror::Error)]
#[error("the endpoint answered {0}")]
struct Answered(u16);

pub(crate) fn from_response(response: &Response) -> Result<Done, DispatchError> {
    let status = response.status().as_u16();
    let source = Answered(status).into();
    let status = Some(status);
    if response.status().is_success() {
        return Ok(Done { status });
    }
    if status.is_some_and(|status| PERMANENT.contains(&status)) {
        return Err(DispatchError::Permanent { action: ACTION, status, source });
    }
    let retry_after = retry_after(response.headers());
    Err(DispatchError::Transient { action: ACTION, retry_after, status, source })
}

/// No answer at all. The URL is taken out: it may hold a secret.
pub(crate) fn from_error(error: reqwest::Error) -> DispatchError {
    DispatchError::transient(ACTION, error.without_url())
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
