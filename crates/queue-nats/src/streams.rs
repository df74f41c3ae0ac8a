//! The streams on the server as values, which code that reads or writes one is given.
//!
//! Events can lie in several streams, their shards. Today there is one: each use of
//! [`Shard::ONLY`] is a place to change for a second shard.

use std::fmt;

use async_nats::jetstream::message::StreamMessage;
use queue::{Position, PositionError};
use serde_json::json;

use crate::api::{self, ApiError};
use crate::connect::NatsConnection;

/// The name of a stream. Other programs read these streams: a change of one is a change of a
/// public format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(&'static str);

/// Deliveries that wait for their time, and those whose time has come.
pub(crate) const RETRIES: StreamName = StreamName("FLUENT_RETRIES");
/// Dead letters.
pub(crate) const DEAD: StreamName = StreamName("FLUENT_DEAD");
/// Genuine bodies that are not events.
pub(crate) const QUARANTINE: StreamName = StreamName("FLUENT_QUARANTINE");
/// Attempts that have ended.
pub(crate) const ATTEMPTS: StreamName = StreamName("FLUENT_ATTEMPTS");
/// Attempts that began, in memory.
pub(crate) const INFLIGHT: StreamName = StreamName("FLUENT_INFLIGHT");
/// Webhooks that were rejected, perhaps wrongly.
pub(crate) const REFUSED: StreamName = StreamName("FLUENT_REFUSED");
/// Small facts that are found by their names.
pub(crate) const MARKS: StreamName = StreamName("FLUENT_MARKS");
/// Facts about reconciled events, in a stream of their own: they are many, and must not take the
/// room of the others.
pub(crate) const RECONCILED: StreamName = StreamName("FLUENT_RECONCILED");
/// The event that a route delivers of those with the same id, for routes that want only one: as
/// many facts as events.
pub(crate) const SAME_IDS: StreamName = StreamName("FLUENT_SAME_IDS");
/// Jobs of people: what they do, how far they are, and what they could not do.
pub(crate) const JOBS: StreamName = StreamName("FLUENT_JOBS");

/// Events by shard, until every route has settled them.
const EVENTS: [StreamName; 1] = [StreamName("FLUENT_EVENTS")];

impl StreamName {
    /// The name on the server.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Returns the shard whose events it has; `None` if it has something else.
    pub(crate) fn shard(self) -> Option<Shard> {
        let shard = EVENTS.iter().position(|events| *events == self)?;
        u8::try_from(shard).ok().map(Shard)
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A shard that has a stream here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard(u8);

impl Shard {
    /// The only shard there is.
    pub(crate) const ONLY: Self = Self(0);

    /// Returns the shard of a position; `None` if it has no stream here.
    pub(crate) fn of(position: Position) -> Option<Self> {
        let shard = position.shard();
        (usize::from(shard) < EVENTS.len()).then_some(Self(shard))
    }

    /// Returns its stream of events.
    pub(crate) const fn events(self) -> StreamName {
        EVENTS[self.0 as usize]
    }

    /// Returns the position of a sequence in its stream.
    pub(crate) const fn position(self, sequence: u64) -> Result<Position, PositionError> {
        Position::new(self.0, sequence)
    }
}

/// Reads the event at `position`; `None` if there is none.
pub(crate) async fn event_at(
    link: &NatsConnection,
    position: Position,
) -> Result<Option<StreamMessage>, ApiError> {
    let Some(shard) = Shard::of(position) else {
        return Ok(None);
    };
    api::get_message(link, shard.events(), &json!({ "seq": position.sequence() })).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_events_is_that_of_its_shard_and_others_have_none() {
        assert_eq!(Shard::ONLY.events().as_str(), "FLUENT_EVENTS");
        assert_eq!(Shard::ONLY.events().shard(), Some(Shard::ONLY));
        assert_eq!(RETRIES.shard(), None);
    }

    #[test]
    fn a_sequence_is_a_position_of_its_shard() {
        let position = Shard::ONLY.position(7).unwrap();
        assert_eq!((position.shard(), position.sequence()), (0, 7));
        assert_eq!(Shard::of(position), Some(Shard::ONLY));
        assert_eq!(
            Shard::of(Position::new(1, 7).unwrap()),
            None,
            "it has no stream here"
        );
        assert!(Shard::ONLY.position(u64::MAX).is_err());
    }
}
