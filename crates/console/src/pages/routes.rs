//! The routes, and holding one back.

use maud::{Markup, html};
use proto::v1;
use settings::Role;

use super::{live_bar, live_part, nothing, same_by, table};
use crate::params::{link, segment};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, shown, time};

/// The route of what no other route matches.
const UNROUTED: &str = "unrouted";

pub(crate) async fn list(mut visit: Visit) -> Result<Reply, PageError> {
    let routes = visit.api.list_routes(v1::ListRoutesRequest {}).await?;
    let routes = routes.into_inner().routes;
    let main = html! {
        (live_bar("/live/overview", visit.now, "/routes"))
        (table_of(&visit, &routes))
        (same_by(&["routes", "list"], &[]))
    };
    Ok(Reply::Page("Routes", main))
}

/// The table of routes, with what may be done to each.
pub(super) fn table_of(visit: &Visit, routes: &[v1::Route]) -> Markup {
    if routes.is_empty() {
        let how = "A route is in `fluent-connect.routes` of the settings, and appears once a process has run it.";
        return nothing("No route has run yet", how);
    }
    let may = visit.may(&Role::Operate);
    let rows = routes.iter().map(|route| {
        let live = live_cells(route);
        let mut row = vec![html! { a href=(link("/deliveries", &[("route", &route.name)])) { (shown(&route.name)) } }];
        row.extend(live.iter().map(|(name, cell)| live_part(name, cell)));
        row.push(html! { @if may && route.name != UNROUTED { (buttons(route)) } });
        row
    });
    let rows: Vec<_> = rows.collect();
    let head = [
        "route",
        "how it is",
        "behind",
        "waiting",
        "in flight",
        "dead letters",
        "run by",
        "",
    ];
    table(&count(rows.len() as u64, "route"), &head, &rows)
}

/// The cells of a route that change while somebody looks, with their names.
pub(super) fn live_cells(route: &v1::Route) -> [(String, Markup); 6] {
    let name = &route.name;
    let letters = match name == UNROUTED {
        true => "/unrouted".to_owned(),
        false => link("/dead-letters", &[("route", name)]),
    };
    let waiting = [("route", name.as_str()), ("outcome", "transient")];
    let cells = [
        ("how", html! { (shown(&route.summary)) (pause_of(route)) }),
        ("behind", html! { (route.behind) }),
        (
            "waiting",
            html! { a href=(link("/deliveries", &waiting)) { (route.waiting) } },
        ),
        ("in-flight", html! { (route.in_flight) }),
        (
            "letters",
            html! { a href=(letters) { (route.dead_letters) } },
        ),
        ("run-by", working(route)),
    ];
    cells.map(|(cell, html)| (format!("route:{name}:{cell}"), html))
}

fn pause_of(route: &v1::Route) -> Markup {
    let Some(pause) = &route.pause else {
        return html! {};
    };
    html! {
        span class="soft" {
            @if !pause.by.is_empty() { " by " (shown(&pause.by)) }
            @if !pause.reason.is_empty() { ": " (shown(&pause.reason)) }
            @if pause.until.is_some() { " until " (time(pause.until.as_ref())) }
        }
    }
}

fn working(route: &v1::Route) -> Markup {
    html! {
        @if route.processes.is_empty() { span class="soft" { "nobody" } }
        @for process in &route.processes {
            div {
                (shown(&process.process)) " "
                span class="soft" {
                    "breaker " (shown(&process.breaker))
                    @if process.open_until.is_some() { ", asked again " (time(process.open_until.as_ref())) }
                    @if process.throttled { ", rate holds back" }
                }
            }
        }
    }
}

fn buttons(route: &v1::Route) -> Markup {
    let path = format!("/routes/{}", segment(&route.name));
    let is_open = route.processes.iter().any(|it| it.breaker != "closed");
    html! {
        @if route.paused || is_open {
            form method="post" action=(format!("{path}/resume")) {
                button { "Resume " span class="soft" { (shown(&route.name)) } }
            }
        }
        @if !route.paused {
            details {
                summary { "Pause " (shown(&route.name)) }
                form class="act" method="post" action=(format!("{path}/pause")) {
                    label { "Why, for others" input name="reason" maxlength="256" autocomplete="off"; }
                    label { "For how long" input name="lasts" placeholder="30m; empty: until resumed" autocomplete="off"; }
                    button { "Pause" }
                }
            }
        }
    }
}

pub(crate) async fn pause(mut visit: Visit, route: &str) -> Result<Reply, PageError> {
    let lasts = match visit.params.get("lasts") {
        "" => None,
        text => {
            let lasts = humantime::parse_duration(text);
            let expected = |_| PageError::bad("For how long: expected a time such as 30m or 2h.");
            Some(grpc::duration(lasts.map_err(expected)?))
        }
    };
    let request = v1::PauseRouteRequest {
        route: route.to_owned(),
        duration: lasts,
        reason: visit.params.get("reason").to_owned(),
    };
    visit.api.pause_route(request).await?;
    Ok(Reply::See("/routes".to_owned()))
}

pub(crate) async fn resume(mut visit: Visit, route: &str) -> Result<Reply, PageError> {
    let request = v1::ResumeRouteRequest {
        route: route.to_owned(),
    };
    visit.api.resume_route(request).await?;
    Ok(Reply::See("/routes".to_owned()))
}
