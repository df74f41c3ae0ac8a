//! Times in the arguments of commands.

use std::str::FromStr;

use event_model::{Clock, SystemClock, Timestamp};

use crate::output;

/// A time from an argument: `2h` for two hours ago, or RFC 3339.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeArg(Timestamp);

impl FromStr for TimeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = humantime::parse_duration(text) {
            let then = SystemClock.now().checked_sub(ago);
            return then
                .map(Self)
                .map_err(|_| format!("{text} ago is before time began"));
        }
        let expected = "expected a time such as 2026-11-25T08:00:00Z, or 2h for two hours ago";
        text.parse().map(Self).map_err(|_| expected.to_owned())
    }
}

impl TimeArg {
    /// The time.
    pub(crate) fn time(self) -> Timestamp {
        self.0
    }

    /// This moment.
    pub(crate) fn now() -> Self {
        Self(SystemClock.now())
    }
}

/// The time as a message has it.
pub(crate) fn wire(when: Option<TimeArg>) -> Option<proto::Timestamp> {
    when.map(|when| grpc::timestamp(when.0))
}

/// The time for people: UTC, to the millisecond.
pub(crate) fn text(at: Option<&proto::Timestamp>) -> String {
    at.and_then(grpc::timestamp_of)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default()
}

/// The time in a table, with how long ago it was.
pub(crate) fn and_age(at: Option<&proto::Timestamp>) -> String {
    let now = SystemClock.now();
    at.and_then(grpc::timestamp_of)
        .map(|at| output::time_and_age(at, now))
        .unwrap_or_default()
}
