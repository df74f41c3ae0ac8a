//! The command `audit`: the changes that were made, and who made them.

use process::Shutdown;
use proto::v1;

use crate::api;
use crate::cli::CommonArgs;
use crate::json::AuditEntry;
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
        let entries: Vec<_> = entries.iter().map(AuditEntry::from).collect();
        return output::json(&entries);
    }
    let row = |entry: &v1::AuditEntry| {
        vec![
            when::and_age(entry.occurred_at.as_ref()),
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
