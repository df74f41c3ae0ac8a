//! What was changed, and by whom.

use serde_json::json;
use service::Shutdown;
use wire::v1;

use crate::api;
use crate::cli::Common;
use crate::{output, when};

pub(crate) async fn run(common: Common, limit: u32, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, &shutdown).await?;
    let answer = api.list_audit(v1::ListAuditRequest { page_size: limit }).await;
    let entries = output::answered(answer)?.entries;
    if common.json {
        let describe = |entry: &v1::AuditEntry| {
            let request: serde_json::Value = serde_json::from_str(&entry.request).unwrap_or_default();
            json!({
                "at": when::json(entry.at.as_ref()),
                "who": entry.who,
                "action": entry.action,
                "request": request,
                "touched": entry.touched,
                "failed": entry.failed,
                "outcome": entry.outcome,
            })
        };
        return output::json(&entries.iter().map(describe).collect::<Vec<_>>());
    }
    let row = |entry: &v1::AuditEntry| {
        vec![
            when::text(entry.at.as_ref()),
            entry.who.clone(),
            entry.action.clone(),
            entry.touched.to_string(),
            entry.failed.to_string(),
            entry.outcome.clone(),
            entry.request.clone(),
        ]
    };
    let header = ["at", "who", "action", "touched", "failed", "outcome", "request"];
    output::table(&header, entries.iter().map(row).collect(), "nothing was changed");
    Ok(())
}
