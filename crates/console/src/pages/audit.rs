//! The audit log, the newest first.

use maud::html;
use proto::v1;

use super::{PAGE_SIZE, as_files, nothing, same_by, state, table};
use crate::params::link;
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{cell, count, shown, time};

/// Most entries that one page shows.
const MAX_SHOWN: u32 = 200;

pub(crate) async fn list(mut visit: Visit) -> Result<Reply, PageError> {
    let asked = visit.params.get("show").parse().unwrap_or(PAGE_SIZE);
    let page_size = asked.clamp(1, MAX_SHOWN);
    let request = v1::ListAuditRequest { page_size };
    let entries = visit.api.list_audit(request).await?.into_inner().entries;
    let rows = entries.iter().map(|entry| {
        vec![
            time(entry.occurred_at.as_ref()),
            html! { (shown(&entry.actor)) },
            html! { (shown(&entry.action)) },
            state(&entry.outcome),
            html! { (entry.affected) @if entry.failed > 0 { ", failed " (entry.failed) } },
            html! { code { (cell(&entry.request)) } },
        ]
    });
    let rows: Vec<_> = rows.collect();
    let head = [
        "when",
        "who",
        "what",
        "how it ended",
        "touched",
        "asked for",
    ];
    let limit = page_size.to_string();
    let main = html! {
        @if rows.is_empty() {
            (nothing("Nothing was changed yet", "Each change, and each look at a body, has a line when it begins and one when it ends."))
        } @else {
            (table(&count(rows.len() as u64, "line"), &head, &rows))
        }
        @if rows.len() == page_size as usize && page_size < MAX_SHOWN {
            p { a href=(link("/audit", &[("show", MAX_SHOWN.to_string())])) { "More" } }
        }
        (as_files("audit", &[]))
        (same_by(&["audit"], &[("--limit", &limit)]))
    };
    Ok(Reply::Page("Audit", main))
}
