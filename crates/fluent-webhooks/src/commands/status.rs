//! The command `status`: whether the product is well.

use anyhow::bail;
use owo_colors::OwoColorize;
use process::{NeedsAttention, Shutdown};
use proto::v1;

use crate::api;
use crate::cli::CommonArgs;
use crate::commands::routes;
use crate::json::Status;
use crate::output;

pub(crate) async fn run(
    common: CommonArgs,
    strict: bool,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, &shutdown).await?;
    let status = output::answered(api.get_status(v1::GetStatusRequest {}).await)?;
    if common.json {
        output::json(&Status::from(&status))?;
    } else {
        describe(&common, &status)?;
    }
    let is_needed = !status.now.is_empty() || strict && !status.later.is_empty();
    if is_needed {
        bail!(NeedsAttention)
    } else {
        Ok(())
    }
}

fn describe(common: &CommonArgs, status: &v1::GetStatusResponse) -> anyhow::Result<()> {
    match status.well {
        true => output::line(format!("{}", "well".green().bold())),
        false => output::line(format!("{}", "needs somebody now".red().bold())),
    }
    lines(&status.now);
    if !status.later.is_empty() {
        output::line(format!("\n{}", "when you have time".yellow().bold()));
        lines(&status.later);
    }
    output::line("");
    routes::list(common, &status.routes)?;
    let rows = status
        .processes
        .iter()
        .filter(|process| process.state != "closed")
        .map(|process| {
            vec![
                process.kind.clone(),
                format!("{}:{}", output::plain(&process.host), process.pid),
                process.state.clone(),
                process.version.clone(),
            ]
        });
    output::line("");
    output::table(
        &["process", "where", "state", "version"],
        rows.collect(),
        "no process is at work",
    );
    Ok(())
}

/// Prints each line with its page in the runbook, which has the next steps.
fn lines(lines: &[v1::Problem]) {
    for line in lines {
        output::line(format!("  {}", output::plain(&line.text)));
        output::line(format!("    {}", format!("see {}", line.runbook).dimmed()));
    }
}
