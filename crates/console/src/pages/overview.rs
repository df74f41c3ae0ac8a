//! The first page: what needs somebody, the routes, and who runs.

use std::collections::BTreeMap;

use maud::{Markup, html};
use proto::v1;
use sha2::{Digest, Sha256};

use super::{live_bar, live_part, nothing, routes, same_by, state, table};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, count_of, shown, time, with_code};

pub(crate) async fn show(mut visit: Visit) -> Result<Reply, PageError> {
    let status = visit.api.get_status(v1::GetStatusRequest {}).await?;
    let status = status.into_inner();
    let main = html! {
        (live_bar("/live/overview", visit.now, "/"))
        (live_part(NEEDS, &needs(&status)))
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

/// The name of what needs somebody.
const NEEDS: &str = "needs";

/// What changes while somebody looks.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The same for as long as there are the same rows.
    pub(crate) shape: String,
    /// The parts, by their names.
    pub(crate) html: BTreeMap<String, String>,
}

/// The parts of this page, and of that with the routes, which change.
pub(crate) fn parts_of(status: &v1::GetStatusResponse) -> Parts {
    let mut parts = vec![(NEEDS.to_owned(), needs(status))];
    let number = |(_, number, name): &(_, u64, &str)| (number_name(name), html! { (number) });
    parts.extend(numbers_of(status).iter().map(number));
    parts.extend(status.routes.iter().flat_map(routes::live_cells));
    parts.extend(status.processes.iter().flat_map(live_cells));
    let html: BTreeMap<_, _> = parts
        .into_iter()
        .map(|(name, html)| (name, html.into_string()))
        .collect();
    let names: Vec<&str> = html.keys().map(String::as_str).collect();
    let digest = Sha256::digest(names.join("\n"));
    Parts {
        shape: hex::encode(&digest[..8]),
        html,
    }
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
                    (with_code(&line.text)) " "
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

fn numbers_of(status: &v1::GetStatusResponse) -> [(&'static str, u64, &'static str); 6] {
    let behind: u64 = status.routes.iter().map(|route| route.behind).sum();
    let waiting: u64 = status.routes.iter().map(|route| route.waiting).sum();
    [
        ("/routes", behind, "behind"),
        ("/routes", waiting, "waiting for a retry"),
        ("/dead-letters", status.dead_letters, "dead letters"),
        ("/unrouted", status.unrouted, "unrouted"),
        ("/quarantine", status.quarantined, "in quarantine"),
        ("/refused", status.refused, "refused and held"),
    ]
}

fn number_name(name: &str) -> String {
    format!("number:{name}")
}

fn numbers(status: &v1::GetStatusResponse) -> Markup {
    html! {
        ul class="numbers" {
            @for (path, number, name) in numbers_of(status) {
                li { a href=(path) { strong data-live=(number_name(name)) { (number) } (name) } }
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
        let [state, seen] = live_cells(process);
        vec![
            html! { (shown(&process.kind)) },
            live_part(&state.0, &state.1),
            html! { (shown(&process.host)) " " span class="soft" { "pid " (process.pid) } },
            html! { (shown(&process.version)) },
            time(process.started_at.as_ref()),
            live_part(&seen.0, &seen.1),
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

/// The cells of a process that change while somebody looks, with their names.
fn live_cells(process: &v1::Process) -> [(String, Markup); 2] {
    let id = &process.id;
    [
        (format!("process:{id}:state"), state(&process.state)),
        (format!("process:{id}:seen"), time(process.seen_at.as_ref())),
    ]
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
