//! The story of one entity, and the deliveries of one event.

use event_model::Event;
use futures::future::join_all;
use percent_encoding::percent_decode_str;
use proto::v1;
use queue::{EventStory, Position, QueueError, StoryGap, StoryState, StoryStep, UNROUTED};
use settings::RouteSettings;
use tonic::Status;

use crate::filters::time;
use crate::{Operator, failure, pages};

/// The state of a route that has not come to an event, and of one that will not take it.
const NOT_REACHED: &str = "not-reached";
const NOT_WANTED: &str = "not-wanted";

/// Most events of one answer that are compared with what the routes match.
const MATCHED_AT_ONCE: usize = 20;

impl Operator {
    pub(crate) async fn stories(
        &self,
        request: v1::ShowEventsRequest,
    ) -> Result<v1::ShowEventsResponse, Status> {
        if request.reference.is_empty() {
            return Err(Status::invalid_argument(
                "reference: expected a ref, or 8 digits of an id",
            ));
        }
        let limit = pages::size(request.limit, 20);
        let before = place(&request.page_token)?;
        let since = time(request.since.as_ref(), "since")?;
        let until = time(request.until.as_ref(), "until")?;
        let history = self.stores().history();
        let found = history.find_before(&request.reference, before, limit).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        let wanted: Vec<_> = found
            .stories
            .iter()
            .filter(|it| since.is_none_or(|since| it.received_at >= since))
            .filter(|it| until.is_none_or(|until| it.received_at < until))
            .collect();
        let matching = self.matching(&wanted).await;
        let told = wanted.iter().enumerate().map(|(at, story)| {
            let mut told = described(story);
            if let Some(matching) = matching.get(at) {
                matching.add_to(&mut told);
            }
            only(told, &request)
        });
        let events = pages::fitting(told);
        let next = match events.last() {
            Some(event) if events.len() < wanted.len() => Some(event.position),
            _ => found.next.map(Position::packed),
        };
        Ok(v1::ShowEventsResponse {
            next_page_token: pages::next(next, true),
            events,
            unreadable: u32::try_from(found.unreadable).unwrap_or(u32::MAX),
        })
    }

    /// Whether each route of the settings takes each of the first of these events. Nothing of one
    /// whose body is no longer kept, and of none if the settings have no routes, as those of an
    /// operator beside a cluster.
    async fn matching(&self, stories: &[&EventStory]) -> Vec<Matching> {
        let Some(routes) = self.settings().ok().and_then(|tree| tree.routes(None).ok()) else {
            return Vec::new();
        };
        let routes = &routes.0;
        let history = self.stores().history();
        let mut reads = Vec::new();
        for story in stories.iter().take(MATCHED_AT_ONCE) {
            reads.push(history.event_at(story.position));
        }
        let events = join_all(reads).await.into_iter();
        // What can't be read is shown without.
        let events = events.map(|event| event.ok().flatten());
        events
            .map(|event| event.map_or_else(Matching::default, |it| Matching::of(routes, &it)))
            .collect()
    }
}

/// Whether the routes of the settings take one event.
#[derive(Debug, Default)]
struct Matching {
    /// The event was read, and compared.
    is_known: bool,
    routes: Vec<v1::RouteMatch>,
}

impl Matching {
    fn of(routes: &[RouteSettings], event: &Event) -> Self {
        Self {
            is_known: true,
            routes: routes
                .iter()
                .map(|route| route_match(route, event))
                .collect(),
        }
    }

    /// Adds what is known to a story, and marks the routes that have not come to it yet, and will
    /// not take it.
    fn add_to(&self, story: &mut v1::EventHistory) {
        if !self.is_known {
            return;
        }
        story.matches.clone_from(&self.routes);
        // A condition without an answer makes a dead letter: the route takes it.
        let is_taken = |route: &v1::RouteMatch| route.takes != Some(false);
        let is_any = self.routes.iter().any(is_taken);
        for outcome in story.outcomes.iter_mut().filter(|it| is_not_reached(it)) {
            let is_wanted = match self.routes.iter().find(|it| it.route == outcome.route) {
                Some(route) => is_taken(route),
                None => outcome.route != UNROUTED || !is_any,
            };
            if !is_wanted {
                NOT_WANTED.clone_into(&mut outcome.state);
            }
        }
    }
}

/// The position before which a page begins.
fn place(token: &str) -> Result<Option<Position>, Status> {
    let Some(packed) = pages::place(token)? else {
        return Ok(None);
    };
    let position = Position::from_packed(packed);
    position.map(Some).map_err(|_| pages::not_a_token())
}

/// A story with what was asked for: one route, and no more attempts than wanted.
fn only(mut story: v1::EventHistory, request: &v1::ShowEventsRequest) -> v1::EventHistory {
    if !request.route.is_empty() {
        let route = request.route.as_str();
        story.attempts.retain(|it| it.route == route);
        story.outcomes.retain(|it| it.route == route);
        story.matches.retain(|it| it.route == route);
        story.history_gaps.retain(|it| it.route == route);
    }
    let most = match request.max_attempts {
        0 => usize::MAX,
        most => most as usize,
    };
    let left_out = story.attempts.len().saturating_sub(most);
    story.attempts.drain(..left_out);
    story.attempts_left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
    story
}

impl Operator {
    /// The body of the newest event that `reference` names.
    pub(crate) async fn event_body(
        &self,
        reference: &str,
    ) -> Result<v1::GetEventBodyResponse, Status> {
        let found = self.stores().history().event(reference).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        let event = found.ok_or_else(|| none(reference))?;
        Ok(v1::GetEventBodyResponse {
            event_id: event.id().to_string(),
            body: event.body().to_vec(),
        })
    }

    /// Makes the waiting deliveries of one event due now, on one route or on all.
    pub(crate) async fn retry_now(
        &self,
        reference: &str,
        route: &str,
    ) -> Result<v1::RetryDeliveryResponse, Status> {
        let failed = |error: QueueError| failure::queue(&error);
        let stories = self
            .stores()
            .history()
            .find(reference, 2)
            .await
            .map_err(failed)?;
        let story = match &stories[..] {
            [] => return Err(none(reference)),
            [story] => story,
            _ => {
                let why =
                    "it names several events: expected the id of one (`events show` lists them)";
                return Err(Status::failed_precondition(format!(
                    "event {reference}: {why}"
                )));
            }
        };
        let waits: Vec<&str> = story
            .states
            .iter()
            .filter_map(|state| waiting_on(state, route))
            .collect();
        if waits.is_empty() {
            let stands: Vec<_> = story.states.iter().filter_map(in_words).collect();
            let stands = if stands.is_empty() {
                "no route has come to it".to_owned()
            } else {
                stands.join(", ")
            };
            return Err(Status::failed_precondition(format!(
                "nothing of it waits for a retry: {stands}"
            )));
        }
        let states = self.stores().routes().await.map_err(failed)?;
        let is_paused = |name: &&str| {
            states
                .iter()
                .any(|state| state.name == **name && state.paused)
        };
        if let Some(paused) = waits.iter().find(|name| is_paused(name)) {
            let why = format!("route {paused} is paused: `routes resume {paused}` first");
            return Err(Status::failed_precondition(why));
        }
        let mut routes = Vec::new();
        for name in waits {
            if self
                .stores()
                .retry_now(name, story.id)
                .await
                .map_err(failed)?
                > 0
            {
                routes.push(name.to_owned());
            }
        }
        Ok(v1::RetryDeliveryResponse {
            event_id: story.id.to_string(),
            routes,
        })
    }
}

fn route_match(route: &RouteSettings, event: &Event) -> v1::RouteMatch {
    let (takes, reasons) = match route.terms.mismatches(event) {
        Ok(misses) => (
            Some(misses.is_empty()),
            misses.iter().map(ToString::to_string).collect(),
        ),
        Err(why) => (None, vec![why.to_string()]),
    };
    v1::RouteMatch {
        route: route.name.clone(),
        takes,
        reasons,
    }
}

fn is_not_reached(outcome: &v1::RouteOutcome) -> bool {
    outcome.state == NOT_REACHED
}

fn none(reference: &str) -> Status {
    Status::not_found(format!(
        "no event of `{reference}` is kept; was it refused, or is it older than the retention?"
    ))
}

/// The route of a waiting delivery, if it is the wanted one or any is.
fn waiting_on<'s>(state: &'s StoryState, wanted: &str) -> Option<&'s str> {
    match state {
        StoryState::Waiting { route, .. } if wanted.is_empty() || route == wanted => Some(route),
        _ => None,
    }
}

fn in_words(state: &StoryState) -> Option<String> {
    match state {
        StoryState::Done { route } => Some(format!("{route} is done with it")),
        StoryState::InFlight { route } => Some(format!("{route} is attempting it")),
        StoryState::Waiting { route, .. } => Some(format!("{route} waits")),
        StoryState::Dead { route, letter, .. } => Some(format!(
            "dead letter {letter} of {route} (`dead-letters redrive {letter}`)"
        )),
        StoryState::Unknown { route } => {
            Some(format!("what became of it on {route} is no longer kept"))
        }
        _ => None,
    }
}

fn described(story: &EventStory) -> v1::EventHistory {
    let same_id = story.same_id.iter().map(|other| v1::SameIdEvent {
        event_id: other.id.to_string(),
        received_at: Some(grpc::timestamp(other.received_at)),
        origin: other.origin.to_string(),
    });
    let attempts = story.steps.iter().map(|step| v1::Attempt {
        event_id: story.id.to_string(),
        event: story.name.clone(),
        entity: story.entity.clone().unwrap_or_default(),
        account: account(&story.source),
        ..attempt(step)
    });
    v1::EventHistory {
        id: story.id.to_string(),
        position: story.position.packed(),
        name: story.name.clone(),
        entity: story.entity.clone().unwrap_or_default(),
        source: story.source.clone(),
        received_at: Some(grpc::timestamp(story.received_at)),
        origin: story.origin.to_string(),
        trace_id: story.trace_id.clone().unwrap_or_default(),
        history_since: story.history_since.map(grpc::timestamp),
        attempts: attempts.collect(),
        outcomes: story.states.iter().map(outcome).collect(),
        same_id: same_id.collect(),
        matches: Vec::new(),
        history_gaps: story.gaps.iter().map(gap).collect(),
        attempts_left_out: 0,
    }
}

/// The account in a source, which is `/fluent/<environment>/<account>/<retailer>`.
fn account(source: &str) -> String {
    let account = source.split('/').nth(3).unwrap_or_default();
    percent_decode_str(account).decode_utf8_lossy().into_owned()
}

fn gap(gap: &StoryGap) -> v1::HistoryGap {
    v1::HistoryGap {
        route: gap.route.clone(),
        since: Some(grpc::timestamp(gap.since)),
        until: Some(grpc::timestamp(gap.until)),
    }
}

/// One attempt for the contract, without its event.
pub(crate) fn attempt(step: &StoryStep) -> v1::Attempt {
    let record = &step.record;
    v1::Attempt {
        route: step.route.clone(),
        redrive: step.redrive,
        attempt: step.attempt,
        started_at: Some(grpc::timestamp(record.started_at)),
        duration: Some(grpc::duration(record.took)),
        outcome: record.outcome.as_str().to_owned(),
        status: record.status.map(u32::from),
        detail: record.detail.clone().unwrap_or_default(),
        ..v1::Attempt::default()
    }
}

fn outcome(state: &StoryState) -> v1::RouteOutcome {
    let stands = |route: &str, state: &str| v1::RouteOutcome {
        route: route.to_owned(),
        state: state.to_owned(),
        ..v1::RouteOutcome::default()
    };
    match state {
        StoryState::Done { route } => stands(route, "done"),
        StoryState::InFlight { route } => stands(route, "in-flight"),
        StoryState::NotReached { route } => stands(route, NOT_REACHED),
        StoryState::Unknown { route } => stands(route, "unknown"),
        StoryState::Waiting { route, due } => v1::RouteOutcome {
            due_at: Some(grpc::timestamp(*due)),
            ..stands(route, "waiting")
        },
        StoryState::Dead {
            route,
            letter,
            reason,
        } => v1::RouteOutcome {
            dead_letter_id: *letter,
            reason: reason.as_str().to_owned(),
            ..stands(route, "dead")
        },
        _ => stands("", "unknown"),
    }
}
