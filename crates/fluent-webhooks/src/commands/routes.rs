use std::path::PathBuf;

use event_model::{Environment, Timestamp};
use queue::{BreakerState, RouteState};

use crate::cli::Common;
use crate::commands::route_test;
use crate::{open, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List every route that has a position in the queue
    List,
    /// Say which routes an event would take, and why it would not take the others
    Test {
        /// The event's JSON, as Fluent sends it; `-` for standard input
        #[arg(long)]
        event: PathBuf,
        /// The environment that it would come from
        #[arg(long, default_value = "sandbox")]
        environment: Environment,
    },
    /// Hold a route's deliveries back, in every process, until it is resumed
    Pause {
        /// Its name
        route: String,
    },
    /// Let a paused route deliver again
    Resume {
        /// Its name
        route: String,
    },
    /// Give up a route's position and what it had still to deliver
    Forget {
        /// Its name; take it out of the settings first
        route: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(common: Common, command: Command) -> anyhow::Result<()> {
    if let Command::Test { event, environment } = &command {
        return route_test::run(&common, event, *environment);
    }
    let stores = open::stores(&common.config).await?;
    match command {
        Command::Test { .. } => Ok(()),
        Command::Pause { route } => {
            stores.set_paused(&route, true).await?;
            output::done(&common, "paused", 1)
        }
        Command::Resume { route } => {
            stores.set_paused(&route, false).await?;
            output::done(&common, "resumed", 1)
        }
        Command::List => {
            let routes = stores.routes().await?;
            if common.json {
                return output::json(&routes);
            }
            let row = |route: &RouteState| {
                vec![
                    route.name.clone(),
                    route.behind.to_string(),
                    route.waiting.to_string(),
                    route.in_flight.to_string(),
                    route.dead.to_string(),
                    standing(route),
                ]
            };
            let header =
                ["route", "not looked at", "waiting for a retry", "in flight", "dead letters", "state"];
            output::table(&header, routes.iter().map(row).collect(), "no route has run yet");
            Ok(())
        }
        Command::Forget { route, yes } => {
            if route == queue::UNROUTED {
                anyhow::bail!("{route} is the product's own: it keeps what no other route matches");
            }
            let settings = open::tree(&common.config)?.routes(None)?;
            if settings.0.iter().any(|listed| listed.name == route) {
                anyhow::bail!("route {route} is in the settings: take it out and restart first");
            }
            output::confirm(&format!("Forget route {route} and what it had still to deliver?"), yes)?;
            stores.forget(&route).await?;
            output::done(&common, "forgotten", 1)
        }
    }
}

/// Whether it delivers, and what keeps it from that.
fn standing(route: &RouteState) -> String {
    let of = |count: usize| match route.working.len() {
        1 => String::new(),
        all => format!(" in {count} of {all} processes"),
    };
    let open: Vec<Timestamp> = route.working.iter().filter_map(|working| until(&working.breaker)).collect();
    let half_open = route.working.iter().filter(|working| working.breaker == BreakerState::HalfOpen).count();
    let throttled = route.working.iter().filter(|working| working.throttled).count();
    match (route.paused, route.working.is_empty(), open.iter().min()) {
        (true, ..) => "paused".to_owned(),
        _ if route.name == queue::UNROUTED => "keeps what no other route matches".to_owned(),
        (_, true, _) => "nobody runs it".to_owned(),
        (.., Some(until)) => format!("fails: left alone until {}{}", output::time(*until), of(open.len())),
        _ if half_open > 0 => format!("fails: asking again{}", of(half_open)),
        _ if throttled > 0 => format!("held to its rate{}", of(throttled)),
        _ => "delivering".to_owned(),
    }
}

fn until(breaker: &BreakerState) -> Option<Timestamp> {
    if let BreakerState::Open { until } = breaker { Some(*until) } else { None }
}
