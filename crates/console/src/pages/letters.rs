//! Dead letters and unrouted events.

use maud::{Markup, html};
use proto::v1;
use settings::Role;

use super::{
    FilterField, PAGE_SIZE, as_files, body_text, event_link, filter_form, list_link, next_page,
    nothing, reference_link, same_by, table, time_of, with_points,
};
use crate::params::{Params, link};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{cell, count, shown, time};

/// The names of the filter's fields, in addresses and forms.
pub(super) const NAMES: [&str; 7] = [
    "route", "event", "ref", "account", "reason", "since", "until",
];
const FIELDS: [FilterField; 7] = [
    ("route", "Route", ""),
    ("event", "Event name", ""),
    ("ref", "Ref", ""),
    ("account", "Account", ""),
    ("reason", "Reason", "exhausted"),
    ("since", "Since", "2h"),
    ("until", "Until", "2026-11-25T08:00:00Z"),
];

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Deliveries that no attempt can help.
    Dead,
    /// Events that no route matched.
    Unrouted,
}

impl View {
    /// The list that a form is about.
    pub(super) fn of(params: &Params) -> Self {
        match params.get("unrouted") {
            "" => Self::Dead,
            _ => Self::Unrouted,
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Dead => "/dead-letters",
            Self::Unrouted => "/unrouted",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Dead => "dead-letters",
            Self::Unrouted => "unrouted",
        }
    }

    /// The filter's fields: what is unrouted has neither route nor reason.
    pub(super) fn fields(self) -> Vec<FilterField> {
        let fields = FIELDS.into_iter();
        let is_here =
            |(name, ..): &FilterField| self == Self::Dead || !["route", "reason"].contains(name);
        fields.filter(is_here).collect()
    }
}

/// The filter that the fields say.
pub(super) fn filter_of(view: View, visit: &Visit) -> Result<v1::DeadLetterFilter, PageError> {
    let params = &visit.params;
    let up_to = match params.get("up-to") {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| PageError::bad("up-to: expected a number"))?,
    };
    Ok(v1::DeadLetterFilter {
        unrouted: view == View::Unrouted,
        route: params.get("route").to_owned(),
        reference: params.get("ref").to_owned(),
        event: params.get("event").to_owned(),
        account: params.get("account").to_owned(),
        reason: params.get("reason").to_owned(),
        since: time_of(params, "since", visit.now)?,
        until: time_of(params, "until", visit.now)?,
        up_to,
    })
}

/// The filter as options of a command.
pub(super) fn options(params: &Params) -> Vec<(String, String)> {
    let set = params.set(&NAMES).into_iter();
    set.map(|(name, value)| (format!("--{name}"), value))
        .collect()
}

pub(crate) async fn list(mut visit: Visit, view: View) -> Result<Reply, PageError> {
    let request = v1::ListDeadLettersRequest {
        filter: Some(filter_of(view, &visit)?),
        page_size: PAGE_SIZE,
        page_token: visit.params.get("page").to_owned(),
    };
    let found = visit.api.list_dead_letters(request).await?.into_inner();
    let params = &visit.params;
    let points = with_points(params, visit.now)?;
    let has_more = !found.next_page_token.is_empty();
    let given = options(params);
    let given: Vec<_> = given
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let main = html! {
        (filter_form(view.path(), &view.fields(), params))
        @if found.dead_letters.is_empty() { (empty(view, has_more)) } @else { (form(&visit, view, &found.dead_letters)) }
        @if !found.dead_letters.is_empty() || has_more { (all_of_filter(&visit, &points, view)) }
        (next_page(view.path(), &NAMES, &points, &found.next_page_token, "Newer ones"))
        @if view == View::Dead { p { a href=(link("/dead-letters/groups", &points.set(&NAMES))) { "By route, reason and answer" } } }
        (as_files(view.command(), &points.set(&NAMES)))
        (same_by(&[view.command(), "list"], &given))
    };
    let title = match view {
        View::Dead => "Dead letters",
        View::Unrouted => "Unrouted",
    };
    Ok(Reply::Page(title, main))
}

fn empty(view: View, has_more: bool) -> Markup {
    if has_more {
        let how = "10,000 letters were looked at, so that this page comes soon. Others may be behind the link below.";
        return nothing("None among the first", how);
    }
    match view {
        View::Dead => nothing(
            "No dead letter that this filter leaves",
            "A delivery becomes one when its destination refuses it for good, or when its retries are used up. It is kept until somebody redrives or discards it.",
        ),
        View::Unrouted => nothing(
            "No unrouted event that this filter leaves",
            "An event that no route matches is kept here. `fluent-webhooks routes test` says which routes an event would take.",
        ),
    }
}

/// The list with a box at each letter, and what may be done with those that are marked.
fn form(visit: &Visit, view: View, letters: &[v1::DeadLetter]) -> Markup {
    let may = visit.may(&Role::Operate);
    let rows: Vec<_> = letters
        .iter()
        .map(|letter| row(view, letter, may))
        .collect();
    let marked = if may { "mark" } else { "" };
    let head = [
        marked, "number", "died", "event", "name", "entity", "route", "reason", "attempts", "why",
    ];
    let columns = if view == View::Dead { head.len() } else { 6 };
    let caption = count(rows.len() as u64, "letter");
    html! {
        form action="/dead-letters/change" {
            @if view == View::Unrouted { input type="hidden" name="unrouted" value="1"; }
            @if may {
                div class="act" { label { "All on this page" input type="checkbox" data-all hidden; } (buttons(visit)) }
            }
            (table(&caption, &head[..columns], &rows))
        }
    }
}

fn buttons(visit: &Visit) -> Markup {
    html! {
        button name="action" value="redrive" { "Redrive what is marked" }
        @if visit.may(&Role::Admin) {
            button class="danger" name="action" value="discard" { "Discard what is marked" }
        }
    }
}

/// A change of all that the filter leaves, also on other pages.
fn all_of_filter(visit: &Visit, points: &Params, view: View) -> Markup {
    if !visit.may(&Role::Operate) {
        return html! {};
    }
    let mut fields = points.set(&NAMES);
    if view == View::Unrouted {
        fields.push(("unrouted", "1".to_owned()));
    }
    fields.push(("all", "1".to_owned()));
    let to = |action: &str| {
        let mut fields = fields.clone();
        fields.push(("action", action.to_owned()));
        link("/dead-letters/change", &fields)
    };
    html! {
        p {
            a href=(to("redrive")) { "Redrive all that the filter leaves" }
            @if visit.may(&Role::Admin) { " · " a class="bad" href=(to("discard")) { "Discard all that the filter leaves" } }
        }
    }
}

fn row(view: View, letter: &v1::DeadLetter, may: bool) -> Vec<Markup> {
    let event = letter.event.clone().unwrap_or_default();
    let id = letter.id;
    let mut row = vec![
        html! { @if may { input type="checkbox" name="id" value=(id) aria-label=(format!("Mark {id}")); } },
        html! { a href=(format!("/dead-letters/{id}")) { (id) } },
        time(letter.created_at.as_ref()),
        event_link(&event.id),
        list_link(view.path(), "event", &event.name),
        entity_link_of(&event),
    ];
    if view == View::Dead {
        row.extend([
            list_link(view.path(), "route", &letter.route),
            list_link(view.path(), "reason", &letter.reason),
            html! { (letter.attempts) },
            html! { (cell(&letter.detail)) },
        ]);
    }
    row
}

fn entity_link_of(event: &v1::Event) -> Markup {
    let reference = event.entity.as_ref().map(|entity| entity.r#ref.as_str());
    reference_link(&entity_of(event), reference.unwrap_or_default())
}

/// `<entityType>/<entityRef>`, as stories have it.
pub(super) fn entity_of(event: &v1::Event) -> String {
    let Some(entity) = &event.entity else {
        return String::new();
    };
    match (entity.r#type.is_empty(), entity.r#ref.is_empty()) {
        (_, true) => String::new(),
        (true, false) => format!("/{}", entity.r#ref),
        (false, false) => format!("{}/{}", entity.r#type, entity.r#ref),
    }
}

pub(crate) async fn show(mut visit: Visit, id: u64) -> Result<Reply, PageError> {
    let request = v1::GetDeadLetterRequest {
        id,
        include_body: false,
    };
    let letter = visit
        .api
        .get_dead_letter(request)
        .await?
        .into_inner()
        .dead_letter;
    let letter = letter.unwrap_or_default();
    let main = html! {
        (facts(&letter))
        @if visit.may(&Role::Operate) {
            form class="act" action="/dead-letters/change" {
                input type="hidden" name="id" value=(id);
                @if letter.route == "unrouted" { input type="hidden" name="unrouted" value="1"; }
                button name="action" value="redrive" { "Redrive" }
                @if visit.may(&Role::Admin) { button class="danger" name="action" value="discard" { "Discard" } }
            }
            form class="act" method="post" action=(format!("/dead-letters/{id}/body")) {
                button { "Show the body" }
                span class="soft" { "It may hold personal data. The audit log has who looked." }
            }
        }
        (same_by(&["dead-letters", "show", &id.to_string()], &[]))
    };
    Ok(Reply::Page("Dead letter", main))
}

fn facts(letter: &v1::DeadLetter) -> Markup {
    let event = letter.event.clone().unwrap_or_default();
    html! {
        dl {
            dt { "Number" } dd { (letter.id) }
            dt { "Event" } dd { (event_link(&event.id)) " " (shown(&event.name)) }
            dt { "Entity" } dd { (entity_link_of(&event)) }
            dt { "Route" } dd { (list_link("/dead-letters", "route", &letter.route)) }
            dt { "Reason" } dd { (shown(&letter.reason)) }
            dt { "Last failure" } dd { (shown(&letter.detail)) }
            dt { "Attempts" } dd { (letter.attempts) }
            dt { "Since" } dd { (time(letter.created_at.as_ref())) }
        }
    }
}

pub(crate) async fn body(mut visit: Visit, id: u64) -> Result<Reply, PageError> {
    let request = v1::GetDeadLetterRequest {
        id,
        include_body: true,
    };
    let letter = visit
        .api
        .get_dead_letter(request)
        .await?
        .into_inner()
        .dead_letter;
    let event = letter.and_then(|letter| letter.event).unwrap_or_default();
    let number = id.to_string();
    let line = crate::command_line::command(&["dead-letters", "show", &number, "--body"], &[]);
    let command = html! { @if let Some(line) = line { p { "The same in a shell: " code class="command" { (line) } } } };
    let main = html! {
        p { "Of dead letter " a href=(format!("/dead-letters/{id}")) { (id) } "." }
        (body_text(&event.body, command))
    };
    Ok(Reply::Page("Body", main))
}
