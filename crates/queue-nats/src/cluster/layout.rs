//! The layout: every stream of a cluster, with its limits.

use std::time::Duration;

use queue::same_id::SAME_IDS_KEPT;
use queue::{MARKED_FOR, REFUSED_BYTES, REFUSED_FOR};

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::consuming::OF_BLOCK;
use crate::names::{
    ATTEMPTS_SUBJECT, DEAD_SUBJECT, EVENTS_SUBJECT, INFLIGHT_SUBJECT, JOBS_SUBJECT, MARKS_SUBJECT,
    QUARANTINE_SUBJECT, RECONCILED_SUBJECT, REFUSED_SUBJECT, RETRIES_SUBJECT, SAME_IDS_SUBJECT,
};
use crate::options::Layout;
use crate::streams::{
    ATTEMPTS, DEAD, INFLIGHT, JOBS, MARKS, QUARANTINE, RECONCILED, REFUSED, RETRIES, SAME_IDS,
    Shard, StreamName,
};

/// Every stream and its purpose.
pub(crate) const STREAMS: [(StreamName, &str); 11] = [
    (
        Shard::ONLY.events(),
        "events, until every route has settled them",
    ),
    (RETRIES, "deliveries that wait for their next attempt"),
    (DEAD, "dead letters"),
    (QUARANTINE, "genuine bodies that are not events"),
    (ATTEMPTS, "what happened in every attempt"),
    (INFLIGHT, "attempts that began, in the servers' memory"),
    (
        REFUSED,
        "webhooks that were refused, and may have been refused wrongly",
    ),
    (
        MARKS,
        "small facts by name: how far spools are drained, who runs",
    ),
    (
        RECONCILED,
        "which events were reconciled, and which of them routes have delivered",
    ),
    (
        SAME_IDS,
        "which event of several with one id a route delivers",
    ),
    (JOBS, "bulk acts of people, and what became of each item"),
];

/// Largest message: a body of 2 MiB, its headers, and room for a group of attempts.
pub(crate) const MAX_MESSAGE: i32 = 3 << 20;

/// Room for a few hundred thousand reconciled events, at most; other facts are far fewer.
const MARKS_BYTES: u64 = 256 << 20;

/// Room for [`SAME_IDS_KEPT`] facts, each of which is a subject in the servers' memory.
const SAME_IDS_BYTES: u64 = 512 << 20;

/// Room for as many jobs, and failures of theirs, as an operator keeps.
const JOBS_BYTES: u64 = 128 << 20;

/// Most markers of attempts that began: those of a hundred thousand deliveries, 20 seconds of the
/// fastest dispatchers that were measured. An attempt that takes longer renews its marker. A
/// server keeps them in memory, of which `config/nats` gives it 64 MB.
const INFLIGHT_MARKS: i64 = 100_000;
const INFLIGHT_BYTES: u64 = 32 << 20;

/// Dedup window of retries, dead letters and groups of attempts: longer than anybody tries to
/// write one.
const WINDOW: Duration = Duration::from_mins(10);

/// Returns the configuration that a stream should have.
pub(crate) fn config(name: StreamName, layout: &Layout) -> Config {
    let base = Config {
        name: name.to_string(),
        num_replicas: layout.replicas,
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_message_size: MAX_MESSAGE,
        max_bytes: signed(layout.bytes),
        duplicate_window: WINDOW,
        allow_direct: true,
        ..Config::default()
    };
    match name {
        name if name.shard().is_some() => Config {
            subjects: vec![EVENTS_SUBJECT.to_owned()],
            duplicate_window: layout.dedup_window,
            allow_atomic_publish: true,
            ..base
        },
        RETRIES => Config {
            subjects: vec![RETRIES_SUBJECT.to_owned()],
            // A settled message is removed. Schedules imply rollup and can't be taken back.
            retention: RetentionPolicy::WorkQueue,
            // The server has schedules only with discard old, which would drop
            // what waits: so there is no limit to reach, and we stop before it.
            discard: DiscardPolicy::Old,
            max_bytes: -1,
            allow_message_schedules: true,
            allow_rollup: true,
            ..base
        },
        DEAD => Config {
            subjects: vec![DEAD_SUBJECT.to_owned()],
            ..base
        },
        QUARANTINE => Config {
            subjects: vec![QUARANTINE_SUBJECT.to_owned()],
            max_bytes: signed(layout.bytes / 10),
            duplicate_window: layout.dedup_window,
            ..base
        },
        REFUSED => Config {
            subjects: vec![REFUSED_SUBJECT.to_owned()],
            // The oldest make room: anybody can have a webhook rejected.
            discard: DiscardPolicy::Old,
            max_bytes: signed(REFUSED_BYTES),
            max_age: REFUSED_FOR,
            ..base
        },
        INFLIGHT => Config {
            subjects: vec![INFLIGHT_SUBJECT.to_owned()],
            storage: StorageType::Memory,
            max_messages_per_subject: OF_BLOCK,
            // The oldest make room, long after their attempts have ended.
            discard: DiscardPolicy::Old,
            max_bytes: signed(INFLIGHT_BYTES),
            max_messages: INFLIGHT_MARKS,
            max_age: layout.history,
            ..base
        },
        MARKS | RECONCILED => Config {
            subjects: vec![
                if name == MARKS {
                    MARKS_SUBJECT
                } else {
                    RECONCILED_SUBJECT
                }
                .to_owned(),
            ],
            max_messages_per_subject: 1,
            // None makes room for others: without its fact, a late webhook would be delivered as
            // well.
            max_bytes: signed((layout.bytes / 20).min(MARKS_BYTES)),
            max_age: MARKED_FOR,
            ..base
        },
        SAME_IDS => Config {
            subjects: vec![SAME_IDS_SUBJECT.to_owned()],
            max_messages_per_subject: 1,
            // The oldest make room: a route without a fact about an event delivers it.
            discard: DiscardPolicy::Old,
            max_bytes: signed((layout.bytes / 20).min(SAME_IDS_BYTES)),
            max_messages: i64::try_from(SAME_IDS_KEPT).unwrap_or(i64::MAX),
            max_age: layout.dedup_window,
            ..base
        },
        JOBS => Config {
            subjects: vec![JOBS_SUBJECT.to_owned()],
            max_messages_per_subject: 1,
            // None makes room for others: a job without its record would stop in the middle.
            max_bytes: signed((layout.bytes / 20).min(JOBS_BYTES)),
            max_age: MARKED_FOR,
            ..base
        },
        _ => Config {
            subjects: vec![ATTEMPTS_SUBJECT.to_owned()],
            // History makes room for itself; it must never stop a delivery.
            discard: DiscardPolicy::Old,
            max_bytes: signed(layout.bytes / 10),
            max_age: layout.history,
            ..base
        },
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
