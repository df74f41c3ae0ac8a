//! What `--json` prints, as types. `docs/json.md` has the rules that they follow, and
//! `docs/json` a schema for each command, which is generated from them.

mod backup;
mod changes;
mod checked;
mod events;
mod jobs;
mod letters;
mod local;
mod routes;
mod schemas;

use std::borrow::Cow;
use std::time::Duration;

use event_model::Timestamp;
use queue::Position;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

pub(crate) use self::backup::{BackedUpAudit, BackedUpQueue, BackedUpSpool, Backup};
pub(crate) use self::changes::{AuditEntry, BulkResult, Resumed, Retried};
pub(crate) use self::checked::{CheckedSettings, RetiredKey, SentPreview, TestedRoute, TriedLogin};
pub(crate) use self::events::{AcceptedEvent, Attempt, EventBody, EventHistory, SentTestEvent};
pub(crate) use self::jobs::{Job, JobFailure, act};
pub(crate) use self::letters::{DeadLetter, ExplainedWebhook, QuarantinedWebhook, RejectedWebhook};
pub(crate) use self::local::{
    ClusterState, ClusterStream, DrainedSpool, IndexState, MadeCertificates, Reconciled,
    RouteChange, RoutePortState, SalvagedFile, Spool, SpoolState, VerifiedWebhook,
};
pub(crate) use self::routes::{Process, Route, Server, Status, process_state};

/// A time as RFC 3339 in UTC.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct UtcTime(String);

impl UtcTime {
    /// The time of a message, if it has one that a calendar has.
    pub(crate) fn of(at: Option<&proto::Timestamp>) -> Option<Self> {
        at.and_then(grpc::timestamp_of).map(Self::from)
    }
}

impl From<Timestamp> for UtcTime {
    fn from(at: Timestamp) -> Self {
        Self(at.to_string())
    }
}

impl JsonSchema for UtcTime {
    fn schema_name() -> Cow<'static, str> {
        "UtcTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A time in UTC, as RFC 3339."
        })
    }
}

/// A length of time, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Seconds(f64);

impl Seconds {
    /// The length of a message, 0 if it has none.
    pub(crate) fn of(length: Option<&proto::Duration>) -> Self {
        length
            .and_then(grpc::duration_of)
            .unwrap_or_default()
            .into()
    }
}

impl From<Duration> for Seconds {
    fn from(length: Duration) -> Self {
        Self(length.as_secs_f64())
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number",
            "minimum": 0,
            "description": "A length of time, in seconds."
        })
    }
}

/// A position of the contract as text: `1234`, or `3:1234` in shard 3. A number that is no
/// position, as it is larger than any sequence, is shown as it is.
pub(crate) fn position(packed: u64) -> String {
    Position::from_packed(packed)
        .map_or_else(|_| packed.to_string(), |position| position.to_string())
}

/// The text, or nothing if it is empty.
pub(crate) fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_positions_as_strings() {
        assert_eq!(position(1234), "1234");
        assert_eq!(position(3 << 56 | 1234), "3:1234");
        assert_eq!(
            position(u64::MAX),
            u64::MAX.to_string(),
            "another server's, and no position"
        );
    }

    #[test]
    fn a_length_of_time_is_a_number_of_seconds() {
        let length = Seconds::from(Duration::from_millis(1_500));
        assert_eq!(serde_json::to_string(&length).unwrap(), "1.5");
    }
}
