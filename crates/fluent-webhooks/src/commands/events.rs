use std::time::{Duration, Instant};

use owo_colors::OwoColorize;
use queue::{EventStory, Outcome, StoryState, StoryStep};
use service::Shutdown;

use crate::cli::Common;
use crate::{open, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// One entity's story: its events, every attempt, where each stands
    Show {
        /// An entityRef, a rootEntityRef, or an event's id or its first 8 digits
        reference: String,
        /// At most so many events, the newest first
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Bring this machine's index of a cluster's events up to date, so that `show`
    /// answers at once
    Index {
        /// Keep it so until told to stop
        #[arg(long)]
        follow: bool,
    },
}

/// How often an index that is kept up to date is.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(common: Common, command: Command, shutdown: Shutdown) -> anyhow::Result<()> {
    match command {
        Command::Show { reference, limit } => show(common, reference, limit).await,
        Command::Index { follow } => index(common, follow, &shutdown).await,
    }
}

async fn index(common: Common, follow: bool, shutdown: &Shutdown) -> anyhow::Result<()> {
    let (stores, began) = (open::stores_with_index(&common.config).await?, Instant::now());
    if !stores.history().catch_up().await? {
        anyhow::bail!(
            "these settings have no index: events of an embedded queue need none, those of a cluster `queue.index`"
        );
    }
    let took_ms = u64::try_from(began.elapsed().as_millis())?;
    match common.json {
        true => output::json(&serde_json::json!({ "tookMs": took_ms }))?,
        false => {
            output::line(format!("the index is up to date, after {:.1} s", began.elapsed().as_secs_f64()))
        }
    }
    let draining = shutdown.draining();
    while follow && draining.run_until_cancelled(tokio::time::sleep(FOLLOW_EVERY)).await.is_some() {
        // Servers that are away come back.
        if let Err(error) = stores.history().catch_up().await {
            output::line(format!("not up to date: {error}"));
        }
    }
    Ok(())
}

async fn show(common: Common, reference: String, limit: usize) -> anyhow::Result<()> {
    let stores = open::stores_with_index(&common.config).await?;
    let stories = stores.history().find(&reference, limit).await?;
    if common.json {
        return output::json(&stories);
    }
    if stories.is_empty() {
        anyhow::bail!(
            "no event of `{reference}` is kept; was it refused, or is it older than the retention?"
        );
    }
    stories.iter().for_each(tell);
    Ok(())
}

fn tell(story: &EventStory) {
    let entity = story.entity.as_deref().unwrap_or("(no entity)");
    output::line(format!("{}  {}  {}", story.name.bold(), entity, story.source));
    output::line(format!("  id        {}", story.id));
    output::line(format!("  arrived   {}", output::time(story.received_at)));
    if let Some(trace) = &story.trace_id {
        output::line(format!("  trace     {trace}"));
    }
    for step in &story.steps {
        output::line(format!("  {}", attempt(step)));
    }
    for state in &story.states {
        output::line(format!("  {}", stands(state)));
    }
    output::line("");
}

fn attempt(step: &StoryStep) -> String {
    let record = &step.record;
    let outcome = match record.outcome {
        Outcome::Done => record.outcome.as_str().green().to_string(),
        other => other.as_str().yellow().to_string(),
    };
    let again = if step.redrive > 0 { format!(" (redrive {})", step.redrive) } else { String::new() };
    let status = record.status.map_or(String::new(), |status| format!(" {status}"));
    let detail = record.detail.as_deref().map_or(String::new(), |detail| format!(": {detail}"));
    format!(
        "{}  {}{again} attempt {}: {outcome}{status} in {:?}{detail}",
        output::time(record.started_at),
        step.route,
        step.attempt,
        record.took,
    )
}

fn stands(state: &StoryState) -> String {
    match state {
        StoryState::Done { route } => format!("{route}: {}", "done".green()),
        StoryState::InFlight { route } => format!("{route}: being attempted"),
        StoryState::Waiting { route, due } => {
            format!("{route}: {} until {}", "waiting".yellow(), output::time(*due))
        }
        StoryState::Dead { route, letter, reason } => {
            format!("{route}: {} {letter} ({reason})", "dead letter".red())
        }
        StoryState::NotReached { route } => format!("{route}: not reached yet"),
        other => format!("{other:?}"),
    }
}
