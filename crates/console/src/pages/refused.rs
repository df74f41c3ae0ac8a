//! Webhooks that were refused, and are held since their key or account may only be missing.

use maud::{Markup, html};
use proto::v1;
use settings::Role;

use super::letter_changes::follow;
use super::{PAGE_SIZE, as_files, ended, next_page, nothing, same_by, table};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, shown, shown_lines, time};

const PATH: &str = "/refused";

pub(crate) async fn list(mut visit: Visit) -> Result<Reply, PageError> {
    let request = v1::ListRefusedRequest {
        page_size: PAGE_SIZE,
        page_token: visit.params.get("page").to_owned(),
        reference: String::new(),
    };
    let found = visit.api.list_refused(request).await?.into_inner();
    let main = html! {
        @if found.webhooks.is_empty() {
            (nothing("Nothing that was refused is held", "A webhook that names a listed account and was answered 401 or 403 is held for 72 hours."))
        } @else {
            (checks(&visit))
            (table_of(&found.webhooks))
        }
        (next_page(PATH, &[], &visit.params, &found.next_page_token, "Newer ones"))
        (as_files("refused", &[]))
        (same_by(&["refused", "list"], &[]))
    };
    Ok(Reply::Page("Refused", main))
}

fn checks(visit: &Visit) -> Markup {
    html! {
        @if visit.may(&Role::Operate) {
            form class="act" method="post" action="/refused/check" {
                button { "How many would verify now?" }
                span class="soft" { "By the keys and accounts that the settings have now." }
            }
        }
    }
}

fn table_of(refused: &[v1::RefusedWebhook]) -> Markup {
    let rows = refused.iter().map(|it| {
        vec![
            html! { a href=(format!("{PATH}/{}", it.id)) { (it.id) } },
            time(it.received_at.as_ref()),
            html! { (shown(&it.reason)) },
            html! { (shown(&it.account)) },
            html! { (it.bytes) },
        ]
    });
    let rows: Vec<_> = rows.collect();
    let head = [
        "number",
        "received",
        "reason",
        "account that it names",
        "bytes",
    ];
    table(&count(rows.len() as u64, "webhook"), &head, &rows)
}

pub(crate) async fn explain(mut visit: Visit, id: u64) -> Result<Reply, PageError> {
    let request = v1::ExplainRefusedRequest { id };
    let found = visit.api.explain_refused(request).await?.into_inner();
    let refused = found.webhook.unwrap_or_default();
    let main = html! {
        div class=(if found.admissible { "box good" } else { "box wait" }) {
            p { strong { @if found.admissible { "It verifies now." } @else { "It is still refused." } } }
        }
        pre { (shown_lines(&found.explanation)) }
        dl {
            dt { "Received" } dd { (time(refused.received_at.as_ref())) }
            dt { "Refused for" } dd { (shown(&refused.reason)) }
            dt { "Account that it names" } dd { (shown(&refused.account)) }
        }
        (checks(&visit))
        (same_by(&["refused", "explain", &id.to_string()], &[]))
    };
    Ok(Reply::Page("Refused webhook", main))
}

/// Verifies all that is held, and admits what verifies if that was asked for.
pub(crate) async fn recheck(mut visit: Visit, admit: bool) -> Result<Reply, PageError> {
    let request = v1::RecheckRefusedRequest { admit };
    let stream = visit.api.recheck_refused(request).await?.into_inner();
    let (counts, is_whole) = follow(stream, |answer| answer.progress).await?;
    if admit {
        return Ok(Reply::Page(
            "Admitted",
            ended(&counts, "admitted", PATH, is_whole),
        ));
    }
    let all = counts.succeeded + counts.skipped;
    let main = html! {
        div class="box" role="status" { p { strong { (counts.succeeded) " of " (all) " would verify now." } } }
        @if counts.succeeded > 0 {
            form class="act" method="post" action="/refused/admit" {
                button { "Admit what verifies" }
                a href=(PATH) { "Leave them" }
            }
        }
        (same_by(&["refused", "recheck"], &[]))
    };
    Ok(Reply::Page("Would verify now", main))
}
