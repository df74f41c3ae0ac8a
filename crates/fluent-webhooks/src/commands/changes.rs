//! The command `check --against`: the effect of a restart with these settings on the routes.

use std::collections::BTreeMap;

use queue::{RouteFilter, RouteState, StartPosition, UNROUTED};
use settings::RouteSettings;

use crate::cli::CommonArgs;
use crate::json::RouteChange;
use crate::{open, output};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The queue does not know the route yet.
    New,
    /// The route is not in the settings any more; its position stays.
    Orphaned,
    /// The route matches other events now.
    Rematched,
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
    means: &'static str,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Orphaned => "orphaned",
            Self::Rematched => "rematched",
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
            means: self.means.to_owned(),
        }
    }
}

pub(crate) async fn run(common: CommonArgs) -> anyhow::Result<()> {
    // The dispatchers do not matter here, only the matches: the routes are read without a
    // registry.
    let routes = open::tree(&common.config)?.routes(None)?;
    let known = open::stores(&common.config).await?.routes().await?;
    let findings = compare(&routes.0, known);
    if common.json {
        let changes: Vec<_> = findings.iter().map(Finding::as_json).collect();
        return output::json(&changes);
    }
    let row = |finding: &Finding| {
        vec![
            finding.route.clone(),
            finding.events.to_string(),
            finding.begun.to_string(),
            finding.means.to_owned(),
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

fn compare(routes: &[RouteSettings], known: Vec<RouteState>) -> Vec<Finding> {
    let stored = known.iter().map(|state| state.kept).max().unwrap_or(0);
    let mut known: BTreeMap<String, RouteState> = known
        .into_iter()
        .filter(|state| state.name != UNROUTED)
        .map(|state| (state.name.clone(), state))
        .collect();
    let listed = routes.iter().map(|route| match known.remove(&route.name) {
        None => new(route, stored),
        Some(state) => known_before(route, &state),
    });
    let mut findings: Vec<Finding> = listed.collect();
    findings.extend(known.into_values().map(|state| Finding {
        means: "left behind: nothing is delivered; `routes forget` gives up what waits, listing it again goes on",
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
        means,
    }
}

fn known_before(route: &RouteSettings, state: &RouteState) -> Finding {
    let digest = RouteFilter::from(route.terms.clone()).digest();
    match state.filter.as_deref() {
        Some(before) if before != digest => Finding {
            means: "matches anew: its new match applies to all that it has not looked at",
            ..finding(state, Change::Rematched)
        },
        _ => Finding {
            means: "goes on",
            ..finding(state, Change::Same)
        },
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
        means: "",
    }
}
