//! The command `spool`: the state of spools, draining one, and forgetting a lost one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Subcommand;
use event_model::SystemClock;
use operator::Audit;
use queue::{SpoolWatermark, facts};
use serde_json::json;

use crate::cli::CommonArgs;
use crate::json::{DrainedSpool, Spool, SpoolState};
use crate::{api, open, output};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what a spool holds; the gateway may be running
    Status {
        /// The spool's file; left out, the one of the settings
        #[arg(long)]
        path: Option<PathBuf>,
    },
    /// How far every spool of the cluster is drained, as the gateways say
    List,
    /// Give up a spool that is lost with its gateway: nobody waits for it any more
    Forget {
        /// Its id, as `list` shows it
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Give everything to the queue and read it back; not while its gateway runs
    Drain {
        /// The spool's file
        #[arg(long)]
        path: PathBuf,
    },
}

pub(crate) async fn run(common: CommonArgs, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Status { path } => status(&common, path),
        Command::Drain { path } => drain(&common, path).await,
        Command::List => list(&common).await,
        Command::Forget { id, yes } => forget(&common, &id, yes).await,
    }
}

async fn list(common: &CommonArgs) -> anyhow::Result<()> {
    let stores = open::stores(&common.config).await?;
    let spools = facts::spools(stores.facts()).await?;
    if common.json {
        let spools: Vec<_> = spools
            .iter()
            .map(|(id, spool)| Spool::new(id, spool))
            .collect();
        return output::json(&spools);
    }
    let row = |(
        id,
        SpoolWatermark {
            host,
            drained_to,
            is_closed,
        },
    )| {
        let state = if is_closed {
            "closed, and empty"
        } else {
            "open"
        };
        vec![
            id,
            output::plain(&host),
            output::time(drained_to),
            state.to_owned(),
        ]
    };
    let rows = spools.into_iter().map(row).collect();
    output::table(
        &["spool", "of", "drained up to", "state"],
        rows,
        "no spool has said anything",
    );
    Ok(())
}

async fn forget(common: &CommonArgs, id: &str, yes: bool) -> anyhow::Result<()> {
    let stores = open::stores(&common.config).await?;
    if !facts::spools(stores.facts())
        .await?
        .iter()
        .any(|(known, _)| known == id)
    {
        bail!("no spool is called {id}: see `spool list`");
    }
    let what = format!("Give up the spool {id}, of which events may be admitted a second time");
    let place = open::place(&open::tree(&common.config)?.queue()?);
    output::confirm(&what, &place, yes)?;
    let audit = Audit::new(open::tree(&common.config)?.audit()?, Arc::new(SystemClock));
    let begun = audit
        .begin(&api::whoami(), "ForgetSpool", json!({ "id": id }))
        .await;
    let begun = begun.map_err(|status| anyhow!(output::said(&status)))?;
    facts::forget_spool(stores.facts(), id).await?;
    begun.end(1, 0, "done").await;
    output::done(common, "forgotten", &place)
}

fn status(common: &CommonArgs, path: Option<PathBuf>) -> anyhow::Result<()> {
    let path = match path {
        Some(path) => path,
        None => {
            let tree = open::tree(&common.config)?;
            match tree.spool(&tree.queue()?)? {
                Some(spool) => spool.path,
                None => bail!("the settings have no spool: give its file with --path"),
            }
        }
    };
    let state = queues::spool_state(&path)?;
    if common.json {
        return output::json(&SpoolState::new(&path, &state));
    }
    let oldest = state
        .oldest_unsent
        .map_or(String::new(), |time| format!(", the oldest of {time:.0}"));
    output::line(format!(
        "{}: {:.1} MiB",
        path.display(),
        state.bytes as f64 / f64::from(1 << 20)
    ));
    output::line(format!(
        "  {:>9} not yet acknowledged by the queue{oldest}",
        state.unsent
    ));
    output::line(format!(
        "  {:>9} acknowledged, to be read back before they go",
        state.unconfirmed
    ));
    output::line(format!(
        "  {:>9} set aside: damaged, or larger than the queue takes",
        state.set_aside
    ));
    output::line(format!(
        "  {:>9} bodies for the quarantine",
        state.quarantined
    ));
    Ok(())
}

async fn drain(common: &CommonArgs, path: PathBuf) -> anyhow::Result<()> {
    if !path.exists() {
        bail!("there is no {}", path.display());
    }
    let clock = Arc::new(SystemClock);
    let queue = open::tree(&common.config)?.queue()?;
    let opened = queues::open(&queue, "drain", Arc::clone(&clock) as _).await?;
    let drained = queues::drain(&path, Arc::clone(&opened.upstream), clock).await;
    opened.lifecycle.close().await;
    let drained = drained?;
    if common.json {
        output::json(&DrainedSpool::from(&drained))?;
    } else {
        describe(&drained);
    }
    if drained.is_waited_for && drained.left == 0 && !common.json {
        output::line(
            "it still counts as a spool to wait for: `spool list` shows it, `spool forget` ends that",
        );
    }
    if drained.left > 0 {
        bail!(
            "{} rows are left: damaged, or larger than the queue takes",
            drained.left
        );
    }
    Ok(())
}

fn describe(drained: &queues::DrainReport) {
    output::line(format!(
        "{} sent for the first time, {} read back, {} that the queue had lost given again, {} bodies for the quarantine, {} left",
        drained.sent, drained.confirmed, drained.refed, drained.quarantined, drained.left
    ));
}
