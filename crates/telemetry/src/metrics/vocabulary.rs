//! Every metric of the product, in the order in which an event meets it.

use super::instrument::{Counter, Gauge, Histogram, InstrumentKind, Metric};

macro_rules! vocabulary {
    ($($name:ident: $kind:ident<$count:literal> = $text:literal, $unit:literal, $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $name: $kind<$count> = $kind::new($text, $unit, &$labels, $help);
        )*

        /// The vocabulary: what we measure, then what OpenTelemetry adds.
        pub fn all() -> Vec<Metric> {
            vec![$($name.metric,)* SPANS_PROCESSED]
        }
    };
}

vocabulary! {
    ACCEPTED: Counter<2> = "fluent.webhooks.accepted", "{webhook}", ["environment", "account"],
        "Webhooks answered 200 and durable, duplicates left out.";
    DUPLICATES: Counter<2> = "fluent.webhooks.duplicate", "{webhook}", ["environment", "account"],
        "Webhooks answered 200 that were there before.";
    SAME_ID: Counter<2> = "fluent.webhooks.same_id", "{webhook}", ["environment", "account"],
        "Accepted webhooks whose account, Fluent id and name an earlier one had, with another body; of each process, among the last 65,536 at least.";
    REFUSED: Counter<1> = "fluent.webhooks.refused", "{request}", ["reason"],
        "Requests and connections that were not accepted, by the reason that the log has too.";
    REFUSED_KNOWN_CLIENT: Counter<1> = "fluent.webhooks.refused.known_client", "{request}", ["reason"],
        "Of these, for their signature or for want of room, those of an address that sent genuine webhooks in the last day.";
    QUARANTINED: Counter<1> = "fluent.webhooks.quarantined", "{webhook}", ["reason"],
        "Genuine webhooks that are not events, kept for a person and answered 200.";
    QUARANTINE_FULL: Counter<0> = "fluent.webhooks.quarantine.full", "{webhook}", [],
        "Of these, those for which the quarantine had no room, and that are held with what was refused.";
    VERIFIED: Counter<2> = "fluent.webhooks.verified", "{webhook}", ["key", "algorithm"],
        "Genuine webhooks, by the key that matched and the algorithm.";
    KEY_LAST_USED: Gauge<2> = "fluent.key.last_used", "s", ["key", "algorithm"],
        "When a key last verified a webhook, in seconds since 1970: one that rests can be taken out.";
    KEY_BITS: Gauge<1> = "fluent.key.size", "{bit}", ["key"],
        "Length of each key: below 2048 it is shorter than is advised today.";
    ANSWER_TIME: Histogram<2> = "http.server.request.duration", "s",
        ["http.request.method", "http.response.status_code"],
        "From a request's headers to its answer.";
    PUBLISH_TIME: Histogram<0> = "fluent.webhooks.publish.duration", "s", [],
        "From a genuine event to the moment in which a crash can no longer lose it.";

    RECONCILE_MISSING: Counter<3> = "fluent.reconcile.missing", "{event}", ["environment", "account", "sending"],
        "Events that Fluent logged and that never came, found by comparing, by what Fluent says of sending them: success, failed, other, no-setting, none, unknown.";
    RECONCILED: Counter<2> = "fluent.reconcile.admitted", "{event}", ["environment", "account"],
        "Of these, those that were admitted from Fluent's log.";
    RECONCILE_LAG: Gauge<2> = "fluent.reconcile.lag", "s", ["environment", "account"],
        "How much of Fluent's log has still to be compared.";

    LOGIN_REFUSED: Counter<2> = "fluent.api.login.refused", "{login}", ["environment", "account"],
        "Logins at Fluent's API that Fluent refused: wrong name, password or client, or a locked user.";
    LOGIN_BLOCKED_UNTIL: Gauge<2> = "fluent.api.login.blocked_until", "s", ["environment", "account"],
        "Until when nobody tries a login that Fluent refused twice, in seconds since 1970; 0 while it may be tried.";

    READY: Gauge<0> = "fluent.ready", "{state}", [],
        "1 while this process can do its work: make an event durable, or deliver one.";
    QUEUE_REACHABLE: Gauge<0> = "fluent.queue.reachable", "{state}", [],
        "1 while the queue itself answers, 0 while a spool or nobody stands in for it.";
    CLOCK_SKEW: Gauge<0> = "fluent.queue.clock.skew", "s", [],
        "How far this process's clock is ahead of the queue's servers; negative where it is behind.";
    DEDUP_WINDOW: Gauge<0> = "fluent.queue.dedup_window", "s", [],
        "For how long the queue knows an id, at least: a webhook that comes again later is stored again.";
    SAME_ID_WINDOW: Gauge<0> = "fluent.queue.same_id_window", "s", [],
        "For how long the queue knows, at least, which of several events of one Fluent id a route with `same-id: skip` has delivered. Shown by `serve` and `fluent-operator`.";
    FORGED: Counter<0> = "fluent.queue.forged", "{message}", [],
        "Messages in the queue's streams that nobody admitted: kept apart, and not delivered.";
    KEY_UNKNOWN: Counter<0> = "fluent.queue.key_unknown", "{delivery}", [],
        "How often a delivery waited since its key is not among this process's.";
    SPOOL_EVENTS: Gauge<0> = "fluent.spool.events", "{event}", [],
        "Events in this gateway's spool that the queue does not have yet.";
    SPOOL_AGE: Gauge<0> = "fluent.spool.oldest.age", "s", [],
        "How long the oldest of them has been there.";
    SPOOL_BYTES: Gauge<0> = "fluent.spool.size", "By", [],
        "Bytes of bodies in the spool, also of events that the queue has and that are kept a while longer.";

    FORWARDED: Counter<0> = "fluent.spool.forwarded", "{event}", [],
        "Events that reached the queue after they were answered for, by way of the spool.";

    QUEUE_SERVERS: Gauge<1> = "fluent.queue.servers", "{server}", ["state"],
        "Servers of the queue that are `well`, `behind` or `gone`. Shown by `fluent-operator`.";
    QUEUE_USAGE: Gauge<1> = "fluent.queue.usage", "1", ["store"],
        "How full a store is of what nothing may remove yet. Shown by `serve` and `fluent-operator`.";

    JOBS_STUCK: Gauge<0> = "fluent.jobs.stuck", "{job}", [],
        "Jobs that failed within a day, that nobody has gone on with for 15 minutes, or that have been paused for a day. Shown by `serve` and `fluent-operator`.";

    ROUTE_BEHIND: Gauge<1> = "fluent.route.behind", "{event}", ["route"],
        "Events that the route has not looked at yet.";
    ROUTE_WAITING: Gauge<1> = "fluent.route.waiting", "{delivery}", ["route"],
        "Deliveries that wait for another attempt.";
    ROUTE_IN_FLIGHT: Gauge<1> = "fluent.route.in_flight", "{delivery}", ["route"],
        "Deliveries that are being attempted, by any process.";
    ROUTE_OLDEST: Gauge<1> = "fluent.route.oldest.age", "s", ["route"],
        "How long ago the oldest event came in that the route has still to deliver; 0 where there is none.";
    ROUTE_DEAD: Gauge<1> = "fluent.route.dead_letters", "{delivery}", ["route"],
        "Dead letters that wait for a person.";
    ROUTE_PAUSED: Gauge<1> = "fluent.route.paused", "{state}", ["route"],
        "1 while a person holds the route.";
    ROUTE_WORKING: Gauge<1> = "fluent.route.processes", "{process}", ["route"],
        "Processes that say that they run the route.";
    ROUTE_BREAKER: Gauge<1> = "fluent.route.breaker", "{state}", ["route"],
        "Whether the destination is asked: 0 it is, 1 one attempt at a time, 2 a process leaves it alone.";
    ROUTE_THROTTLED: Gauge<1> = "fluent.route.throttled", "{state}", ["route"],
        "1 while the route's rate holds attempts back in a process.";
    ROUTE_CONFLICT: Gauge<1> = "fluent.route.conflict", "{process}", ["route"],
        "Processes that have left the route's new events for five minutes to a service with another match of it.";
    PENDING_REVIEW: Gauge<1> = "fluent.pending_review", "{webhook}", ["store"],
        "Webhooks that wait for a person, beside dead letters: in `quarantine` (counted to 1000) and `refused`. Shown by `serve` and `fluent-operator`.";

    ATTEMPTS: Counter<2> = "fluent.attempts", "{attempt}", ["route", "outcome"],
        "Attempts that ended, by outcome.";
    ATTEMPT_TIME: Histogram<1> = "fluent.attempt.duration", "s", ["route"],
        "From handing an event to its dispatcher to the answer.";
    DELIVERY_TIME: Histogram<1> = "fluent.delivery.duration", "s", ["route"],
        "From accepting an event to its delivery, over all attempts.";
    DEAD_LETTERS: Counter<2> = "fluent.dead_letters", "{delivery}", ["route", "reason"],
        "Deliveries given up, and kept as dead letters.";
    SKIPPED: Counter<2> = "fluent.attempts.skipped", "{attempt}", ["route", "reason"],
        "Attempts that asked no destination, since it need not have the event: moved-on, reconciled, same-id, not-matched.";
    UNSETTLED: Counter<1> = "fluent.attempts.unsettled", "{attempt}", ["route"],
        "Attempts whose end could not be recorded: their events come again.";

    DISK_USAGE: Gauge<1> = "fluent.disk.usage", "1", ["path"],
        "How full the disk is that the process writes to.";
    CERTIFICATE_EXPIRY: Gauge<1> = "fluent.certificate.expiry", "s", ["file"],
        "When a certificate of the process ends, in seconds since 1970.";
    SILENT: Gauge<2> = "fluent.webhooks.silent", "{event}", ["environment", "account"],
        "Kinds of events that came on each of the last seven days at this time, and do not come today: `status` names them.";

    MEMORY: Gauge<0> = "process.memory.usage", "By", [],
        "Memory of the process that is in use.";
    DESCRIPTORS: Gauge<0> = "process.unix.file_descriptor.count", "{file_descriptor}", [],
        "Open files and connections.";
    CPU_TIME: Gauge<0> = "fluent.process.cpu.time", "s", [],
        "Processor time since the process began.";
    STARTED_AT: Gauge<0> = "fluent.process.started", "s", [],
        "When the process began, in seconds since 1970.";
    TASKS: Gauge<0> = "fluent.runtime.tasks", "{task}", [],
        "Tasks that are alive in the runtime.";
    RUNTIME_QUEUE_DEPTH: Gauge<0> = "fluent.runtime.queue_depth", "{task}", [],
        "Tasks that wait for a worker.";
    EXPORTS_FAILED: Counter<1> = "fluent.telemetry.exports.failed", "{export}", ["signal"],
        "Exports of `traces` or `metrics` that the collector did not take.";
}

/// A counter that OpenTelemetry itself increases.
const SPANS_PROCESSED: Metric = Metric {
    name: "otel.sdk.processor.span.processed",
    shape: InstrumentKind::Counter,
    unit: "{span}",
    labels: &["otel.component.name", "otel.component.type", "error.type"],
    help: "Spans that were handed to the collector; with an `error.type`, dropped: `queue_full` where it is too slow.",
};
