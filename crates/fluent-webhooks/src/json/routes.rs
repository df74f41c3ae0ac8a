//! The state of routes, processes and servers, and `status`.

use event_model::Timestamp;
use proto::v1;
use queue::processes::ProcessSeen;
use schemars::JsonSchema;
use serde::Serialize;

use super::{UtcTime, position, text};

/// Where a route stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Route {
    /// Its name.
    route: String,
    /// Everything up to here was looked at: a sequence, or `<shard>:<sequence>`.
    position: String,
    /// Events behind that position, matching or not.
    behind: u64,
    /// Deliveries that wait for a retry.
    waiting: u64,
    in_flight: u64,
    dead_letters: u64,
    /// Whether a person holds its deliveries back.
    paused: bool,
    pause: Option<Pause>,
    /// Whether the settings of the server that answers have it.
    configured: bool,
    /// Each process that runs it.
    processes: Vec<RouteProcess>,
    /// All of this in a few words.
    summary: String,
}

/// Why a route's deliveries are held back.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Pause {
    /// When it ends by itself; `null` if somebody has to end it.
    until: Option<UtcTime>,
    reason: Option<String>,
    by: Option<String>,
}

/// What one process says of a route that it runs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RouteProcess {
    /// `<host>:<process id>`.
    process: String,
    /// `closed`, `open` or `half-open`.
    breaker: String,
    /// Open: not before this.
    open_until: Option<UtcTime>,
    /// Whether the route's rate holds attempts back.
    throttled: bool,
}

impl From<&v1::Route> for Route {
    fn from(route: &v1::Route) -> Self {
        Self {
            route: route.name.clone(),
            position: position(route.position),
            behind: route.behind,
            waiting: route.waiting,
            in_flight: route.in_flight,
            dead_letters: route.dead_letters,
            paused: route.paused,
            pause: route.pause.as_ref().map(Pause::from),
            configured: route.configured,
            processes: route.processes.iter().map(RouteProcess::from).collect(),
            summary: route.summary.clone(),
        }
    }
}

impl From<&v1::Pause> for Pause {
    fn from(pause: &v1::Pause) -> Self {
        Self {
            until: UtcTime::of(pause.until.as_ref()),
            reason: text(&pause.reason),
            by: text(&pause.by),
        }
    }
}

impl From<&v1::RouteProcess> for RouteProcess {
    fn from(process: &v1::RouteProcess) -> Self {
        Self {
            process: process.process.clone(),
            breaker: process.breaker.clone(),
            open_until: UtcTime::of(process.open_until.as_ref()),
            throttled: process.throttled,
        }
    }
}

/// Whether the product is well.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Nobody is needed now.
    well: bool,
    /// What somebody is needed for now, also at night.
    now: Vec<Problem>,
    /// What can wait until there is time.
    later: Vec<Problem>,
    /// The texts of both, the worst first.
    problems: Vec<String>,
    routes: Vec<Route>,
    processes: Vec<Process>,
    /// The servers behind the queue.
    servers: Vec<Server>,
    dead_letters: u64,
    unrouted: u64,
    /// Genuine webhooks that are not events; counting stops at 1000.
    quarantined: u64,
    /// Refused webhooks that are held.
    refused: u64,
    /// Length of their bodies.
    refused_bytes: u64,
    /// Of the server that answers.
    version: String,
}

/// Something that somebody should look at.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Problem {
    /// The name of its alert.
    alert: String,
    text: String,
    /// Its page of the runbook, from the top of the repository.
    runbook: String,
}

/// A process of the product, as it describes itself every 15 s.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    /// What `processes forget` takes.
    id: String,
    /// `gateway`, `dispatcher`, `serve`, `operator` or `reconciler`.
    kind: String,
    host: String,
    pid: u32,
    version: String,
    started_at: Option<UtcTime>,
    seen_at: Option<UtcTime>,
    /// `running`, `not-ready`, `closed`, or `gone`: it ended without saying so.
    state: String,
}

/// A server behind the queue.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Server {
    pub(crate) name: String,
    /// `well`, `behind` or `gone`.
    pub(crate) state: String,
}

impl From<&v1::GetStatusResponse> for Status {
    fn from(status: &v1::GetStatusResponse) -> Self {
        let problems = |problems: &[v1::Problem]| problems.iter().map(Problem::from).collect();
        Self {
            well: status.well,
            now: problems(&status.now),
            later: problems(&status.later),
            problems: status.problems.clone(),
            routes: status.routes.iter().map(Route::from).collect(),
            processes: status.processes.iter().map(Process::from).collect(),
            servers: status.servers.iter().map(Server::from).collect(),
            dead_letters: status.dead_letters,
            unrouted: status.unrouted,
            quarantined: status.quarantined,
            refused: status.refused,
            refused_bytes: status.refused_bytes,
            version: status.version.clone(),
        }
    }
}

impl From<&v1::Problem> for Problem {
    fn from(problem: &v1::Problem) -> Self {
        Self {
            alert: problem.alert.clone(),
            text: problem.text.clone(),
            runbook: problem.runbook.clone(),
        }
    }
}

impl From<&v1::Process> for Process {
    fn from(process: &v1::Process) -> Self {
        Self {
            id: process.id.clone(),
            kind: process.kind.clone(),
            host: process.host.clone(),
            pid: process.pid,
            version: process.version.clone(),
            started_at: UtcTime::of(process.started_at.as_ref()),
            seen_at: UtcTime::of(process.seen_at.as_ref()),
            state: process.state.clone(),
        }
    }
}

impl From<&v1::Server> for Server {
    fn from(server: &v1::Server) -> Self {
        Self {
            name: server.name.clone(),
            state: server.state.clone(),
        }
    }
}

impl Process {
    /// The process of a report, as it is now.
    pub(crate) fn seen(seen: &ProcessSeen, now: Timestamp) -> Self {
        let report = &seen.report;
        Self {
            id: seen.id.clone(),
            kind: report.kind.clone(),
            host: report.host.clone(),
            pid: report.pid,
            version: report.version.clone(),
            started_at: Some(report.started_at.into()),
            seen_at: Some(seen.seen_at.into()),
            state: process_state(seen, now).to_owned(),
        }
    }
}

/// The state of a process, in the words of `status`.
pub(crate) fn process_state(seen: &ProcessSeen, now: Timestamp) -> &'static str {
    match () {
        () if seen.report.is_closed => "closed",
        () if seen.is_gone(now) => "gone",
        () if seen.report.is_ready => "running",
        () => "not-ready",
    }
}
