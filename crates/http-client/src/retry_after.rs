//! How long an answer asks to wait.

use std::time::{Duration, SystemTime};

use http::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};

/// Longest wait that is passed on: a longer one would be as good as for ever. Those who wait have
/// a bound of their own.
const LONGEST_WAIT: Duration = Duration::from_hours(24 * 365);

/// Reads RFC 9110, section 10.2.3: seconds, or a date. A date is measured against the answer's
/// own, since its clock and ours may differ, or against `now` if the answer has none. Of several,
/// the longest wait counts.
pub fn retry_after(headers: &HeaderMap, now: Option<SystemTime>) -> Option<Duration> {
    let date = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let theirs = headers
        .get(DATE)
        .and_then(|value| date(value.to_str().ok()?));
    let now = theirs.or(now);
    let wait = |value: &HeaderValue| {
        let text = value.to_str().ok()?.trim();
        seconds(text).or_else(|| Some(date(text)?.duration_since(now?).unwrap_or_default()))
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
            retry_after(&headers, Some(now)),
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

    #[test]
    fn a_date_that_can_t_be_measured_says_nothing() {
        let later = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
        let headers = |lines: &[(&str, &str)]| {
            let lines = lines
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            lines.collect::<HeaderMap>()
        };
        assert_eq!(retry_after(&headers(&[later]), None), None);
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let minute = Some(Duration::from_secs(60));
        assert_eq!(retry_after(&headers(&[date, later]), None), minute);
    }
}
