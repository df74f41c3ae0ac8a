//! A webhook as it arrived, before anything in it is believed.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;

/// A webhook as it arrived: nothing in it is believed yet.
#[derive(Clone)]
pub struct Inbound {
    /// The raw bytes, exactly as received; signatures are over these.
    pub body: Bytes,
    /// The headers that may carry a signature.
    pub headers: Headers,
    /// The time at which the request's body was complete.
    pub received_at: Timestamp,
}

/// Shows the size, never the content: nothing of a webhook belongs in a log.
impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbound({} bytes, {:?})", self.body.len(), self.headers)
    }
}

/// Header lines in order of arrival, repeats included.
///
/// Values are bytes, so that the verifier refuses a header that is not text, instead of never
/// seeing it.
#[derive(Clone, Default)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// Adds one header line.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// Every value of the header called `name`, in any case of letters.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Every line, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_slice()))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        Self(
            lines
                .into_iter()
                .map(|(n, v)| (n.into(), v.into()))
                .collect(),
        )
    }
}
