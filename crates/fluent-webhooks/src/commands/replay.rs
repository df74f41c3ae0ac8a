//! The command `replay`: delivers the events of a time to one route again.

use process::Shutdown;
use proto::v1;
use proto::v1::job_spec::Act;

use crate::api::{self, Api};
use crate::cli::CommonArgs;
use crate::commands::jobs::{DetachArgs, detach};
use crate::when::{self, TimeArg};
use crate::{output, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// To this route, and no other
    #[arg(long)]
    route: String,
    /// What was received at this time or later: 2h for two hours ago, or RFC 3339
    #[arg(long, value_name = "TIME")]
    from: TimeArg,
    /// And before this time; left out, now
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArg>,
    /// Only events of this name
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Only of this account
    #[arg(long)]
    account: Option<String>,
    /// Only of this entityRef or rootEntityRef
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Also what the route is done with, or had before its history begins
    #[arg(long)]
    again: bool,
    /// Only count what would be delivered
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    job: DetachArgs,
}

pub(crate) async fn run(common: CommonArgs, args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut api = api::open(&common, true, &shutdown).await?;
    if args.job.is_job() && !args.dry_run {
        return replay_as_job(&common, &api, args).await;
    }
    let request = v1::ReplayRequest {
        route: args.route.clone(),
        from: when::wire(Some(args.from)),
        // One end for the count and for the replay.
        until: when::wire(Some(args.until.unwrap_or_else(TimeArg::now))),
        event: args.event.unwrap_or_default(),
        account: args.account.unwrap_or_default(),
        reference: args.reference.unwrap_or_default(),
        again: args.again,
        dry_run: true,
    };
    let counted = progress::follow(&common, api.replay(request.clone()).await, "counting").await?;
    if args.dry_run || counted.succeeded == 0 {
        return progress::ended(
            &common,
            &counted,
            // The word of the contract, and one that people understand.
            if common.json {
                "matched"
            } else {
                "would be delivered"
            },
            api.place(),
            &format!("; nothing was done{}", unknown(counted.unknown)),
        );
    }
    let question = format!(
        "Deliver {} to {} once more{}",
        telemetry::count(counted.succeeded, "event"),
        args.route,
        left_out(&counted)
    );
    output::confirm(&question, api.place(), args.yes)?;
    let answer = api
        .replay(v1::ReplayRequest {
            dry_run: false,
            ..request
        })
        .await;
    let replayed = progress::follow(&common, answer, "handing over").await?;
    progress::ended(
        &common,
        &replayed,
        "replayed",
        api.place(),
        &unknown(replayed.unknown),
    )
}

/// Leaves the replay to a server.
async fn replay_as_job(common: &CommonArgs, api: &Api, args: Args) -> anyhow::Result<()> {
    let how = format!(" to {} once more", args.route);
    let act = Act::Replay(v1::ReplayJob {
        route: args.route,
        from: when::wire(Some(args.from)),
        until: when::wire(Some(args.until.unwrap_or_else(TimeArg::now))),
        event: args.event.unwrap_or_default(),
        account: args.account.unwrap_or_default(),
        reference: args.reference.unwrap_or_default(),
        again: args.again,
    });
    detach(
        common,
        api,
        act,
        &args.job,
        ["Deliver", "event", &how],
        args.yes,
    )
    .await
}

/// What a question says of the events that would not be delivered.
fn left_out(counted: &v1::BulkProgress) -> String {
    match counted.skipped + counted.unknown {
        0 => String::new(),
        count => format!(" ({count} others of that time are left out)"),
    }
}

/// A sentence about the events that were left out, as it is not known whether they were
/// delivered.
fn unknown(count: u64) -> String {
    if count == 0 {
        return String::new();
    }
    format!(
        ". Of {count} it is no longer known what became of them: they came before the history of attempts begins, and are left out. `--again` hands them over too, and what is done"
    )
}
