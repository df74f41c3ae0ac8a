//! The story of one entity, and the deliveries of one event.

use event_model::Event;
use proto::v1;
use queue::{EventStory, QueueError, StoryGap, StoryState, StoryStep, UNROUTED};
use settings::RouteSettings;
use telemetry::ErrorChain;
use tonic::Status;

use crate::{Operator, failure, pages};

/// The state of a route that has not come to an event, and of one that will not take it.
const NOT_REACHED: &str = "not-reached";
const NOT_WANTED: &str = "not-wanted";

/// Most events of one answer that are matched with the routes that have not come to them.
const MATCHED_AT_ONCE: usize = 20;

/// Most events that are compared for one Fluent id.
const SAME_IDS_SHOWN: usize = 20;

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
        let found = self
            .stores()
            .history()
            .find(&request.reference, limit)
            .await;
        let found = found.map_err(|error| failure::queue(&error))?;
        let others = self.of_the_same_id(&found).await;
        let others = others.as_deref().unwrap_or(&found);
        let matches = self.matches(&found).await;
        let told = found.iter().map(|it| v1::EventHistory {
            matches: matches.clone(),
            ..story(it, others)
        });
        let mut events = pages::fitting(told);
        for event in events.iter_mut().take(MATCHED_AT_ONCE) {
            self.mark_not_wanted(event).await;
        }
        Ok(v1::ShowEventsResponse { events })
    }

    /// Marks the routes that have not come to the event yet, and will not take it. What can't be
    /// found out stays as it is.
    async fn mark_not_wanted(&self, story: &mut v1::EventHistory) {
        if !story.outcomes.iter().any(is_not_reached) {
            return;
        }
        let Ok(Some(event)) = self.stores().history().event(&story.id).await else {
            return;
        };
        let Some(routes) = self.settings().ok().and_then(|tree| tree.routes(None).ok()) else {
            return;
        };
        let takes = |route: &RouteSettings| match route.terms.mismatches(&event) {
            Ok(misses) => misses.is_empty(),
            Err(_) => true,
        };
        let is_taken = routes.0.iter().any(takes);
        for outcome in story.outcomes.iter_mut().filter(|it| is_not_reached(it)) {
            let is_wanted = match routes.0.iter().find(|it| it.name == outcome.route) {
                Some(route) => takes(route),
                None => outcome.route != UNROUTED || !is_taken,
            };
            if !is_wanted {
                NOT_WANTED.clone_into(&mut outcome.state);
            }
        }
    }

    /// Whether each route of the settings takes the event of a single story. Nothing if its body
    /// is no longer kept, or the settings have no routes, as those of an operator beside a
    /// cluster.
    async fn matches(&self, found: &[EventStory]) -> Vec<v1::RouteMatch> {
        let [story] = found else { return Vec::new() };
        let Ok(tree) = self.settings() else {
            return Vec::new();
        };
        let routes = tree.routes(None).map(|routes| routes.0).unwrap_or_default();
        if routes.is_empty() {
            return Vec::new();
        }
        let event = self.stores().history().event(&story.id.to_string()).await;
        match event.ok().flatten() {
            Some(event) => routes
                .iter()
                .map(|route| route_match(route, &event))
                .collect(),
            None => Vec::new(),
        }
    }

    /// Stories with the Fluent id of a single story. Several stories are only compared with each
    /// other, since each would cost a search. If the search fails, the story is shown without the
    /// others.
    async fn of_the_same_id(&self, found: &[EventStory]) -> Option<Vec<EventStory>> {
        let [story] = found else { return None };
        let others = self
            .stores()
            .history()
            .find(&story.fluent_event_id, SAME_IDS_SHOWN)
            .await;
        others
            .inspect_err(|error| {
                tracing::warn!(event.id = %story.id, error = %ErrorChain(error), "others of its Fluent id can't be looked for: it is shown without");
            })
            .ok()
    }
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

fn story(story: &EventStory, others: &[EventStory]) -> v1::EventHistory {
    let is_another =
        |other: &&EventStory| other.fluent_key == story.fluent_key && other.id != story.id;
    let same_id = others
        .iter()
        .filter(is_another)
        .map(|other| v1::SameIdEvent {
            event_id: other.id.to_string(),
            received_at: Some(grpc::timestamp(other.received_at)),
            origin: other.origin.to_string(),
        });
    let attempts = story.steps.iter().map(|step| v1::Attempt {
        event_id: story.id.to_string(),
        event: story.name.clone(),
        entity: story.entity.clone().unwrap_or_default(),
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
    }
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
