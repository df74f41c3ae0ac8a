//! The meaning of an endpoint's answer.

use std::time::{Duration, SystemTime};

use dispatch::{BoxError, DispatchError, Done, Excerpt};
use http::StatusCode;
use http::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};

use crate::settings::StatusSettings;
use http_client::SendError;

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

/// Longest wait that is passed on: a longer one would be as good as for ever. The route has a
/// bound of its own.
const LONGEST_WAIT: Duration = Duration::from_hours(24 * 365);

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
        let retry_after = retry_after(headers, now);
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

/// Reads RFC 9110, section 10.2.3: seconds, or a date. A date is measured against the answer's
/// own, since its clock and ours may differ, or against ours if the answer has none. Of several,
/// the longest wait counts.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let theirs = headers
        .get(DATE)
        .and_then(|value| date(value.to_str().ok()?));
    let now = theirs.unwrap_or(now);
    let wait = |value: &HeaderValue| {
        let text = value.to_str().ok()?.trim();
        seconds(text).or_else(|| Some(date(text)?.duration_since(now).unwrap_or_default()))
    };
    headers
        .get_all(RETRY_AFTER)
        .iter()
        .filter_map(wait)
        .max()
        .map(|wait| wait.min(LONGEST_WAIT))
}

/// Reads whole seconds, as the field is defined, and also the fractions and the huge numbers that
/// some servers write.
fn seconds(text: &str) -> Option<Duration> {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit());
    let seconds = text.parse::<f64>().ok().filter(|_| is_number)?;
    Some(Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[(&'static str, &'static str)], expected: Option<u64>) {
        let headers = lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(
            retry_after(&headers, now),
            expected.map(Duration::from_secs),
            "{lines:?}"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        check(&[("retry-after", "120")], Some(120));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let later = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
        check(&[date, later], Some(60));
        check(&[later], Some(60));
        check(&[("date", "soon"), later], Some(60));
        // The endpoint's clock is two minutes ahead of ours; a time in the past means at once.
        check(
            &[
                ("date", "Sun, 06 Nov 1994 08:51:37 GMT"),
                ("retry-after", "Sun, 06 Nov 1994 08:52:00 GMT"),
            ],
            Some(23),
        );
        check(
            &[date, ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")],
            Some(0),
        );
        check(&[("retry-after", "-5")], None);
        check(&[("retry-after", "soon")], None);
        for (text, expected) in [
            ("0", 0),
            ("007", 7),
            ("1.5", 2),
            ("2.0", 2),
            ("1e3", 1000),
            (" 5 ", 5),
        ] {
            check(&[("retry-after", text)], Some(expected));
        }
        for huge in ["99999999999999999999", "1e400", "18446744073709551615"] {
            check(&[("retry-after", huge)], Some(365 * 24 * 3600));
        }
        for none in ["inf", "nan", "", "+", "-0", "0x10", "1,5", "120 s"] {
            check(&[("retry-after", none)], None);
        }
        check(
            &[
                ("retry-after", "5"),
                ("retry-after", "60"),
                ("retry-after", "soon"),
            ],
            Some(60),
        );
        check(&[], None);
    }
}
