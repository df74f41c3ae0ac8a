//! The position of an event: a shard of the log, and a sequence in it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::QueueError;

/// Bits of the packed form that hold the sequence; the shard is above them.
const SEQUENCE_BITS: u32 = 56;

/// The position of an event: a shard of the log, and a sequence in that shard.
///
/// A queue that is one log has shard 0 alone. Within a shard, positions rise with time;
/// between shards their order is arbitrary, and only good for sorting.
///
/// # Forms
///
/// * **Packed**, one `u64`: the shard in the top 8 bits, the sequence in the 56 below. This is
///   what the wire contract carries. Since a shard is at most 63, the sign bit of an `i64` stays
///   clear: SQLite has it as it is. In shard 0 the packed form *is* the sequence.
/// * **Text**: `1234` in shard 0, `3:1234` in shard 3. Headers, JSON and people get this one. It
///   is a string in JSON, since JavaScript rounds numbers above 2^53.
///
/// A number in JSON is read as the packed form: records that were written before positions had
/// shards are of shard 0.
///
/// ```
/// use fluent_queue::Position;
///
/// let position = Position::new(3, 1234)?;
/// assert_eq!(position.to_string(), "3:1234");
/// assert_eq!("3:1234".parse(), Ok(position));
/// assert_eq!(Position::from_packed(position.packed()), Ok(position));
///
/// assert_eq!(Position::new(0, 1234)?.to_string(), "1234");
/// assert!(Position::new(64, 1).is_err(), "there are 64 shards");
/// # Ok::<(), fluent_queue::PositionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// Reason why a value is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// The shard is above [`Position::MAX_SHARD`].
    #[error("shard {0} is too large: expected 0 to {max}", max = Position::MAX_SHARD)]
    Shard(u64),
    /// The sequence is above [`Position::MAX_SEQUENCE`].
    #[error("sequence {0} is too large: expected at most {max}", max = Position::MAX_SEQUENCE)]
    Sequence(u64),
    /// A position is never negative.
    #[error("{0} is negative: expected a position, 0 or more")]
    Negative(i64),
    /// The text has none of the two forms.
    #[error(
        "`{0}` is no position: expected a sequence such as `1234`, or shard and sequence such as `3:1234`"
    )]
    Text(String),
}

impl Position {
    /// The position before the first event of shard 0: where a reader begins that has read
    /// nothing.
    pub const START: Self = Self(0);

    /// The last of 64 shards: as many as there are buckets of entities.
    pub const MAX_SHARD: u8 = 63;

    /// The largest sequence of a shard: a million events a second for two thousand years.
    pub const MAX_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;

    /// Makes a position from a shard and a sequence; sequence 0 is before the first event.
    pub const fn new(shard: u8, sequence: u64) -> Result<Self, PositionError> {
        if shard > Self::MAX_SHARD {
            return Err(PositionError::Shard(shard as u64));
        }
        if sequence > Self::MAX_SEQUENCE {
            return Err(PositionError::Sequence(sequence));
        }
        Ok(Self((shard as u64) << SEQUENCE_BITS | sequence))
    }

    /// The shard.
    pub const fn shard(self) -> u8 {
        (self.0 >> SEQUENCE_BITS) as u8
    }

    /// The sequence in the shard; 0 is before the first event.
    pub const fn sequence(self) -> u64 {
        self.0 & Self::MAX_SEQUENCE
    }

    /// The packed form: shard and sequence in one number.
    pub const fn packed(self) -> u64 {
        self.0
    }

    /// The inverse of [`Position::packed`].
    pub const fn from_packed(packed: u64) -> Result<Self, PositionError> {
        Self::new((packed >> SEQUENCE_BITS) as u8, packed & Self::MAX_SEQUENCE)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard() {
            0 => write!(f, "{}", self.sequence()),
            shard => write!(f, "{shard}:{}", self.sequence()),
        }
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let wrong = || PositionError::Text(text.to_owned());
        let (shard, sequence) = match text.split_once(':') {
            Some((shard, sequence)) => (number(shard).ok_or_else(wrong)?, sequence),
            None => (0, text),
        };
        let sequence = number(sequence).ok_or_else(wrong)?;
        Self::new(
            u8::try_from(shard).map_err(|_| PositionError::Shard(shard))?,
            sequence,
        )
    }
}

/// Reads a number of digits alone, since `parse` would accept a plus sign too.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Position;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position, such as \"1234\" or \"3:1234\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Position, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, packed: u64) -> Result<Position, E> {
        Position::from_packed(packed).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Position, E> {
        let packed =
            u64::try_from(number).map_err(|_| E::custom(PositionError::Negative(number)))?;
        self.visit_u64(packed)
    }
}

/// Conversion for a store that returned a position which can't be one.
impl From<PositionError> for QueueError {
    fn from(error: PositionError) -> Self {
        Self::unavailable("reading a position", error)
    }
}

#[cfg(test)]
mod tests;
