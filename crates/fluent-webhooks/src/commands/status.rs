//! Is it well?

use owo_colors::OwoColorize;
use serde_json::json;
use service::Shutdown;
use wire::v1;

use crate::api;
use crate::cli::Common;
use crate::commands::routes;
use crate::output;

pub(crate) async fn run(common: Common, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, &shutdown).await?;
    let status = output::answered(api.get_status(v1::GetStatusRequest {}).await)?;
    if common.json {
        return output::json(&json!({
            "well": status.well,
            "problems": status.problems,
            "routes": status.routes.iter().map(routes::describe).collect::<Vec<_>>(),
            "deadLetters": status.dead_letters,
            "unrouted": status.unrouted,
            "quarantined": status.quarantined,
            "refused": status.refused,
            "refusedBytes": status.refused_bytes,
            "version": status.version,
        }));
    }
    match status.well {
        true => output::line(format!("{}", "well".green().bold())),
        false => output::line(format!("{}", "needs somebody".red().bold())),
    }
    status.problems.iter().for_each(|problem| output::line(format!("  {problem}")));
    output::line("");
    routes::list(&common, &status.routes)
}
