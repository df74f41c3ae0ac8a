//! Conversion of points and lengths of time between the contract's types and ours.

use std::time::Duration;

use event_model::Timestamp;

/// The message for a point in time.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let mut seconds = at.as_second();
    let mut nanos = at.subsec_nanosecond();
    // The fraction of ours counts towards zero, that of the message always forward.
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

/// The point in time of a message. `None` if it is outside the calendar.
pub fn timestamp_of(at: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// The message for a length of time, at most some 290 thousand million years.
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or_default(),
    }
}

/// The length of time of a message. `None` if it is negative.
pub fn duration_of(length: &prost_types::Duration) -> Option<Duration> {
    Duration::try_from(*length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str) {
        let at: Timestamp = text.parse().unwrap();
        assert_eq!(timestamp_of(&timestamp(at)), Some(at));
        assert!(timestamp(at).nanos >= 0);
    }

    #[test]
    fn times_come_back_as_they_went() {
        check("2026-11-25T08:00:00.123456789Z");
        check("1969-12-31T23:59:59.75Z");
        assert_eq!(
            duration_of(&duration(Duration::from_millis(1500))),
            Some(Duration::from_millis(1500))
        );
    }

    #[test]
    fn what_is_no_time_is_none() {
        assert_eq!(
            timestamp_of(&prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: 0
            }),
            None
        );
        assert_eq!(
            duration_of(&prost_types::Duration {
                seconds: -1,
                nanos: 0
            }),
            None
        );
    }
}
