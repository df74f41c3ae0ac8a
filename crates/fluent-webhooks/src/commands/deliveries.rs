//! Attempts that have ended, in the past (`deliveries`) and as they end (`tail`).

use event_model::{Clock, SystemClock, Timestamp};
use owo_colors::OwoColorize;
use process::Shutdown;
use proto::v1;
use tonic::Code;

use crate::api;
use crate::cli::CommonArgs;
use crate::json::{Attempt, Retried};
use crate::output;
use crate::when::{self, TimeArg};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Try now what waits of an event for its next attempt
    Retry {
        /// The event's id or its first 8 digits, Fluent's own id, or a ref of one event
        event: String,
        /// Only on this route; left out, on all on which it waits
        #[arg(long)]
        route: Option<String>,
    },
}

pub(crate) async fn run(common: CommonArgs, args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    match args.command {
        None => list(common, args.list, shutdown).await,
        Some(Command::Retry { event, route }) => retry(common, event, route, shutdown).await,
    }
}

async fn retry(
    common: CommonArgs,
    event: String,
    route: Option<String>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut api = api::open(&common, true, &shutdown).await?;
    let request = v1::RetryDeliveryRequest {
        event,
        route: route.unwrap_or_default(),
    };
    let retried = output::answered(api.retry_delivery(request).await)?;
    if common.json {
        return output::json(&Retried {
            event_id: retried.event_id,
            routes: retried.routes,
        });
    }
    match retried.routes.is_empty() {
        true => output::line("it became due by itself meanwhile"),
        false => output::line(format!("due now on {}", retried.routes.join(", "))),
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Only those that ended at this time or later: 2h for two hours ago, or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<TimeArg>,
    /// Only those that ended before this time
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArg>,
    /// About so many, the newest first
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

/// The words for how an attempt ended.
const OUTCOMES: [&str; 8] = [
    "done",
    "transient",
    "permanent",
    "timed-out",
    "panicked",
    "unrouted",
    "died",
    "returned",
];

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Filter {
    /// Only of this route
    #[arg(long)]
    route: Option<String>,
    /// Only of this entityRef or rootEntityRef
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Only of events of this name
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Only of this account
    #[arg(long)]
    account: Option<String>,
    /// Only those that ended so: done, transient, permanent, timed-out, panicked,
    /// unrouted, died, returned
    #[arg(long, value_parser = OUTCOMES, hide_possible_values = true)]
    outcome: Option<String>,
    /// Only those that the destination answered with this number, as 422
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    status: Option<u16>,
}

impl Filter {
    fn wire(self) -> v1::AttemptFilter {
        v1::AttemptFilter {
            route: self.route.unwrap_or_default(),
            event: self.event.unwrap_or_default(),
            account: self.account.unwrap_or_default(),
            reference: self.reference.unwrap_or_default(),
            outcome: self.outcome.unwrap_or_default(),
            status: u32::from(self.status.unwrap_or_default()),
            since: None,
            until: None,
        }
    }
}

async fn list(common: CommonArgs, args: ListArgs, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, &shutdown).await?;
    let filter = v1::AttemptFilter {
        since: when::wire(args.since),
        until: when::wire(args.until),
        ..args.filter.wire()
    };
    let mut attempts = Vec::new();
    let mut page_token = String::new();
    while attempts.len() < args.limit {
        let page_size = u32::try_from((args.limit - attempts.len()).min(1000))?;
        let request = v1::ListDeliveriesRequest {
            filter: Some(filter.clone()),
            page_size,
            page_token,
        };
        let page = output::answered(api.list_deliveries(request).await)?;
        attempts.extend(page.attempts);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    attempts.truncate(args.limit);
    if common.json {
        return output::json(&attempts.iter().map(Attempt::from).collect::<Vec<_>>());
    }
    let header = [
        "ended", "route", "event id", "event", "entity", "attempt", "outcome", "took", "why",
    ];
    output::table(
        &header,
        attempts.iter().map(row).collect(),
        "no attempts, or none that the filter leaves",
    );
    Ok(())
}

fn row(attempt: &v1::Attempt) -> Vec<String> {
    vec![
        ended_and_age(attempt),
        attempt.route.clone(),
        output::event_id(&attempt.event_id),
        output::plain(&attempt.event),
        output::plain(&attempt.entity),
        number(attempt),
        outcome(attempt),
        took(attempt),
        output::plain(&attempt.detail),
    ]
}

/// Shows attempts as they end, until it is told to stop.
pub(crate) async fn tail(
    common: CommonArgs,
    filter: Filter,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let draining = shutdown.draining();
    let beginning = async {
        let mut api = api::open(&common, false, &shutdown).await?;
        let request = v1::WatchDeliveriesRequest {
            filter: Some(filter.wire()),
        };
        output::answered(api.watch_deliveries(request).await)
    };
    let Some(begun) = draining.run_until_cancelled(beginning).await else {
        return Ok(());
    };
    let mut attempts = begun?;
    while let Some(next) = draining.run_until_cancelled(attempts.message()).await {
        match next {
            Ok(Some(message)) => message
                .attempts
                .iter()
                .try_for_each(|attempt| tell(&common, attempt))?,
            Ok(None) => return Ok(()),
            Err(status) if status.code() == Code::Unavailable && draining.is_cancelled() => {
                return Ok(());
            }
            Err(status) => return output::answered(Err(status)),
        }
    }
    Ok(())
}

fn tell(common: &CommonArgs, attempt: &v1::Attempt) -> anyhow::Result<()> {
    if common.json {
        return output::json_line(&Attempt::from(attempt));
    }
    let detail = if attempt.detail.is_empty() {
        String::new()
    } else {
        format!(": {}", output::plain(&attempt.detail))
    };
    output::line(format!(
        "{}  {}  {}  {}  {}{}{detail}",
        ended(attempt),
        attempt.route.bold(),
        output::plain(&attempt.event),
        output::plain(&attempt.entity),
        outcome(attempt),
        in_time(attempt),
    ));
    Ok(())
}

fn ended(attempt: &v1::Attempt) -> String {
    ended_at(attempt).map(output::time).unwrap_or_default()
}

fn ended_and_age(attempt: &v1::Attempt) -> String {
    let now = SystemClock.now();
    ended_at(attempt)
        .map(|at| output::time_and_age(at, now))
        .unwrap_or_default()
}

fn ended_at(attempt: &v1::Attempt) -> Option<Timestamp> {
    let started = attempt.started_at.as_ref().and_then(grpc::timestamp_of);
    let took = attempt
        .duration
        .as_ref()
        .and_then(grpc::duration_of)
        .unwrap_or_default();
    started.and_then(|started| started.checked_add(took).ok())
}

fn number(attempt: &v1::Attempt) -> String {
    match attempt.redrive {
        0 => attempt.attempt.to_string(),
        redrive => format!("{} of redrive {redrive}", attempt.attempt),
    }
}

pub(crate) fn outcome(attempt: &v1::Attempt) -> String {
    let status = attempt
        .status
        .map_or(String::new(), |status| format!(" {status}"));
    match attempt.outcome.as_str() {
        "done" => format!("{}{status}", attempt.outcome.green()),
        "permanent" | "panicked" | "died" => format!("{}{status}", attempt.outcome.red()),
        other => format!("{}{status}", other.yellow()),
    }
}

/// The time that an attempt took, after ` in `; nothing if no destination was asked.
pub(crate) fn in_time(attempt: &v1::Attempt) -> String {
    match took(attempt).as_str() {
        "" => String::new(),
        took => format!(" in {took}"),
    }
}

/// The time that an attempt took; nothing if no destination was asked.
pub(crate) fn took(attempt: &v1::Attempt) -> String {
    let took = attempt
        .duration
        .as_ref()
        .and_then(grpc::duration_of)
        .unwrap_or_default();
    if took.is_zero() {
        String::new()
    } else {
        format!("{took:.1?}")
    }
}
