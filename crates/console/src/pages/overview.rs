//! The first page: what needs somebody, the routes, and who runs.

use maud::{Markup, html};
use proto::v1;

use super::{nothing, routes, same_by, state, table};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, count_of, shown, time};

pub(crate) async fn show(mut visit: Visit) -> Result<Reply, PageError> {
    let status = visit.api.get_status(v1::GetStatusRequest {}).await?;
    let status = status.into_inner();
    let main = html! {
        (needs(&status))
        (numbers(&status))
        h2 { "Routes" }
        (routes::table_of(&visit, &status.routes))
        h2 { "Processes" }
        (processes(&status.processes))
        @if !status.servers.is_empty() {
            h2 { "Servers behind the queue" }
            (servers(&status.servers))
        }
        (same_by(&["status"], &[]))
    };
    Ok(Reply::Page("Overview", main))
}

fn needs(status: &v1::GetStatusResponse) -> Markup {
    html! {
        @if status.now.is_empty() && status.later.is_empty() {
            div class="box good" role="status" { p { strong { "Well. " } "Nobody is needed." } }
        }
        @if !status.now.is_empty() {
            div class="box bad" {
                h2 { "Somebody is needed now" }
                (lines(&status.now))
            }
        }
        @if !status.later.is_empty() {
            div class="box wait" {
                h2 { "When there is time" }
                (lines(&status.later))
            }
        }
    }
}

fn lines(lines: &[v1::Problem]) -> Markup {
    html! {
        ul {
            @for line in lines {
                li {
                    (shown(&line.text)) " "
                    @if let Some((path, name)) = list_of(&line.alert) { a href=(path) { (name) } " " }
                    span class="soft" { "(" (shown(&line.alert)) ", " (shown(&line.runbook)) ")" }
                }
            }
        }
    }
}

/// The page that has what a line counts.
fn list_of(alert: &str) -> Option<(&'static str, &'static str)> {
    Some(match alert {
        "FluentDeadLetters" => ("/dead-letters", "Dead letters"),
        "FluentUnrouted" => ("/unrouted", "Unrouted"),
        "FluentQuarantined" | "FluentQuarantineFull" => ("/quarantine", "Quarantine"),
        "FluentRefusedHeld" | "FluentGenuineRefused" | "FluentSignaturesFail" => {
            ("/refused", "Refused")
        }
        _ if alert.starts_with("FluentRoute") || alert == "FluentBreakerOpen" => {
            ("/routes", "Routes")
        }
        _ => return None,
    })
}

fn numbers(status: &v1::GetStatusResponse) -> Markup {
    let behind: u64 = status.routes.iter().map(|route| route.behind).sum();
    let waiting: u64 = status.routes.iter().map(|route| route.waiting).sum();
    let numbers = [
        ("/routes", behind, "behind"),
        ("/routes", waiting, "waiting for a retry"),
        ("/dead-letters", status.dead_letters, "dead letters"),
        ("/unrouted", status.unrouted, "unrouted"),
        ("/quarantine", status.quarantined, "in quarantine"),
        ("/refused", status.refused, "refused and held"),
    ];
    html! {
        ul class="numbers" {
            @for (path, number, name) in numbers {
                li { a href=(path) { strong { (number) } (name) } }
            }
        }
    }
}

fn processes(processes: &[v1::Process]) -> Markup {
    if processes.is_empty() {
        let how = "Each process says how it does every 15 seconds, from its start on.";
        return nothing("No process has said anything yet", how);
    }
    let rows = processes.iter().map(|process| {
        vec![
            html! { (shown(&process.kind)) },
            state(&process.state),
            html! { (shown(&process.host)) " " span class="soft" { "pid " (process.pid) } },
            html! { (shown(&process.version)) },
            time(process.started_at.as_ref()),
            time(process.seen_at.as_ref()),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let caption = count_of(rows.len() as u64, "process", "processes");
    table(
        &caption,
        &["kind", "state", "where", "version", "since", "seen"],
        &rows,
    )
}

fn servers(servers: &[v1::Server]) -> Markup {
    let rows = servers
        .iter()
        .map(|server| vec![html! { (shown(&server.name)) }, state(&server.state)]);
    let rows: Vec<_> = rows.collect();
    table(
        &count(rows.len() as u64, "server"),
        &["server", "state"],
        &rows,
    )
}
