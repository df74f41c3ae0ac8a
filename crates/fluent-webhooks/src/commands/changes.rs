//! The command `check --against`: the effect of a restart with these settings on the routes.

use std::collections::BTreeMap;

use process::RouteDigests;
use queue::processes::{ProcessSeen, processes};
use queue::{RouteFilter, RouteState, StartPosition, UNROUTED};
use settings::RouteSettings;

use crate::cli::CommonArgs;
use crate::commands::send_test::named;
use crate::json::RouteChange;
use crate::{open, output};

/// Kinds of processes that run routes.
const RUN_ROUTES: [&str; 2] = ["serve", "dispatcher"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The queue does not know the route yet.
    New,
    /// The route is not in the settings any more; its position stays.
    Orphaned,
    /// The route matches other events now.
    Rematched,
    /// The route matches the same events, and delivers them otherwise.
    Changed,
    Same,
}

#[derive(Debug)]
struct Finding {
    route: String,
    change: Change,
    /// The largest number of events to which the change applies.
    events: u64,
    /// Deliveries that began under the former settings. Whatever the route matches now, these are
    /// finished, except for those for which a new `when` gives no answer.
    begun: u64,
    means: String,
    /// The keys of the route that have other values, apart from its match.
    changed: Vec<String>,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Orphaned => "orphaned",
            Self::Rematched => "rematched",
            Self::Changed => "changed",
            Self::Same => "same",
        }
    }
}

impl Finding {
    fn as_json(&self) -> RouteChange {
        RouteChange {
            route: self.route.clone(),
            change: self.change.as_str().to_owned(),
            events: self.events,
            begun: self.begun,
            means: self.means.clone(),
            changed_settings: self.changed.clone(),
        }
    }
}

pub(crate) async fn run(common: CommonArgs) -> anyhow::Result<()> {
    // The dispatchers do not matter here, only the matches: the routes are read without a
    // registry.
    let tree = open::tree(&common.config)?;
    let routes = tree.routes(None)?;
    let stores = open::stores(&common.config).await?;
    let known = stores.routes().await?;
    let reports = processes(stores.facts()).await?;
    let settings = Settings {
        here: process::route_digests(&tree),
        running: running(reports),
    };
    let findings = compare(&routes.0, known, &settings);
    if common.json {
        let changes: Vec<_> = findings.iter().map(Finding::as_json).collect();
        return output::json(&changes);
    }
    let row = |finding: &Finding| {
        vec![
            finding.route.clone(),
            finding.events.to_string(),
            finding.begun.to_string(),
            finding.means.clone(),
        ]
    };
    let header = [
        "route",
        "events not looked at",
        "begun",
        "what a restart does",
    ];
    output::table(
        &header,
        findings.iter().map(row).collect(),
        "no routes, here or there",
    );
    Ok(())
}

/// Digests of the routes' settings.
struct Settings {
    here: BTreeMap<String, RouteDigests>,
    /// Those of the process that reported last, of those that have the route.
    running: BTreeMap<String, RouteDigests>,
}

impl Settings {
    /// The parts of a route that change.
    fn changed(&self, route: &str) -> Vec<String> {
        let (Some(here), Some(running)) = (self.here.get(route), self.running.get(route)) else {
            return Vec::new();
        };
        let changed = process::changed_parts(here, running);
        changed.into_iter().map(str::to_owned).collect()
    }
}

/// The settings of each route in the newest report of a process that runs routes.
fn running(mut reports: Vec<ProcessSeen>) -> BTreeMap<String, RouteDigests> {
    reports.retain(|seen| RUN_ROUTES.contains(&&*seen.report.kind));
    reports.sort_by_key(|seen| seen.seen_at);
    let newest_last = reports.into_iter().map(|seen| seen.report.route_settings);
    newest_last.flatten().collect()
}

fn compare(routes: &[RouteSettings], known: Vec<RouteState>, settings: &Settings) -> Vec<Finding> {
    let stored = known.iter().map(|state| state.kept).max().unwrap_or(0);
    let mut known: BTreeMap<String, RouteState> = known
        .into_iter()
        .filter(|state| state.name != UNROUTED)
        .map(|state| (state.name.clone(), state))
        .collect();
    let listed = routes.iter().map(|route| match known.remove(&route.name) {
        None => new(route, stored),
        Some(state) => known_before(route, &state, settings.changed(&route.name)),
    });
    let mut findings: Vec<Finding> = listed.collect();
    findings.extend(known.into_values().map(|state| Finding {
        means: "left behind: nothing is delivered; `routes forget` gives up what waits, listing it again goes on".to_owned(),
        ..finding(&state, Change::Orphaned)
    }));
    findings
}

fn new(route: &RouteSettings, stored: u64) -> Finding {
    let (events, means) = match route.start {
        StartPosition::Now => (0, "begins, with the first event after the restart"),
        StartPosition::Beginning => (stored, "begins, with the oldest event kept"),
    };
    Finding {
        route: route.name.clone(),
        change: Change::New,
        events,
        begun: 0,
        means: means.to_owned(),
        changed: Vec::new(),
    }
}

fn known_before(route: &RouteSettings, state: &RouteState, changed: Vec<String>) -> Finding {
    let digest = RouteFilter::from(route.terms.clone()).digest();
    let is_rematched = matches!(state.filter.as_deref(), Some(before) if before != digest);
    let otherwise = match changed.is_empty() {
        true => String::new(),
        false => format!(" with another {}", named(&changed)),
    };
    let (change, means) = match (is_rematched, changed.is_empty()) {
        (true, _) => {
            let and = if changed.is_empty() { "" } else { "; goes on" };
            let means = format!(
                "matches anew: its new match applies to all that it has not looked at{and}{otherwise}"
            );
            (Change::Rematched, means)
        }
        (false, true) => (Change::Same, "goes on".to_owned()),
        (false, false) => (Change::Changed, format!("goes on{otherwise}")),
    };
    Finding {
        means,
        changed,
        ..finding(state, change)
    }
}

fn finding(state: &RouteState, change: Change) -> Finding {
    let route = state.name.clone();
    let begun = state.waiting + state.in_flight;
    Finding {
        route,
        change,
        events: state.behind,
        begun,
        means: String::new(),
        changed: Vec::new(),
    }
}
