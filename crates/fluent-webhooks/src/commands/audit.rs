//! The command `audit`: the changes that were made, and who made them.

use process::Shutdown;
use proto::v1;
use serde_json::json;

use crate::api;
use crate::cli::CommonArgs;
use crate::{output, when};

/// Longest text of a cell, in characters.
const LONGEST: usize = 120;

pub(crate) async fn run(common: CommonArgs, limit: u32, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, &shutdown).await?;
    let answer = api
        .list_audit(v1::ListAuditRequest { page_size: limit })
        .await;
    let entries = output::answered(answer)?.entries;
    if common.json {
        let describe = |entry: &v1::AuditEntry| {
            let request: serde_json::Value =
                serde_json::from_str(&entry.request).unwrap_or_default();
            json!({
                "at": when::json(entry.occurred_at.as_ref()),
                "who": entry.actor,
                "action": entry.action,
                "request": request,
                "touched": entry.affected,
                "failed": entry.failed,
                "touched-ids": output::or_null(&entry.affected_ids),
                "failed-ids": output::or_null(&entry.failed_ids),
                "outcome": entry.outcome,
            })
        };
        return output::json(&entries.iter().map(describe).collect::<Vec<_>>());
    }
    let row = |entry: &v1::AuditEntry| {
        vec![
            when::text(entry.occurred_at.as_ref()),
            entry.actor.clone(),
            entry.action.clone(),
            entry.affected.to_string(),
            entry.failed.to_string(),
            entry.outcome.clone(),
            shortened(&entry.affected_ids),
            shortened(&entry.failed_ids),
            shortened(&entry.request),
        ]
    };
    let header = [
        "at",
        "who",
        "action",
        "touched",
        "failed",
        "outcome",
        "ids",
        "failed ids",
        "request",
    ];
    output::table(
        &header,
        entries.iter().map(row).collect(),
        "nothing was changed",
    );
    Ok(())
}

/// The text cut for a table, which a long list would make unreadable. `--json` has all of it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
