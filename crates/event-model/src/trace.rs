//! W3C's `traceparent`: the trace that an event belongs to.

use std::{fmt, str::FromStr};

/// W3C trace context: `00-<trace id>-<parent id>-<flags>`. Later versions are read as far as
/// version 00 goes, and continued as version 00.
/// <https://www.w3.org/TR/trace-context/#versioning-of-traceparent>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    parent: u64,
    flags: u8,
}

impl TraceParent {
    /// Makes one of a trace and the span in it that caused what follows; `None` if either is 0.
    pub fn new(trace: u128, parent: u64, sampled: bool) -> Option<Self> {
        (trace != 0 && parent != 0).then_some(Self {
            trace,
            parent,
            flags: u8::from(sampled),
        })
    }

    /// The trace's id: 32 hexadecimal digits, as in logs and answers.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The trace's id as a number.
    pub fn trace(&self) -> u128 {
        self.trace
    }

    /// The span's id as a number.
    pub fn span_id(&self) -> u64 {
        self.parent
    }

    /// Whether the trace is to be recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// Returns the same trace, continued by another span.
    pub fn child(&self, parent: u64) -> Self {
        Self { parent, ..*self }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.parent, self.flags
        )
    }
}

/// The error for a text that is not a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct InvalidTraceParent;

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(5, '-');
        let mut part = || parts.next().ok_or(InvalidTraceParent);
        let version = part()?;
        let trace = part()?;
        let parent = part()?;
        let flags = part()?;
        let version = hex_number(version, 2)?;
        // Later versions add fields behind another hyphen; version 255 is forbidden.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return Err(InvalidTraceParent);
        }
        let trace = hex_number(trace, 32)?;
        let parent = u64::try_from(hex_number(parent, 16)?).map_err(|_| InvalidTraceParent)?;
        let flags = hex_number(flags, 2)? & 1 == 1;
        Self::new(trace, parent, flags).ok_or(InvalidTraceParent)
    }
}

fn hex_number(text: &str, digits: usize) -> Result<u128, InvalidTraceParent> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != digits || !text.bytes().all(lower_hex) {
        return Err(InvalidTraceParent);
    }
    u128::from_str_radix(text, 16).map_err(|_| InvalidTraceParent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_same_text() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed: TraceParent = text.parse().unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(parsed.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        const KNOWN: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let expected: TraceParent = format!("00-{KNOWN}-01").parse().unwrap();
        for later in [
            "01-{}-01",
            "cc-{}-03",
            "fe-{}-ff-what-comes",
            "01-{}-01-",
            "01-{}-01-0a",
        ] {
            let text = later.replace("{}", KNOWN);
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!(
            expected.to_string(),
            format!("00-{KNOWN}-01"),
            "it is continued as version 00"
        );
        let unsampled: TraceParent = format!("cc-{KNOWN}-02").parse().unwrap();
        assert!(!unsampled.is_sampled());
        for bad in [
            "ff-{}-01",
            "00-{}-01-",
            "00-{}-01-a",
            "01-{}-01x",
            "01-{}-1",
            "0-{}-01",
            "AA-{}-01",
            "01-{}",
            "01-{}-01.a",
        ] {
            let text = bad.replace("{}", KNOWN);
            assert_eq!(
                text.parse::<TraceParent>(),
                Err(InvalidTraceParent),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_the_recommendation_refuses() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-000f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad}");
        }
    }
}
