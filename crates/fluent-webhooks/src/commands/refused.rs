//! The command `refused`: rejected webhooks, whose keys or accounts may only have been missing.

use process::Shutdown;
use proto::v1;
use proto::v1::job_spec::Act;

use crate::api::{self, Api};
use crate::cli::CommonArgs;
use crate::commands::jobs::{DetachArgs, detach};
use crate::json::{ExplainedWebhook, RejectedWebhook};
use crate::when::TimeArg;
use crate::{output, progress, when};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, oldest first; they are held for 72 hours, up to 64 MiB
    List {
        /// At most so many, up to 1000
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Only those after this number
        #[arg(long, default_value_t = 0, conflicts_with = "reference")]
        after: u64,
        /// Only those whose body has this ref as a text, the newest first; about 1,000 are
        /// looked at
        #[arg(long = "ref", default_value = "")]
        reference: String,
        /// With a ref: only those before this number
        #[arg(long, default_value_t = 0, requires = "reference")]
        before: u64,
    },
    /// Say what is wrong with one, by the settings of now
    Explain {
        /// Its number
        id: u64,
    },
    /// Verify all of them by the settings of now, and admit those that verify
    Recheck {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Of a job: only those that name this account
        #[arg(long, requires = "detach", default_value = "")]
        account: String,
        /// Of a job: only those refused for this reason, as `refused list` has it
        #[arg(long, requires = "detach", default_value = "")]
        reason: String,
        /// Of a job: only those received at this time or later: 2h for two hours ago, or RFC 3339
        #[arg(long, value_name = "TIME", requires = "detach")]
        since: Option<TimeArg>,
        /// Of a job: only those received before this time
        #[arg(long, value_name = "TIME", requires = "detach")]
        until: Option<TimeArg>,
        #[command(flatten)]
        job: DetachArgs,
    },
}

pub(crate) async fn run(
    common: CommonArgs,
    command: Command,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, &shutdown).await?;
    match command {
        Command::List {
            limit,
            after,
            reference,
            before,
        } => {
            // A ref is looked for from the newest on.
            let place = match reference.is_empty() {
                true => after,
                false => before,
            };
            let request = v1::ListRefusedRequest {
                page_size: limit,
                page_token: place.to_string(),
                reference: reference.clone(),
            };
            let found = output::answered(api.list_refused(request).await)?;
            list(&common, &found.webhooks)?;
            if !reference.is_empty() {
                output::older(&common, &found.next_page_token);
            }
            Ok(())
        }
        Command::Explain { id } => {
            let answer = api.explain_refused(v1::ExplainRefusedRequest { id }).await;
            explain(&common, output::answered(answer)?)
        }
        Command::Recheck {
            yes,
            account,
            reason,
            since,
            until,
            job,
        } if job.is_job() => {
            let act = Act::AdmitRefused(v1::AdmitRefusedJob {
                account,
                reason,
                since: when::wire(since),
                until: when::wire(until),
            });
            let question = ["Verify", "refused webhook", ", and admit what verifies"];
            detach(&common, &api, act, &job, question, yes).await
        }
        Command::Recheck { yes, .. } => recheck(&common, &mut api, yes).await,
    }
}

async fn recheck(common: &CommonArgs, api: &mut Api, yes: bool) -> anyhow::Result<()> {
    let answer = api
        .recheck_refused(v1::RecheckRefusedRequest { admit: false })
        .await;
    let found = progress::follow(common, answer, "verifying").await?;
    if found.succeeded == 0 {
        return progress::ended(
            common,
            &found,
            "verified",
            api.place(),
            "; nothing was done",
        );
    }
    output::confirm(
        &format!(
            "Admit {} now",
            telemetry::count_of(
                found.succeeded,
                "refused event that verifies",
                "refused events that verify"
            )
        ),
        api.place(),
        yes,
    )?;
    let answer = api
        .recheck_refused(v1::RecheckRefusedRequest { admit: true })
        .await;
    let admitted = progress::follow(common, answer, "admitting").await?;
    progress::ended(common, &admitted, "admitted", api.place(), "")
}

fn list(common: &CommonArgs, refused: &[v1::RefusedWebhook]) -> anyhow::Result<()> {
    if common.json {
        let webhooks: Vec<_> = refused.iter().map(RejectedWebhook::from).collect();
        return output::json(&webhooks);
    }
    let row = |refused: &v1::RefusedWebhook| {
        vec![
            refused.id.to_string(),
            refused.reason.clone(),
            output::plain(&refused.account),
            format!("{} bytes", refused.bytes),
            when::and_age(refused.received_at.as_ref()),
        ]
    };
    let header = [
        "number",
        "reason",
        "account that it names",
        "size",
        "arrived",
    ];
    output::table(
        &header,
        refused.iter().map(row).collect(),
        "nothing that was refused is held",
    );
    Ok(())
}

fn explain(common: &CommonArgs, answer: v1::ExplainRefusedResponse) -> anyhow::Result<()> {
    if common.json {
        return output::json(&ExplainedWebhook::from(&answer));
    }
    let refused = answer.webhook.unwrap_or_default();
    let verdict = if answer.admissible {
        "it would be admitted now"
    } else {
        "it would be refused again"
    };
    output::line(format!(
        "{}, arrived {}: {verdict}",
        refused.reason,
        when::text(refused.received_at.as_ref())
    ));
    answer
        .explanation
        .lines()
        .for_each(|line| output::line(format!("  {}", output::plain(line))));
    Ok(())
}
