//! The command `processes`: the processes that report themselves, and those that are gone.

use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Subcommand;
use event_model::{Clock, SystemClock};
use operator::Audit;
use queue::processes::{ProcessSeen, forget_process, processes};
use serde_json::json;

use crate::cli::CommonArgs;
use crate::json::{Process, process_state};
use crate::{api, open, output};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Every process that has said how it does, and when it last did
    List,
    /// Give up a process that will not come back: `status` names it no more
    Forget {
        /// Its id, as `list` shows it
        id: String,
    },
}

pub(crate) async fn run(common: CommonArgs, command: Command) -> anyhow::Result<()> {
    let stores = open::stores(&common.config).await?;
    let known = process::with_deaths(processes(stores.facts()).await?);
    match command {
        Command::List => list(&common, &known),
        Command::Forget { id } => {
            if !known.iter().any(|seen| seen.id == id) {
                bail!("no process is called {id}: see `processes list`");
            }
            let audit = Audit::new(open::tree(&common.config)?.audit()?, Arc::new(SystemClock));
            let begun = audit
                .begin(&api::whoami(), "ForgetProcess", json!({ "id": id }))
                .await;
            let begun = begun.map_err(|status| anyhow!(output::said(&status)))?;
            forget_process(stores.facts(), &id).await?;
            begun.end(1, 0, "done").await;
            let place = open::place(&open::tree(&common.config)?.queue()?);
            output::done(&common, "forgotten", &place)
        }
    }
}

fn list(common: &CommonArgs, known: &[ProcessSeen]) -> anyhow::Result<()> {
    let now = SystemClock.now();
    if common.json {
        let processes: Vec<_> = known.iter().map(|seen| Process::seen(seen, now)).collect();
        return output::json(&processes);
    }
    let row = |seen: &ProcessSeen| {
        let report = &seen.report;
        vec![
            seen.id.clone(),
            report.kind.clone(),
            format!("{}:{}", output::plain(&report.host), report.pid),
            process_state(seen, now).to_owned(),
            output::time_and_age(seen.seen_at, now),
            report.version.clone(),
        ]
    };
    let rows = known.iter().map(row).collect();
    output::table(
        &["process", "kind", "where", "state", "last said", "version"],
        rows,
        "no process has said anything",
    );
    Ok(())
}
