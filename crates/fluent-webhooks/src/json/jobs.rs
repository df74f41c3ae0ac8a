//! Jobs, what they are about, and what they could not do.

use proto::v1;
use proto::v1::job_spec::Act;
use schemars::JsonSchema;
use serde::Serialize;

use super::{UtcTime, position, text};

/// A bulk act, as a record.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    /// What names it: 12 hexadecimal digits.
    id: String,
    /// `redrive`, `discard`, `replay`, `recheck-quarantined` or `admit-refused`.
    act: Option<String>,
    /// `waiting`, `running`, `paused`, `done`, `cancelled` or `failed`.
    state: String,
    /// Why it is paused or failed, or what it waits for.
    detail: Option<String>,
    /// Who made it.
    created_by: String,
    /// Why, in that person's words.
    reason: String,
    /// Which items.
    filter: JobFilter,
    /// The route that gets them, where one was named.
    to: Option<String>,
    /// Of a replay: also what the route is done with.
    again: bool,
    /// Most items in a second.
    rate: Option<u32>,
    /// How many there were when it was made.
    total: u64,
    succeeded: u64,
    /// How many failed: each stays as it was. `jobs failures` has them.
    failed: u64,
    /// How many were left out, since there was nothing to do, or somebody else did it.
    skipped: u64,
    /// How many were left out, since it is no longer known what became of them.
    unknown: u64,
    /// Why the first that failed did.
    first_error: Option<String>,
    /// The numbers of those that were changed, in ranges, as `1-3, 7`; for `jobs show`.
    succeeded_ids: Option<String>,
    created_at: Option<UtcTime>,
    started_at: Option<UtcTime>,
    ended_at: Option<UtcTime>,
    updated_at: Option<UtcTime>,
    /// `<host>:<process id>` of the process that works on it.
    executor: Option<String>,
    /// Ten of what was counted at most.
    samples: Vec<JobItem>,
}

/// Which items a job is about: what is `null` leaves out nothing.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobFilter {
    /// Events that no route matched, instead of dead letters of routes.
    unrouted: bool,
    route: Option<String>,
    /// The event's name.
    event: Option<String>,
    account: Option<String>,
    /// An entityRef or a rootEntityRef.
    reference: Option<String>,
    reason: Option<String>,
    since: Option<UtcTime>,
    until: Option<UtcTime>,
}

/// One item of a job.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobItem {
    /// Its number; of a replay `null`.
    number: Option<u64>,
    /// Of a replay: the event's position.
    position: Option<String>,
    event_id: Option<String>,
    /// The event's name.
    event: Option<String>,
    account: Option<String>,
    /// `<entityType>/<entityRef>`.
    entity: Option<String>,
    route: Option<String>,
    reason: Option<String>,
    occurred_at: Option<UtcTime>,
}

/// An item that a job could not do.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobFailure {
    /// Its number; of a replay `null`.
    number: Option<u64>,
    /// Of a replay: the event's position.
    position: Option<String>,
    /// Why, in words.
    error: String,
}

/// The word for what a job does.
pub(crate) fn act(job: &v1::Job) -> Option<&'static str> {
    let act = job.spec.as_ref()?.act.as_ref()?;
    Some(match act {
        Act::Redrive(_) => "redrive",
        Act::Discard(_) => "discard",
        Act::Replay(_) => "replay",
        Act::RecheckQuarantined(_) => "recheck-quarantined",
        Act::AdmitRefused(_) => "admit-refused",
    })
}

/// An item's number, or else its position.
fn number(is_replay: bool, id: u64) -> (Option<u64>, Option<String>) {
    match is_replay {
        true => (None, Some(position(id))),
        false => (Some(id), None),
    }
}

impl From<&v1::Job> for Job {
    fn from(job: &v1::Job) -> Self {
        let counts = job.progress.clone().unwrap_or_default();
        let asked = job.spec.as_ref().and_then(|spec| spec.act.as_ref());
        let act = act(job);
        let is_replay = act == Some("replay");
        let (to, again) = match asked {
            Some(Act::Redrive(redrive)) => (text(&redrive.to), false),
            Some(Act::Replay(replay)) => (text(&replay.route), replay.again),
            _ => (None, false),
        };
        Self {
            id: job.id.clone(),
            act: act.map(str::to_owned),
            state: job.state.clone(),
            detail: text(&job.detail),
            created_by: job.created_by.clone(),
            reason: job.reason.clone(),
            filter: asked.map(JobFilter::from).unwrap_or_default(),
            to,
            again,
            rate: (job.rate > 0).then_some(job.rate),
            total: counts.total,
            succeeded: counts.succeeded,
            failed: counts.failed,
            skipped: counts.skipped,
            unknown: counts.unknown,
            first_error: text(&counts.first_error),
            succeeded_ids: text(&job.succeeded_ids),
            created_at: UtcTime::of(job.created_at.as_ref()),
            started_at: UtcTime::of(job.started_at.as_ref()),
            ended_at: UtcTime::of(job.ended_at.as_ref()),
            updated_at: UtcTime::of(job.updated_at.as_ref()),
            executor: text(&job.executor),
            samples: job
                .samples
                .iter()
                .map(|item| JobItem::new(is_replay, item))
                .collect(),
        }
    }
}

impl From<&Act> for JobFilter {
    fn from(act: &Act) -> Self {
        match act {
            Act::Redrive(v1::RedriveJob { filter, .. })
            | Act::Discard(v1::DiscardJob { filter }) => {
                let filter = filter.clone().unwrap_or_default();
                Self {
                    unrouted: filter.unrouted,
                    route: text(&filter.route),
                    event: text(&filter.event),
                    account: text(&filter.account),
                    reference: text(&filter.reference),
                    reason: text(&filter.reason),
                    since: UtcTime::of(filter.since.as_ref()),
                    until: UtcTime::of(filter.until.as_ref()),
                }
            }
            Act::Replay(replay) => Self {
                event: text(&replay.event),
                account: text(&replay.account),
                reference: text(&replay.reference),
                since: UtcTime::of(replay.from.as_ref()),
                until: UtcTime::of(replay.until.as_ref()),
                ..Self::default()
            },
            Act::RecheckQuarantined(recheck) => Self {
                since: UtcTime::of(recheck.since.as_ref()),
                until: UtcTime::of(recheck.until.as_ref()),
                ..Self::default()
            },
            Act::AdmitRefused(admit) => Self {
                account: text(&admit.account),
                reason: text(&admit.reason),
                since: UtcTime::of(admit.since.as_ref()),
                until: UtcTime::of(admit.until.as_ref()),
                ..Self::default()
            },
        }
    }
}

impl JobItem {
    fn new(is_replay: bool, item: &v1::JobItem) -> Self {
        let (number, position) = number(is_replay, item.id);
        Self {
            number,
            position,
            event_id: text(&item.event_id),
            event: text(&item.event),
            account: text(&item.account),
            entity: text(&item.entity),
            route: text(&item.route),
            reason: text(&item.reason),
            occurred_at: UtcTime::of(item.occurred_at.as_ref()),
        }
    }
}

impl JobFailure {
    /// A failure of a job.
    pub(crate) fn new(is_replay: bool, failure: &v1::JobFailure) -> Self {
        let (number, position) = number(is_replay, failure.id);
        Self {
            number,
            position,
            error: failure.error.clone(),
        }
    }
}
