//! Every path of the console, and the page or change behind it.
//!
//! GET changes nothing, and what is not a page of ours can send no POST ([`crate::checks`]). So
//! bodies, of which each look is in the audit log, are asked for with POST, too.

use std::sync::Arc;

use event_model::{Clock, Timestamp};
use grpc::Caller;
use hyper::StatusCode;
use settings::Role;

use crate::api::{Api, JobsApi};
use crate::live::{self, Live, Watcher};
use crate::pages::{
    audit, deliveries, event, events, export, jobs, letter_changes, letter_groups, letters,
    overview, quarantine, refused, routes, search, story,
};
use crate::params::{Params, segments};
use crate::reply::{PageError, Reply};

/// A request for a page, of a person who is known.
pub(crate) struct Visit {
    pub(crate) api: Api,
    pub(crate) jobs: JobsApi,
    pub(crate) caller: Caller,
    /// The fields of the address, or of the form.
    pub(crate) params: Params,
    pub(crate) now: Timestamp,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) live: Live,
    pub(crate) watcher: Watcher,
    pub(crate) trace_url: Option<String>,
}

impl Visit {
    /// What a viewer has already: it says so when it comes back, and at first its page does.
    pub(crate) fn known_up_to(&self) -> Option<&str> {
        let known = match self.watcher.last_id.as_str() {
            "" => self.params.get("from"),
            last => last,
        };
        Some(known).filter(|known| !known.is_empty())
    }
}

impl Visit {
    /// True if the person has the role: what it may not do is not offered. Whether it may is
    /// decided by the API.
    pub(crate) fn may(&self, role: &Role) -> bool {
        self.caller.may(role)
    }
}

/// Answers what was asked for.
pub(crate) async fn answer(is_post: bool, path: &str, visit: Visit) -> Result<Reply, PageError> {
    let segments = segments(path);
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match is_post {
        true => change(&segments, visit).await,
        false => page(&segments, visit).await,
    }
}

async fn page(path: &[&str], visit: Visit) -> Result<Reply, PageError> {
    match path {
        [] => overview::show(visit).await,
        ["search"] => search::show(visit).await,
        ["story"] => story::show(visit).await,
        ["deliveries"] => deliveries::show(visit).await,
        ["live", "deliveries"] => live::attempts(visit).await,
        ["live", "events"] => live::events(visit).await,
        ["live", "overview"] => live::overview(visit).await,
        ["events"] => events::list(visit).await,
        ["events", id] => event::show(visit, id).await,
        ["dead-letters"] => letters::list(visit, letters::View::Dead).await,
        ["dead-letters", "groups"] => letter_groups::show(visit).await,
        ["export", name] => export::file(visit, name).await,
        ["unrouted"] => letters::list(visit, letters::View::Unrouted).await,
        ["dead-letters", "change"] => letter_changes::ask(visit).await,
        ["dead-letters", id] => letters::show(visit, number(id)?).await,
        ["quarantine"] => quarantine::list(visit).await,
        ["quarantine", "change"] => quarantine::ask(visit),
        ["refused"] => refused::list(visit).await,
        ["refused", id] => refused::explain(visit, number(id)?).await,
        ["routes"] => routes::list(visit).await,
        ["jobs"] => jobs::list(visit).await,
        ["jobs", id] => jobs::show(visit, id).await,
        ["audit"] => audit::list(visit).await,
        _ => Err(PageError::not_found("There is no such page.")),
    }
}

async fn change(path: &[&str], visit: Visit) -> Result<Reply, PageError> {
    match path {
        ["events", id, "retry"] => event::retry(visit, id).await,
        ["events", id, "body"] => event::body(visit, id).await,
        ["dead-letters", "redrive"] => letter_changes::redrive(visit).await,
        ["dead-letters", "discard"] => letter_changes::discard(visit).await,
        ["dead-letters", id, "body"] => letters::body(visit, number(id)?).await,
        ["quarantine", "redrive"] => quarantine::redrive(visit).await,
        ["quarantine", "discard"] => quarantine::discard(visit).await,
        ["quarantine", id, "body"] => quarantine::body(visit, number(id)?).await,
        ["refused", "check"] => refused::recheck(visit, false).await,
        ["refused", "admit"] => refused::recheck(visit, true).await,
        ["jobs"] => jobs::create(visit).await,
        ["jobs", "ask"] => jobs::ask(visit).await,
        ["jobs", id, act] => jobs::change(visit, id, act).await,
        ["routes", name, "pause"] => routes::pause(visit, name).await,
        ["routes", name, "resume"] => routes::resume(visit, name).await,
        _ => Err(PageError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "Nothing is changed here.",
        )),
    }
}

fn number(text: &str) -> Result<u64, PageError> {
    text.parse()
        .map_err(|_| PageError::not_found("Expected a number."))
}
