//! Bulk acts as jobs: a question with a preview, the list, and one job with its progress.

use maud::{Markup, html};
use proto::v1;
use proto::v1::job_spec::Act;
use settings::Role;

use super::letters::{NAMES, View, filter_of};
use super::{PAGE_SIZE, next_page, nothing, same_by, state, table, with_points};
use crate::params::{Params, link, segment};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{cell, count, shown, time};

const PATH: &str = "/jobs";

/// Failures that the page of a job shows.
const FAILURES_SHOWN: u32 = 200;

/// Asks before a job is made, with what it would touch. Counting takes as long as there are
/// letters, so it is asked for by a form.
pub(crate) async fn ask(mut visit: Visit) -> Result<Reply, PageError> {
    visit.params = with_points(&visit.params, visit.now)?;
    let spec = spec_of(&visit)?;
    let is_discard = matches!(spec.act, Some(Act::Discard(_)));
    visit.caller.must(match is_discard {
        true => &Role::Admin,
        false => &Role::Operate,
    })?;
    let request = v1::PreviewJobRequest { spec: Some(spec) };
    let preview = visit.jobs.preview_job(request).await?.into_inner();
    let main = match preview.count {
        0 => nothing(
            "Nothing is left",
            "No letter is there that the filter leaves.",
        ),
        _ => question(&visit, &preview, is_discard)?,
    };
    Ok(Reply::Page("A new job?", main))
}

/// What the fields of a form say.
fn spec_of(visit: &Visit) -> Result<v1::JobSpec, PageError> {
    let view = View::of(&visit.params);
    let filter = Some(filter_of(view, visit)?);
    let act = match visit.params.get("action") {
        "redrive" => Act::Redrive(v1::RedriveJob {
            filter,
            to: visit.params.get("to").to_owned(),
        }),
        "discard" => Act::Discard(v1::DiscardJob { filter }),
        _ => return Err(PageError::bad("action: expected redrive or discard")),
    };
    Ok(v1::JobSpec { act: Some(act) })
}

fn question(
    visit: &Visit,
    preview: &v1::PreviewJobResponse,
    is_discard: bool,
) -> Result<Markup, PageError> {
    let view = View::of(&visit.params);
    let letters = count(preview.count, "letter");
    // A form that is sent twice makes one job.
    let request_id = crate::sessions::random_id()
        .map_err(|_| PageError::bad("The system gives no random numbers now."))?;
    Ok(html! {
        div class=(if is_discard { "box bad" } else { "box" }) {
            @if is_discard {
                p { strong { (letters) " will be removed for good." } " Nobody can bring them back." }
            } @else {
                p { strong { (letters) " will be delivered again." } " Each with fresh attempts and the same idempotency key." }
            }
            p { "The job goes on when you leave this page, and can be paused. What dies from now on is not in it." }
        }
        (items(&preview.samples))
        form class="act" method="post" action=(PATH) {
            input type="hidden" name="request" value=(request_id);
            input type="hidden" name="cut-off" value=(preview.cut_off);
            (hidden(&visit.params))
            label { "Why, for the audit log" input name="why" required maxlength="256" autocomplete="off"; }
            @if is_discard {
                label { "Type the number of letters" input name="expected" required inputmode="numeric" autocomplete="off"; }
            } @else {
                input type="hidden" name="expected" value=(preview.count);
                label { "To the route" input name="to" value=(shown(visit.params.get("to"))) required[view == View::Unrouted] placeholder=(if view == View::Dead { "empty: each to its own" } else { "its name" }) autocomplete="off"; }
            }
            label { "At most so many a second" input name="rate" inputmode="numeric" placeholder="empty: as fast as it goes" autocomplete="off"; }
            button class=[is_discard.then_some("danger")] { "Make the job" }
            a href=(link(view.path(), &visit.params.set(&NAMES))) { "Leave them" }
        }
    })
}

/// The fields that say what the job is about.
fn hidden(params: &Params) -> Markup {
    html! {
        @for name in ["action", "unrouted"].iter().chain(&NAMES) {
            @if !params.get(name).is_empty() { input type="hidden" name=(name) value=(shown(params.get(name))); }
        }
    }
}

/// The first of what a job is about.
fn items(items: &[v1::JobItem]) -> Markup {
    let rows = items.iter().map(|item| {
        vec![
            html! { (item.id) },
            html! { (shown(&item.event)) },
            html! { (cell(&item.entity)) },
            html! { (shown(&item.route)) },
            html! { (shown(&item.reason)) },
            time(item.occurred_at.as_ref()),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let head = ["number", "event", "entity", "route", "reason", "since"];
    table("The first of them", &head, &rows)
}

pub(crate) async fn create(mut visit: Visit) -> Result<Reply, PageError> {
    let spec = Some(spec_of(&visit)?);
    let params = &visit.params;
    let number = |name: &str| {
        let wrong = |_| PageError::bad(format!("{name}: expected a number"));
        params.get(name).parse::<u64>().map_err(wrong)
    };
    let rate = match params.get("rate") {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| PageError::bad("At most so many a second: expected a number"))?,
    };
    let request = v1::CreateJobRequest {
        request_id: params.get("request").to_owned(),
        spec,
        cut_off: Some(number("cut-off")?),
        expected_count: Some(number("expected")?),
        reason: params.get("why").to_owned(),
        rate,
    };
    let made = visit.jobs.create_job(request).await?.into_inner();
    Ok(Reply::See(place_of(&made.job.unwrap_or_default())))
}

fn place_of(job: &v1::Job) -> String {
    format!("{PATH}/{}", segment(&job.id))
}

pub(crate) async fn list(mut visit: Visit) -> Result<Reply, PageError> {
    let request = v1::ListJobsRequest {
        state: visit.params.get("state").to_owned(),
        page_size: PAGE_SIZE,
        page_token: visit.params.get("page").to_owned(),
    };
    let state = request.state.clone();
    let found = visit.jobs.list_jobs(request).await?.into_inner();
    let options: Vec<_> = Some(("--state", &*state))
        .into_iter()
        .filter(|(_, state)| !state.is_empty())
        .collect();
    let main = html! {
        @if found.jobs.is_empty() {
            (nothing("No job is kept", "Redriving or discarding all that a filter leaves can be made a job: see Dead letters. It goes on when its maker has left, and is kept here for 30 days after its end."))
        } @else {
            (table_of(&found.jobs))
        }
        (next_page(PATH, &["state"], &visit.params, &found.next_page_token, "Older ones"))
        (same_by(&["jobs", "list"], &options))
    };
    Ok(Reply::Page("Jobs", main))
}

fn table_of(jobs: &[v1::Job]) -> Markup {
    let rows = jobs.iter().map(|job| {
        vec![
            html! { a href=(place_of(job)) { (shown(&job.id)) } },
            html! { (act_of(job)) },
            state(&job.state),
            html! { (progress_of(job)) },
            html! { (shown(&job.created_by)) },
            time(job.created_at.as_ref()),
            html! { (cell(&job.reason)) },
        ]
    });
    let rows: Vec<_> = rows.collect();
    let head = ["job", "act", "state", "how far", "by", "since", "why"];
    table(&count(rows.len() as u64, "job"), &head, &rows)
}

fn act_of(job: &v1::Job) -> &'static str {
    match job.spec.as_ref().and_then(|spec| spec.act.as_ref()) {
        Some(Act::Redrive(_)) => "redrive",
        Some(Act::Discard(_)) => "discard",
        Some(Act::Replay(_)) => "replay",
        Some(Act::RecheckQuarantined(_)) => "admit from the quarantine",
        Some(Act::AdmitRefused(_)) => "admit refused",
        None => "unknown",
    }
}

fn progress_of(job: &v1::Job) -> String {
    let counts = job.progress.clone().unwrap_or_default();
    let done = counts.succeeded + counts.failed + counts.skipped + counts.unknown;
    match counts.failed {
        0 => format!("{done} of {}", counts.total),
        failed => format!("{done} of {}, {failed} failed", counts.total),
    }
}

pub(crate) async fn show(mut visit: Visit, id: &str) -> Result<Reply, PageError> {
    let request = v1::GetJobRequest { id: id.to_owned() };
    let job = visit.jobs.get_job(request).await?.into_inner().job;
    let job = job.unwrap_or_default();
    let counts = job.progress.clone().unwrap_or_default();
    let failures = match counts.failed {
        0 => v1::ListJobFailuresResponse::default(),
        _ => {
            let request = v1::ListJobFailuresRequest {
                id: job.id.clone(),
                page_size: FAILURES_SHOWN,
                page_token: visit.params.get("page").to_owned(),
            };
            visit.jobs.list_job_failures(request).await?.into_inner()
        }
    };
    let main = html! {
        (facts(&job))
        (buttons(&visit, &job))
        @if !job.samples.is_empty() { h2 { "What it is about" } (items(&job.samples)) }
        @if !failures.failures.is_empty() {
            h2 { "What could not be done" }
            (failed(&failures))
            (next_page(&place_of(&job), &[], &visit.params, &failures.next_page_token, "More of them"))
        }
        (same_by(&["jobs", "show", &job.id], &[]))
    };
    Ok(Reply::Page("Job", main))
}

fn facts(job: &v1::Job) -> Markup {
    let counts = job.progress.clone().unwrap_or_default();
    let done = counts.succeeded + counts.failed + counts.skipped + counts.unknown;
    html! {
        dl {
            dt { "Job" } dd { code { (shown(&job.id)) } ": " (act_of(job)) }
            dt { "State" } dd { (state(&job.state)) @if !job.detail.is_empty() { ": " (shown(&job.detail)) } }
            dt { "How far" }
            dd {
                (progress_of(job)) " "
                progress max=(counts.total.max(1)) value=(done.min(counts.total.max(1))) aria-label="How far the job is" {}
            }
            dt { "Why" } dd { (shown(&job.reason)) }
            dt { "By" } dd { (shown(&job.created_by)) }
            dt { "Made" } dd { (time(job.created_at.as_ref())) }
            @if job.started_at.is_some() { dt { "Begun" } dd { (time(job.started_at.as_ref())) } }
            @if job.ended_at.is_some() { dt { "Ended" } dd { (time(job.ended_at.as_ref())) } }
            @if !job.executor.is_empty() { dt { "Worked on by" } dd { (shown(&job.executor)) } }
            @if job.rate > 0 { dt { "Rate" } dd { (job.rate) " a second at most" } }
            @if !job.succeeded_ids.is_empty() { dt { "Done" } dd { (cell(&job.succeeded_ids)) } }
        }
    }
}

/// What may be done to a job that is not over.
fn buttons(visit: &Visit, job: &v1::Job) -> Markup {
    let is_open = ["waiting", "running", "paused"].contains(&job.state.as_str());
    let to = |act: &str| format!("{}/{act}", place_of(job));
    html! {
        @if is_open && visit.may(&Role::Operate) {
            div class="act" {
                @if job.state == "paused" {
                    form method="post" action=(to("resume")) { button { "Resume" } }
                } @else {
                    form method="post" action=(to("pause")) { button { "Pause" } }
                }
                form method="post" action=(to("cancel")) { button class="danger" { "Cancel" } }
                a href=(place_of(job)) { "Look again" }
            }
        }
    }
}

fn failed(failures: &v1::ListJobFailuresResponse) -> Markup {
    let rows = failures
        .failures
        .iter()
        .map(|failure| vec![html! { (failure.id) }, html! { (shown(&failure.error)) }]);
    let rows: Vec<_> = rows.collect();
    html! {
        (table(&count(rows.len() as u64, "failure"), &["number", "why"], &rows))
        @if failures.not_kept > 0 { p { (failures.not_kept) " more are counted, and not kept." } }
    }
}

/// Pauses, resumes or ends a job.
pub(crate) async fn change(mut visit: Visit, id: &str, act: &str) -> Result<Reply, PageError> {
    let id = id.to_owned();
    let job = match act {
        "pause" => {
            let request = v1::PauseJobRequest { id };
            visit.jobs.pause_job(request).await?.into_inner().job
        }
        "resume" => {
            let request = v1::ResumeJobRequest { id };
            visit.jobs.resume_job(request).await?.into_inner().job
        }
        "cancel" => {
            let request = v1::CancelJobRequest { id };
            visit.jobs.cancel_job(request).await?.into_inner().job
        }
        _ => return Err(PageError::not_found("There is no such act.")),
    };
    Ok(Reply::See(place_of(&job.unwrap_or_default())))
}
