//! Names of subjects and headers on the server. Other programs read these streams: a change here
//! is a change of a public format.

use queue::same_id::SAME_ID;

use crate::streams::{JOBS, MARKS, RECONCILED, SAME_IDS, StreamName};

pub(crate) const EVENTS_SUBJECT: &str = "fluent.events.>";
pub(crate) const RETRIES_SUBJECT: &str = "fluent.retries.>";
pub(crate) const DEAD_SUBJECT: &str = "fluent.dead.>";
pub(crate) const QUARANTINE_SUBJECT: &str = "fluent.quarantine.>";
pub(crate) const ATTEMPTS_SUBJECT: &str = "fluent.attempts.>";
pub(crate) const INFLIGHT_SUBJECT: &str = "fluent.inflight.>";
pub(crate) const REFUSED_SUBJECT: &str = "fluent.refused.>";
pub(crate) const MARKS_SUBJECT: &str = "fluent.marks.>";
pub(crate) const RECONCILED_SUBJECT: &str = "fluent.reconciled.>";
pub(crate) const SAME_IDS_SUBJECT: &str = "fluent.same-id.>";
pub(crate) const JOBS_SUBJECT: &str = "fluent.jobs.>";

/// Prefix of the subjects of facts about jobs.
const JOB_FACTS: &str = "fluent.jobs.";

/// Subject of the groups of attempts.
pub(crate) const ATTEMPTS_LOG: &str = "fluent.attempts.log";

/// Subject of the bodies in quarantine.
pub(crate) const QUARANTINE_BODIES: &str = "fluent.quarantine.bodies";

/// Subject of rejected webhooks.
pub(crate) const REFUSED_WEBHOOKS: &str = "fluent.refused.webhooks";

/// Returns the stream and the subject of a fact.
pub(crate) fn mark(name: &str) -> (StreamName, String) {
    match name.split_once('.') {
        // `reconciled.<key>` and `delivered.<route>.<key>`.
        Some(("reconciled", key)) => (RECONCILED, format!("fluent.reconciled.events.{key}")),
        Some(("delivered", _)) => (RECONCILED, format!("fluent.reconciled.{name}")),
        // `same-id.<route>.<key>`.
        Some((SAME_ID, _)) => (SAME_IDS, format!("fluent.{name}")),
        // `job.<id>`, `job-open.<id>`, `job-part.<id>.<n>`, `job-lease.executor`.
        Some(("job" | "job-open" | "job-part" | "job-lease", _)) => {
            (JOBS, format!("{JOB_FACTS}{name}"))
        }
        _ => (MARKS, format!("fluent.marks.{name}")),
    }
}

/// Returns the name of the fact with this subject, as the inverse of [`mark`].
pub(crate) fn marked(subject: &str) -> String {
    if let Some(key) = subject.strip_prefix("fluent.reconciled.events.") {
        return format!("reconciled.{key}");
    }
    if let Some(rest) = subject.strip_prefix("fluent.same-id.") {
        return format!("{SAME_ID}.{rest}");
    }
    let name = subject
        .strip_prefix("fluent.reconciled.")
        .or_else(|| subject.strip_prefix(JOB_FACTS))
        .or_else(|| subject.strip_prefix("fluent.marks."));
    name.unwrap_or(subject).to_owned()
}

/// Subject on which dispatchers are asked for the state of their routes. No stream has it.
pub(crate) const WORKING: &str = "fluent.working";

/// Prefix of a request on [`WORKING`] that a route's destination be tried at once.
pub(crate) const ASK_AGAIN: &str = "ask-again ";

/// Returns the subject on which they answer the question with this number. It is fixed here and
/// not taken from the question: the right to answer on any subject is a right to publish.
pub(crate) fn said(question: u64) -> String {
    format!("fluent.working.said.{question:016x}")
}

/// Returns the subject of a delivery that waits.
pub(crate) fn waiting(route: &str, delivery: &str) -> String {
    format!("fluent.retries.waiting.{route}.{delivery}")
}

/// Returns the subject on which a delivery comes when it is due.
pub(crate) fn due(route: &str, delivery: &str) -> String {
    format!("fluent.retries.due.{route}.{delivery}")
}

/// Wildcard for all deliveries of a route that wait or are due.
pub(crate) fn of_route(route: &str) -> String {
    format!("fluent.retries.*.{route}.>")
}

/// Returns the subject of a route's dead letters.
pub(crate) fn dead(route: &str) -> String {
    format!("fluent.dead.{route}")
}

/// Wildcard for all dead letters, and nothing else.
pub(crate) const DEAD_LETTERS: &str = "fluent.dead.*";

/// Returns the subject on which a replay takes its number, which is a position among the dead
/// letters. The message is no letter, and is removed.
pub(crate) fn replay(route: &str) -> String {
    format!("fluent.dead.replays.{route}")
}

/// Returns the subject that marks the delivery of message `sequence` of `stream` as attempted
/// exclusively.
pub(crate) fn alone(route: &str, stream: StreamName, sequence: u64) -> String {
    format!("fluent.attempts.alone.{route}.{stream}.{sequence}")
}

/// Returns the subject that marks that attempts of a block of messages of `stream` began.
pub(crate) fn inflight(route: &str, stream: StreamName, block: u64) -> String {
    format!("fluent.inflight.{route}.{stream}.{block}")
}

pub(crate) const HEADER_ID: &str = "ce-id";
pub(crate) const HEADER_TIME: &str = "ce-time";
pub(crate) const HEADER_TRACE: &str = "traceparent";
pub(crate) const HEADER_TRACE_STATE: &str = "tracestate";
pub(crate) const HEADER_KEY: &str = "fluent-key";
/// Marks a body in quarantine as taken out of the streams because it was not genuine.
pub(crate) const HEADER_FORGED: &str = "fluent-forged";
/// Digest of the key, which tells it from others of the same name.
pub(crate) const HEADER_KEY_DIGEST: &str = "fluent-key-digest";
pub(crate) const HEADER_ALGORITHM: &str = "fluent-algorithm";
pub(crate) const HEADER_SIGNATURE: &str = "fluent-signature";
pub(crate) const HEADER_ORIGIN: &str = "fluent-origin";
/// `entityType/entityRef` of the root entity, if there is one.
pub(crate) const HEADER_ROOT: &str = "fluent-root";
/// Fluent's own id of the event.
pub(crate) const HEADER_FLUENT_ID: &str = "fluent-event-id";
/// Key by which Fluent knows the event, in its log too: a digest of account, id and name.
pub(crate) const HEADER_LOG_KEY: &str = "fluent-log-key";
/// Marks an event that the queue had lost before.
pub(crate) const HEADER_REFED: &str = "fluent-refed";

pub(crate) const HEADER_ROUTE: &str = "fluent-route";
pub(crate) const HEADER_POSITION: &str = "fluent-position";
pub(crate) const HEADER_ATTEMPTS: &str = "fluent-attempts";
pub(crate) const HEADER_DEATHS: &str = "fluent-deaths";
/// Number of attempts that called the destination.
pub(crate) const HEADER_ASKED: &str = "fluent-asked";
pub(crate) const HEADER_ASKS_MATCH: &str = "fluent-asks-match";
pub(crate) const HEADER_FIRST: &str = "fluent-first-attempt";
pub(crate) const HEADER_REDRIVE: &str = "fluent-redrive";
/// Time at which it became a dead letter.
pub(crate) const HEADER_BURIED: &str = "fluent-buried";
pub(crate) const HEADER_REASON: &str = "fluent-reason";
pub(crate) const HEADER_DETAIL: &str = "fluent-detail";

/// Headers of a rejected webhook that may carry a signature: JSON, a list of names and values,
/// the values in base64.
pub(crate) const HEADER_HEADERS: &str = "fluent-headers";
/// Listed account that its body names.
pub(crate) const HEADER_ACCOUNT: &str = "fluent-account";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_has_one_place_and_is_called_there_as_it_was() {
        for (name, stream) in [
            ("spool.a", MARKS),
            ("pause.r", MARKS),
            ("reconciled.k", RECONCILED),
            ("delivered.r.k", RECONCILED),
            ("same-id.r.k", SAME_IDS),
            ("job.a", JOBS),
            ("job-part.a.0", JOBS),
        ] {
            let (found, subject) = mark(name);
            assert_eq!((found, marked(&subject).as_str()), (stream, name));
        }
    }
}
