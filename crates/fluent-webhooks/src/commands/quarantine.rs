//! The command `quarantine`: genuine bodies that are not events.

use anyhow::bail;
use process::Shutdown;
use proto::v1;
use proto::v1::job_spec::Act;

use crate::api::{self, Api};
use crate::cli::CommonArgs;
use crate::commands::jobs::{DetachArgs, detach};
use crate::json::QuarantinedWebhook;
use crate::when::TimeArg;
use crate::{output, progress, when};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, oldest first
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
    /// Show one
    Show {
        /// Its number
        id: u64,
        /// Print its body too, which may hold personal data
        #[arg(long)]
        body: bool,
    },
    /// Remove for good
    Discard {
        #[command(flatten)]
        which: QuarantineArgs,
    },
    /// Verify and admit again, by the settings and the version of today
    Redrive {
        #[command(flatten)]
        which: QuarantineArgs,
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

/// Which of them to change.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct QuarantineArgs {
    /// Their numbers
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Most in one answer, and in one request.
const PAGE: u32 = 1000;
const TOGETHER: usize = 1000;

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
            let request = v1::ListQuarantinedRequest {
                page_size: limit,
                page_token: place.to_string(),
                reference: reference.clone(),
            };
            let found = output::answered(api.list_quarantined(request).await)?;
            list(&common, &found.webhooks)?;
            if !reference.is_empty() {
                output::older(&common, &found.next_page_token);
            }
            Ok(())
        }
        Command::Show { id, body } => {
            let answer = api
                .get_quarantined(v1::GetQuarantinedRequest {
                    id,
                    include_body: body,
                })
                .await;
            let webhook = output::answered(answer)?.webhook.unwrap_or_default();
            show(&common, &webhook, body)
        }
        Command::Discard { which } => discard(&common, &mut api, which).await,
        Command::Redrive { which, job, .. } if job.is_job() && !which.all => {
            bail!("--detach is for --all: a job is about all that there are")
        }
        Command::Redrive {
            which,
            since,
            until,
            job,
        } if job.is_job() => {
            let act = Act::RecheckQuarantined(v1::RecheckQuarantinedJob {
                since: when::wire(since),
                until: when::wire(until),
            });
            let question = ["Verify and admit", "webhook", ""];
            detach(&common, &api, act, &job, question, which.yes).await
        }
        Command::Redrive { which, .. } => redrive(&common, &mut api, which).await,
    }
}

async fn discard(common: &CommonArgs, api: &mut Api, which: QuarantineArgs) -> anyhow::Result<()> {
    let ids = chosen(api, &which).await?;
    let what = format!(
        "Remove {} for good",
        telemetry::count(ids.len() as u64, "webhook")
    );
    if !ids.is_empty() {
        output::confirm(&what, api.place(), which.yes)?;
    }
    let mut counts = v1::BulkProgress::default();
    for ids in ids.chunks(TOGETHER).map(<[u64]>::to_vec) {
        let answer = api
            .discard_quarantined(v1::DiscardQuarantinedRequest { ids })
            .await;
        add(&mut counts, output::answered(answer)?.progress);
    }
    progress::ended(common, &counts, "removed", api.place(), "")
}

async fn redrive(common: &CommonArgs, api: &mut Api, which: QuarantineArgs) -> anyhow::Result<()> {
    let ids = chosen(api, &which).await?;
    if which.all && !ids.is_empty() {
        let what = format!(
            "Verify and admit {}",
            telemetry::count(ids.len() as u64, "webhook")
        );
        output::confirm(&what, api.place(), which.yes)?;
    }
    let mut counts = v1::BulkProgress::default();
    for ids in ids.chunks(TOGETHER).map(<[u64]>::to_vec) {
        let answer = api
            .redrive_quarantined(v1::RedriveQuarantinedRequest { ids })
            .await;
        add(&mut counts, output::answered(answer)?.progress);
    }
    progress::ended(common, &counts, "published", api.place(), "")
}

/// The numbers that were given, or all that there are now.
async fn chosen(api: &mut Api, which: &QuarantineArgs) -> anyhow::Result<Vec<u64>> {
    if !which.all {
        return Ok(which.ids.clone());
    }
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListQuarantinedRequest {
            page_size: PAGE,
            page_token,
            reference: String::new(),
        };
        let page = output::answered(api.list_quarantined(request).await)?;
        ids.extend(page.webhooks.iter().map(|webhook| webhook.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(ids);
        }
    }
}

fn add(counts: &mut v1::BulkProgress, more: Option<v1::BulkProgress>) {
    let more = more.unwrap_or_default();
    counts.succeeded += more.succeeded;
    counts.failed += more.failed;
    if counts.first_error.is_empty() {
        counts.first_error = more.first_error;
    }
}

fn list(common: &CommonArgs, bodies: &[v1::QuarantinedWebhook]) -> anyhow::Result<()> {
    if common.json {
        let webhooks: Vec<_> = bodies
            .iter()
            .map(|webhook| QuarantinedWebhook::new(webhook, false))
            .collect();
        return output::json(&webhooks);
    }
    let row = |body: &v1::QuarantinedWebhook| {
        vec![
            body.id.to_string(),
            body.reason.clone(),
            body.key.clone(),
            format!("{} bytes", body.bytes),
            when::and_age(body.received_at.as_ref()),
        ]
    };
    let rows = bodies.iter().map(row).collect();
    output::table(
        &["number", "reason", "key", "size", "arrived"],
        rows,
        "the quarantine is empty",
    );
    Ok(())
}

fn show(common: &CommonArgs, webhook: &v1::QuarantinedWebhook, body: bool) -> anyhow::Result<()> {
    if common.json {
        return output::json(&QuarantinedWebhook::new(webhook, body));
    }
    output::fields(&[
        ("number", webhook.id.to_string()),
        ("reason", webhook.reason.clone()),
        ("key", webhook.key.clone()),
        ("algorithm", webhook.algorithm.clone()),
        ("size", format!("{} bytes", webhook.bytes)),
        ("arrived", when::and_age(webhook.received_at.as_ref())),
    ]);
    if body {
        output::fields(&[("body", String::from_utf8_lossy(&webhook.body).into_owned())]);
    }
    Ok(())
}
