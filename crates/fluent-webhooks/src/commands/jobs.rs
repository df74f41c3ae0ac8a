//! `jobs`: bulk acts as records, and what makes one of a command.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;
use process::Shutdown;
use proto::v1;
use proto::v1::job_spec::Act;
use tokio::time::sleep;

use crate::api::{self, Api};
use crate::cli::CommonArgs;
use crate::json::{Job, JobFailure, act};
use crate::{output, progress, when};

/// Most entries in one answer.
const PAGE: usize = 1000;

/// Interval at which a job is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, newest first
    List {
        /// Only in this state: waiting, running, paused, done, cancelled, failed
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one
    Show {
        /// Its id, or the beginning of it
        id: String,
        /// Wait until it is over, and show how far it is
        #[arg(long)]
        wait: bool,
    },
    /// What one could not do, one by one
    Failures {
        /// Its id, or the beginning of it
        id: String,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Stop one after what it is at, until it is resumed
    Pause {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Let a paused one go on
    Resume {
        /// Its id, or the beginning of it
        id: String,
    },
    /// End one after what it is at; what was done stays so
    Cancel {
        /// Its id, or the beginning of it
        id: String,
    },
}

/// How to make a job of a command.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct DetachArgs {
    /// Make a job of it, and do not wait: a server works it off; see `jobs`
    #[arg(long)]
    detach: bool,
    /// Of a job: why it is done
    #[arg(long, value_name = "TEXT", requires = "detach")]
    why: Option<String>,
    /// Of a job: at most so many in a second
    #[arg(long, value_name = "NUMBER", requires = "detach")]
    rate: Option<u32>,
    /// Of a job: how many there have to be, or it is not made
    #[arg(long, value_name = "NUMBER", requires = "detach")]
    count: Option<u64>,
}

impl DetachArgs {
    /// True if the command is to make a job.
    pub(crate) fn is_job(&self) -> bool {
        self.detach
    }
}

pub(crate) async fn run(
    common: CommonArgs,
    command: Command,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let api = api::open(&common, false, &shutdown).await?;
    let mut jobs = api.jobs();
    let job = match command {
        Command::List { state, limit } => {
            let found = list(&api, &state.unwrap_or_default(), limit).await?;
            return print_list(&common, &found);
        }
        Command::Failures { id, limit } => return failures(&common, &api, &id, limit).await,
        Command::Show { id, wait: true } => return wait_for(&common, &api, &id).await,
        Command::Show { id, wait: false } => get(&api, &id).await?,
        Command::Pause { id } => {
            let answer = jobs.pause_job(v1::PauseJobRequest { id }).await;
            output::answered(answer)?.job.unwrap_or_default()
        }
        Command::Resume { id } => {
            let answer = jobs.resume_job(v1::ResumeJobRequest { id }).await;
            output::answered(answer)?.job.unwrap_or_default()
        }
        Command::Cancel { id } => {
            let answer = jobs.cancel_job(v1::CancelJobRequest { id }).await;
            output::answered(answer)?.job.unwrap_or_default()
        }
    };
    print(&common, &job)
}

/// Makes a job of what a command was asked to do: counts, asks, and leaves it to a server. The
/// question is a verb, the name of one thing, and the rest.
pub(crate) async fn detach(
    common: &CommonArgs,
    api: &Api,
    act: Act,
    args: &DetachArgs,
    question: [&str; 3],
    yes: bool,
) -> anyhow::Result<()> {
    let Some(why) = args.why.clone() else {
        bail!("a job needs a reason, for others and for the audit log: say --why TEXT");
    };
    let spec = v1::JobSpec { act: Some(act) };
    let mut jobs = api.jobs();
    let request = v1::PreviewJobRequest {
        spec: Some(spec.clone()),
    };
    let preview = output::answered(jobs.preview_job(request).await)?;
    let is_discard = matches!(&spec.act, Some(Act::Discard(_)));
    let [what, one, how] = question;
    let things = telemetry::count(preview.count, one);
    let asked = format!("{what} {things}{how}, as a job");
    let expected = match args.count {
        Some(count) => Some(count),
        None if is_discard => Some(typed_number(&asked, api.place())?),
        None => {
            if preview.count > 0 {
                output::confirm(&asked, api.place(), yes)?;
            }
            Some(preview.count)
        }
    };
    let request = v1::CreateJobRequest {
        // One that is sent again, as its answer got lost, is the same job.
        request_id: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
        spec: Some(spec),
        cut_off: Some(preview.cut_off),
        expected_count: expected,
        reason: why,
        rate: args.rate.unwrap_or_default(),
    };
    let created = output::answered(jobs.create_job(request).await)?;
    let job = created.job.unwrap_or_default();
    if common.json {
        return output::json(&Job::from(&job));
    }
    let total = job.progress.clone().unwrap_or_default().total;
    output::line(format!(
        "job {} of {total}, {}; `fluent-webhooks jobs show {} --wait` tells how far it is",
        job.id,
        api.place(),
        job.id
    ));
    Ok(())
}

/// Asks for the number of what is lost for good.
fn typed_number(what: &str, place: &str) -> anyhow::Result<u64> {
    if !std::io::stdin().is_terminal() {
        bail!("{what}, {place}? Say `--count NUMBER`, the number that you expect");
    }
    let answer = output::ask(&format!("{what}, {place}? Type their number"))?;
    match answer.trim().parse() {
        Ok(number) => Ok(number),
        Err(_) => bail!("nothing was done"),
    }
}

async fn get(api: &Api, id: &str) -> anyhow::Result<v1::Job> {
    let request = v1::GetJobRequest { id: id.to_owned() };
    let answer = api.jobs().get_job(request).await;
    Ok(output::answered(answer)?.job.unwrap_or_default())
}

async fn list(api: &Api, state: &str, limit: usize) -> anyhow::Result<Vec<v1::Job>> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    while found.len() < limit {
        let request = v1::ListJobsRequest {
            state: state.to_owned(),
            page_size: u32::try_from((limit - found.len()).min(PAGE))?,
            page_token,
        };
        let page = output::answered(api.jobs().list_jobs(request).await)?;
        found.extend(page.jobs);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(found)
}

fn print_list(common: &CommonArgs, found: &[v1::Job]) -> anyhow::Result<()> {
    if common.json {
        let jobs: Vec<_> = found.iter().map(Job::from).collect();
        return output::json(&jobs);
    }
    let row = |job: &v1::Job| {
        vec![
            job.id.clone(),
            act(job).unwrap_or_default().to_owned(),
            job.state.clone(),
            how_far(job),
            output::plain(&job.created_by),
            when::and_age(job.created_at.as_ref()),
            output::plain(&job.reason),
            output::plain(&job.detail),
        ]
    };
    let header = ["job", "act", "state", "done", "by", "made", "why", "detail"];
    output::table(&header, found.iter().map(row).collect(), "no jobs");
    Ok(())
}

/// `7 of 10, 2 failed`.
fn how_far(job: &v1::Job) -> String {
    let counts = job.progress.clone().unwrap_or_default();
    let mut text = format!("{} of {}", counts.succeeded, counts.total);
    let others = [
        (counts.failed, "failed"),
        (counts.skipped, "left out"),
        (counts.unknown, "unknown"),
    ];
    for (count, word) in others {
        if count > 0 {
            text += &format!(", {count} {word}");
        }
    }
    text
}

fn print(common: &CommonArgs, job: &v1::Job) -> anyhow::Result<()> {
    if common.json {
        return output::json(&Job::from(job));
    }
    let counts = job.progress.clone().unwrap_or_default();
    let rate = match job.rate {
        0 => String::new(),
        rate => format!("{rate} a second"),
    };
    output::fields(&[
        ("job", job.id.clone()),
        ("act", act(job).unwrap_or_default().to_owned()),
        ("state", job.state.clone()),
        ("detail", job.detail.clone()),
        ("done", how_far(job)),
        ("first error", counts.first_error),
        ("why", job.reason.clone()),
        ("by", job.created_by.clone()),
        ("made", when::and_age(job.created_at.as_ref())),
        ("began", when::and_age(job.started_at.as_ref())),
        ("over", when::and_age(job.ended_at.as_ref())),
        ("rate", rate),
        ("at", job.executor.clone()),
        ("numbers", job.succeeded_ids.clone()),
    ]);
    Ok(())
}

async fn failures(common: &CommonArgs, api: &Api, id: &str, limit: usize) -> anyhow::Result<()> {
    let job = get(api, id).await?;
    let is_replay = act(&job) == Some("replay");
    let mut found = Vec::new();
    let mut page_token = String::new();
    let mut not_kept = 0;
    while found.len() < limit {
        let request = v1::ListJobFailuresRequest {
            id: job.id.clone(),
            page_size: u32::try_from((limit - found.len()).min(PAGE))?,
            page_token,
        };
        let page = output::answered(api.jobs().list_job_failures(request).await)?;
        found.extend(page.failures);
        (page_token, not_kept) = (page.next_page_token, page.not_kept);
        if page_token.is_empty() {
            break;
        }
    }
    if common.json {
        let failures = found.iter().map(|it| JobFailure::new(is_replay, it));
        return output::json(&failures.collect::<Vec<_>>());
    }
    let row = |it: &v1::JobFailure| vec![it.id.to_string(), output::plain(&it.error)];
    output::table(
        &["number", "why"],
        found.iter().map(row).collect(),
        "nothing failed",
    );
    if not_kept > 0 {
        output::note(&format!(
            "{not_kept} more failed, which are not kept one by one"
        ));
    }
    Ok(())
}

/// Shows how far a job is until it is over.
async fn wait_for(common: &CommonArgs, api: &Api, id: &str) -> anyhow::Result<()> {
    let bar = progress::bar(common, "working");
    let job = loop {
        let job = get(api, id).await?;
        let counts = job.progress.clone().unwrap_or_default();
        progress::set_length(&bar, counts.total);
        bar.set_position(counts.succeeded + counts.failed + counts.skipped + counts.unknown);
        if job.ended_at.is_some() {
            break job;
        }
        if job.state == "paused" {
            bar.abandon();
            bail!("job {} is paused: {}", job.id, job.detail);
        }
        sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    print(common, &job)?;
    let failed = job.progress.clone().unwrap_or_default().failed;
    if failed > 0 {
        let id = &job.id;
        bail!("{failed} could not be done: see `fluent-webhooks jobs failures {id}`");
    }
    match job.state.as_str() {
        "done" => Ok(()),
        state => bail!("job {} is {state}: {}", job.id, job.detail),
    }
}
