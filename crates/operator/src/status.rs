//! The command `status`: whether the product is well.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use event_model::Timestamp;
use futures::future::join_all;
use proto::v1;
use queue::processes::{ProcessSeen, processes};
use queue::{
    Attempt, AttemptQuery, Outcome, QueueError, RouteState, ServerHealth, ServerState, Stores,
    StoresHealth, UNROUTED, facts,
};
use settings::{QueueSettings, SettingsTree};
use telemetry::alerts::Urgency;
use tonic::Status;

use crate::routes::FailedAttempts;
use crate::status_lines::{StatusFacts, StatusLine, lines};
use crate::{Operator, failure, silence};

/// Attempts of this time show whether a route fails.
const LATELY: Duration = Duration::from_mins(15);

/// Most attempts of a route that are read; with only failures, from this number on, it fails.
const LOOKED_AT: usize = 20;
const FAILS_AFTER: usize = 3;

/// Most pages of the history that are searched for an attempt that succeeded.
const PAGES: usize = 20;

impl Operator {
    pub(crate) async fn status(&self) -> Result<v1::GetStatusResponse, Status> {
        let tree = self.settings()?;
        let (known, held) = self.known(&tree).await?;
        let (now, later): (Vec<_>, Vec<_>) = lines(&known)
            .into_iter()
            .partition(|line| line.alert.urgency == Urgency::Now);
        let problems = now.iter().chain(&later).map(|line| line.text.clone());
        Ok(v1::GetStatusResponse {
            well: now.is_empty(),
            problems: problems.collect(),
            now: now.iter().map(described).collect(),
            later: later.iter().map(described).collect(),
            processes: known
                .processes
                .iter()
                .map(|seen| process(seen, known.now))
                .collect(),
            servers: known
                .health
                .iter()
                .flat_map(|health| &health.servers)
                .map(server)
                .collect(),
            routes: self.routes_of(&known),
            dead_letters: known.dead_letters,
            unrouted: known.unrouted,
            quarantined: known.quarantined,
            refused: known.refused,
            refused_bytes: held,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn routes_of(&self, known: &StatusFacts) -> Vec<v1::Route> {
        let listed = known.listed.clone().unwrap_or_default();
        self.describe(&known.routes, &listed, &known.failing)
    }

    /// The routes whose attempts all fail. That the history can't be read is said elsewhere.
    pub(crate) async fn failing_routes(
        &self,
        routes: &[RouteState],
    ) -> BTreeMap<String, FailedAttempts> {
        let now = self.0.clock.now();
        let now = self.stores().facts().now().await.unwrap_or(now);
        failing(self.stores(), routes, now)
            .await
            .unwrap_or_default()
    }

    /// The facts for the lines, and the bytes of rejected webhooks.
    async fn known(&self, tree: &SettingsTree) -> Result<(StatusFacts, u64), Status> {
        let stores = self.stores();
        let now = self.0.clock.now();
        // While servers fail, some facts can't be read. The others are shown all the same.
        let mut unreadable = None;
        let routes = readable(stores.routes().await, &mut unreadable);
        let letters = readable(stores.dead_letters().count().await, &mut unreadable);
        let (unrouted, dead): (Vec<_>, Vec<_>) = letters
            .into_iter()
            .partition(|(route, _)| route == UNROUTED);
        let sum = |counts: Vec<(String, u64)>| counts.into_iter().map(|(_, count)| count).sum();
        let quarantined = stores.quarantine().count().await;
        let quarantined = readable(quarantined, &mut unreadable);
        // A cluster of an older version has no stream for them, which must not hide the other
        // facts.
        let refused = stores.refused().count().await.unwrap_or_default();
        let found = processes(stores.facts()).await.map(process::with_deaths);
        // The clock that stamped the reports decides which processes are gone.
        let now = stores.facts().now().await.unwrap_or(now);
        let known = StatusFacts {
            now,
            listed: listed(tree)?,
            failing: readable(failing(stores, &routes, now).await, &mut unreadable),
            are_processes_unread: found.is_err(),
            processes: readable(found, &mut unreadable),
            spools: readable(facts::spools(stores.facts()).await, &mut unreadable),
            health: health(stores, &routes, tree).await,
            silent: silence::silent(stores.facts(), now).await,
            stuck_jobs: self.stuck_jobs().await,
            dead_letters: sum(dead),
            unrouted: sum(unrouted),
            quarantined,
            refused: refused.webhooks,
            routes,
            unreadable,
        };
        match (&known.unreadable, &known.health) {
            (Some(error), Err(_)) => Err(failure::queue(error)),
            _ => Ok((known, refused.bytes)),
        }
    }
}

/// The value, or an empty one with the error noted.
fn readable<T: Default>(read: Result<T, QueueError>, unreadable: &mut Option<QueueError>) -> T {
    read.unwrap_or_else(|error| {
        unreadable.get_or_insert(error);
        T::default()
    })
}

/// The routes of the settings. `None` if they have none: then those of other processes count.
fn listed(tree: &SettingsTree) -> Result<Option<HashSet<String>>, Status> {
    let routes = tree
        .routes(None)
        .map_err(|error| failure::settings(&error.into()))?;
    let names: HashSet<_> = routes.0.into_iter().map(|route| route.name).collect();
    Ok(Some(names).filter(|names| !names.is_empty()))
}

/// Routes without a recent success, with their failures. Only routes with
/// deliveries that wait or run, or with dead letters, count.
async fn failing(
    stores: &dyn Stores,
    routes: &[RouteState],
    now: Timestamp,
) -> Result<BTreeMap<String, FailedAttempts>, QueueError> {
    let suspects = routes.iter().filter(|route| {
        route.name != UNROUTED
            && !route.paused
            && (route.waiting > 0 || route.in_flight > 0 || route.dead > 0)
    });
    let counted = join_all(suspects.map(async |route| {
        let since = now.checked_sub(LATELY).ok();
        let query = AttemptQuery {
            route: Some(route.name.clone()),
            since,
            limit: LOOKED_AT,
            ..AttemptQuery::default()
        };
        let attempts = stores.history().attempts(query).await?.attempts;
        let records = || attempts.iter().map(|attempt| &attempt.step.record);
        let failed: Vec<_> = records().filter(|record| is_failure(record)).collect();
        let went_well = records().any(|record| record.outcome == Outcome::Done);
        let fails = failed.len() >= FAILS_AFTER
            && !went_well
            && !went_well_lately(stores, route, since).await?;
        let first_at = failed.iter().map(|record| record.started_at).min();
        let failed = FailedAttempts {
            count: failed.len(),
            first_at: first_at.unwrap_or(now),
        };
        Ok(fails.then(|| (route.name.clone(), failed)))
    }));
    counted
        .await
        .into_iter()
        .filter_map(Result::transpose)
        .collect()
}

/// True if any attempt since then succeeded: the newest failures may be few among many successes.
async fn went_well_lately(
    stores: &dyn Stores,
    route: &RouteState,
    since: Option<Timestamp>,
) -> Result<bool, QueueError> {
    let mut before = None;
    for _ in 0..PAGES {
        let query = AttemptQuery {
            route: Some(route.name.clone()),
            outcome: Some(Outcome::Done),
            since,
            before,
            limit: 1,
            ..AttemptQuery::default()
        };
        let page = stores.history().attempts(query).await?;
        if !page.attempts.is_empty() {
            return Ok(true);
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    Ok(false)
}

/// Whether the destination was asked in vain. What took no time was no attempt: the route's `when`
/// gave no answer, or the event could not be read.
fn is_failure(record: &Attempt) -> bool {
    let is_good = matches!(
        record.outcome,
        Outcome::Done | Outcome::Unrouted | Outcome::Died | Outcome::Returned
    );
    !is_good && !record.took.is_zero()
}

/// The state of servers and stores, with the limits that only the settings have.
pub(crate) async fn health(
    stores: &dyn Stores,
    routes: &[RouteState],
    tree: &SettingsTree,
) -> Result<StoresHealth, QueueError> {
    let mut health = stores.health().await?;
    let limit = match tree.queue() {
        Ok(QueueSettings::Embedded(settings)) => Some(settings.retention.bytes.0),
        _ => None,
    };
    // The share that the slowest route has still to settle.
    let unsettled = routes
        .iter()
        .map(|route| share(route.behind + route.in_flight, route.kept));
    let unsettled = unsettled.fold(0.0, f64::max);
    for usage in &mut health.usage {
        usage.limit = usage.limit.or(limit);
        if usage.has_settled {
            usage.used = (usage.used as f64 * unsettled) as u64;
        }
    }
    Ok(health)
}

fn share(part: u64, whole: u64) -> f64 {
    (part as f64 / whole.max(1) as f64).min(1.0)
}

fn described(line: &StatusLine) -> v1::Problem {
    let alert = line.alert.name.to_owned();
    let runbook = line.alert.runbook();
    v1::Problem {
        alert,
        text: line.text.clone(),
        runbook,
    }
}

pub(crate) fn process(seen: &ProcessSeen, now: Timestamp) -> v1::Process {
    let report = &seen.report;
    let state = match () {
        () if report.is_closed => "closed",
        () if seen.is_gone(now) => "gone",
        () if report.is_ready => "running",
        () => "not-ready",
    };
    v1::Process {
        id: seen.id.clone(),
        kind: report.kind.clone(),
        host: report.host.clone(),
        pid: report.pid,
        version: report.version.clone(),
        started_at: Some(grpc::timestamp(report.started_at)),
        seen_at: Some(grpc::timestamp(seen.seen_at)),
        state: state.to_owned(),
    }
}

fn server(server: &ServerHealth) -> v1::Server {
    let state = match server.state {
        ServerState::Well => "well",
        ServerState::Behind(_) => "behind",
        ServerState::Gone => "gone",
    };
    v1::Server {
        name: server.name.clone(),
        state: state.to_owned(),
    }
}
