//! The command `routes`: the state of routes, pausing and resuming them, and forgetting one.

use std::path::PathBuf;
use std::time::Duration;

use dispatch::Registry;
use event_model::Environment;
use owo_colors::OwoColorize;
use process::Shutdown;
use proto::v1;

use crate::cli::CommonArgs;
use crate::commands::{route_test, send_test};
use crate::json::{Resumed, Route};
use crate::{api, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List every route that has a position in the queue
    List,
    /// Say which routes an event would take, and why it would not take the others; for those
    /// that it takes, also what would be sent
    Test {
        /// The event's JSON, as Fluent sends it; `-` for standard input
        #[arg(long)]
        event: PathBuf,
        /// The environment that it would come from
        #[arg(long, default_value = "sandbox")]
        environment: Environment,
    },
    /// Send one event to a route's destination, as a test: with `fluent-origin: test`, and
    /// counted nowhere
    SendTest {
        /// Its name
        route: String,
        /// The event's JSON, as Fluent sends it; left out, one that is made up for the route;
        /// `-` for standard input
        #[arg(long)]
        event: Option<PathBuf>,
        /// The environment that it would come from
        #[arg(long)]
        environment: Option<Environment>,
    },
    /// Hold a route's deliveries back, in every process, until it is resumed
    Pause {
        /// Its name
        route: String,
        /// Resume it by itself after this time: 30m, 2h, 3d
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasts: Option<Duration>,
        /// Why, for whoever sees it paused
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let a paused route deliver again, and ask a destination at once that its breaker
    /// leaves alone
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

pub(crate) async fn run(
    common: CommonArgs,
    command: Command,
    registry: &Registry,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    match &command {
        Command::Test { event, environment } => {
            return route_test::run(&common, event, *environment, registry).await;
        }
        Command::SendTest {
            route,
            event,
            environment,
        } => {
            let mut api = api::open_to_send(&common, registry, &shutdown).await?;
            let request = send_test::request(route, event.as_deref(), *environment)?;
            let sent = output::answered(api.send_test_event(request).await)?;
            return send_test::tell(&common, route, &sent, api.place());
        }
        _ => {}
    }
    let mut api = api::open(&common, false, &shutdown).await?;
    match command {
        Command::Test { .. } | Command::SendTest { .. } => Ok(()),
        Command::Pause {
            route,
            lasts,
            reason,
        } => {
            let duration = lasts.map(grpc::duration);
            let reason = reason.unwrap_or_default();
            output::answered(
                api.pause_route(v1::PauseRouteRequest {
                    route,
                    duration,
                    reason,
                })
                .await,
            )?;
            output::done(&common, "paused", api.place())
        }
        Command::Resume { route } => {
            let request = v1::ResumeRouteRequest {
                route: route.clone(),
            };
            let resumed = output::answered(api.resume_route(request).await)?;
            tell_resumed(&common, &route, &resumed)
        }
        Command::List => {
            let routes = output::answered(api.list_routes(v1::ListRoutesRequest {}).await)?.routes;
            list(&common, &routes)
        }
        Command::Forget { route, yes } => {
            output::confirm(
                &format!("Forget route {route} and what it had still to deliver"),
                api.place(),
                yes,
            )?;
            output::answered(api.forget_route(v1::ForgetRouteRequest { route }).await)?;
            output::done(&common, "forgotten", api.place())
        }
    }
}

fn tell_resumed(
    common: &CommonArgs,
    route: &str,
    resumed: &v1::ResumeRouteResponse,
) -> anyhow::Result<()> {
    let v1::ResumeRouteResponse {
        was_paused,
        breakers,
    } = resumed;
    if common.json {
        return output::json(&Resumed {
            route: route.to_owned(),
            was_paused: *was_paused,
            breakers_closed: *breakers,
        });
    }
    let paused = if *was_paused {
        "it was paused, and delivers again"
    } else {
        "it was not paused"
    };
    let breaker = match breakers {
        0 => String::new(),
        1 => "; its breaker was open, and its destination is asked at once".to_owned(),
        many => format!(
            "; its breaker was open in {many} processes, and its destination is asked at once"
        ),
    };
    output::line(format!("route {route}: {paused}{breaker}"));
    Ok(())
}

pub(crate) fn list(common: &CommonArgs, routes: &[v1::Route]) -> anyhow::Result<()> {
    if common.json {
        return output::json(&routes.iter().map(Route::from).collect::<Vec<_>>());
    }
    let row = |route: &v1::Route| {
        vec![
            route.name.clone(),
            route.behind.to_string(),
            route.waiting.to_string(),
            route.in_flight.to_string(),
            route.dead_letters.to_string(),
            coloured(&route.summary),
        ]
    };
    let header = [
        "route",
        "behind",
        "waiting",
        "in flight",
        "dead letters",
        "state",
    ];
    output::table(
        &header,
        routes.iter().map(row).collect(),
        "no route has run yet",
    );
    Ok(())
}

fn coloured(summary: &str) -> String {
    match summary {
        "delivering" => summary.green().to_string(),
        "nobody runs it" => summary.yellow().to_string(),
        paused if paused.starts_with("paused") => output::plain(paused).yellow().to_string(),
        "every attempt fails" => summary.red().to_string(),
        fails if fails.starts_with("fails") => fails.red().to_string(),
        other => other.to_owned(),
    }
}
