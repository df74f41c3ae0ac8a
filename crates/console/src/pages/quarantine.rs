//! Genuine bodies that are not events.

use maud::{Markup, html};
use proto::v1;
use settings::Role;

use super::{PAGE_SIZE, as_files, body_text, ended, next_page, nothing, same_by, selected, table};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count_of, shown, time};

const PATH: &str = "/quarantine";

pub(crate) async fn list(mut visit: Visit) -> Result<Reply, PageError> {
    let request = v1::ListQuarantinedRequest {
        page_size: PAGE_SIZE,
        page_token: visit.params.get("page").to_owned(),
        reference: String::new(),
    };
    let found = visit.api.list_quarantined(request).await?.into_inner();
    let main = html! {
        @if found.webhooks.is_empty() {
            (nothing("Nothing is in quarantine", "A body with a good signature that is not an event is kept here, for a person."))
        } @else {
            (form(&visit, &found.webhooks))
        }
        (next_page(PATH, &[], &visit.params, &found.next_page_token, "Newer ones"))
        (as_files("quarantine", &[]))
        (same_by(&["quarantine", "list"], &[]))
    };
    Ok(Reply::Page("Quarantine", main))
}

fn form(visit: &Visit, bodies: &[v1::QuarantinedWebhook]) -> Markup {
    let may = visit.may(&Role::Operate);
    let rows: Vec<_> = bodies.iter().map(|body| row(body, may)).collect();
    let head = [
        if may { "mark" } else { "" },
        "number",
        "received",
        "why it is no event",
        "key",
        "bytes",
        "",
    ];
    html! {
        form id="marked" action="/quarantine/change" {
            @if may {
                div class="act" {
                    label { "All on this page" input type="checkbox" data-all hidden; }
                    button name="action" value="redrive" { "Admit again what is marked" }
                    @if visit.may(&Role::Admin) { button class="danger" name="action" value="discard" { "Discard what is marked" } }
                }
            }
        }
        (table(&count_of(rows.len() as u64, "body", "bodies"), &head, &rows))
    }
}

fn row(body: &v1::QuarantinedWebhook, may: bool) -> Vec<Markup> {
    let id = body.id;
    vec![
        html! { @if may { input type="checkbox" form="marked" name="id" value=(id) aria-label=(format!("Mark {id}")); } },
        html! { (id) },
        time(body.received_at.as_ref()),
        html! { (shown(&body.reason)) },
        html! { (shown(&body.key)) " " span class="soft" { (shown(&body.algorithm)) } },
        html! { (body.bytes) },
        html! {
            @if may {
                form method="post" action=(format!("{PATH}/{id}/body")) { button { "Show the body" } }
            }
        },
    ]
}

/// Asks before a change.
pub(crate) fn ask(visit: Visit) -> Result<Reply, PageError> {
    let ids = selected(&visit.params)?;
    let bodies = count_of(ids.len() as u64, "body", "bodies");
    let (title, action, what) = match visit.params.get("action") {
        "redrive" => (
            "Admit again?",
            "redrive",
            "will be verified and admitted by the settings of today.",
        ),
        "discard" => (
            "Discard?",
            "discard",
            "will be removed for good. Nobody can bring them back.",
        ),
        _ => return Err(PageError::bad("action: expected redrive or discard")),
    };
    let words: Vec<String> = ids.iter().map(u64::to_string).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let main = html! {
        div class="box" { p { strong { (bodies) } " " (what) } }
        form class="act" method="post" action=(format!("{PATH}/{action}")) {
            @for id in &ids { input type="hidden" name="id" value=(id); }
            button { (title.trim_end_matches('?')) }
            a href=(PATH) { "Leave them" }
        }
        (same_by(&[&["quarantine", action], &words[..]].concat(), &[]))
    };
    Ok(Reply::Page(title, main))
}

pub(crate) async fn redrive(mut visit: Visit) -> Result<Reply, PageError> {
    let ids = selected(&visit.params)?;
    let request = v1::RedriveQuarantinedRequest { ids };
    let counts = visit
        .api
        .redrive_quarantined(request)
        .await?
        .into_inner()
        .progress;
    let main = ended(&counts.unwrap_or_default(), "admitted", PATH, true);
    Ok(Reply::Page("Admitted", main))
}

pub(crate) async fn discard(mut visit: Visit) -> Result<Reply, PageError> {
    let ids = selected(&visit.params)?;
    let request = v1::DiscardQuarantinedRequest { ids };
    let counts = visit
        .api
        .discard_quarantined(request)
        .await?
        .into_inner()
        .progress;
    let main = ended(&counts.unwrap_or_default(), "discarded", PATH, true);
    Ok(Reply::Page("Discarded", main))
}

pub(crate) async fn body(mut visit: Visit, id: u64) -> Result<Reply, PageError> {
    let request = v1::GetQuarantinedRequest {
        id,
        include_body: true,
    };
    let found = visit
        .api
        .get_quarantined(request)
        .await?
        .into_inner()
        .webhook;
    let found = found.unwrap_or_default();
    let number = id.to_string();
    let line = crate::command_line::command(&["quarantine", "show", &number, "--body"], &[]);
    let command = html! { @if let Some(line) = line { p { "The same in a shell: " code class="command" { (line) } } } };
    let main = html! {
        p { "Of number " (id) " of the " a href=(PATH) { "quarantine" } ": " (shown(&found.reason)) }
        (body_text(&found.body, command))
    };
    Ok(Reply::Page("Body", main))
}
