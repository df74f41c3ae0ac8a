//! One entity's story.

use queue::{EventStory, StoryState, StoryStep};
use tonic::Status;
use wire::v1;

use crate::{Operator, failure, pages};

impl Operator {
    pub(crate) async fn stories(
        &self,
        request: v1::ShowEventsRequest,
    ) -> Result<v1::ShowEventsResponse, Status> {
        if request.reference.is_empty() {
            return Err(Status::invalid_argument("reference: expected a ref, or 8 digits of an id"));
        }
        let limit = pages::size(request.limit, 20);
        let found = self.stores().history().find(&request.reference, limit).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        Ok(v1::ShowEventsResponse { stories: found.iter().map(story).collect() })
    }
}

fn story(story: &EventStory) -> v1::EventStory {
    let attempts = story.steps.iter().map(|step| v1::Attempt {
        event_id: story.id.to_string(),
        event: story.name.clone(),
        entity: story.entity.clone().unwrap_or_default(),
        ..attempt(step)
    });
    v1::EventStory {
        id: story.id.to_string(),
        position: story.position,
        name: story.name.clone(),
        entity: story.entity.clone().unwrap_or_default(),
        source: story.source.clone(),
        received_at: Some(grpc::timestamp(story.received_at)),
        origin: story.origin.to_string(),
        trace_id: story.trace_id.clone().unwrap_or_default(),
        attempts: attempts.collect(),
        outcomes: story.states.iter().map(outcome).collect(),
    }
}

/// What a step says; whose it was, is not in it.
pub(crate) fn attempt(step: &StoryStep) -> v1::Attempt {
    let record = &step.record;
    v1::Attempt {
        route: step.route.clone(),
        redrive: step.redrive,
        attempt: step.attempt,
        started_at: Some(grpc::timestamp(record.started_at)),
        took: Some(grpc::duration(record.took)),
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
        StoryState::NotReached { route } => stands(route, "not-reached"),
        StoryState::Waiting { route, due } => {
            v1::RouteOutcome { due: Some(grpc::timestamp(*due)), ..stands(route, "waiting") }
        }
        StoryState::Dead { route, letter, reason } => {
            v1::RouteOutcome { letter: *letter, reason: reason.as_str().to_owned(), ..stands(route, "dead") }
        }
        _ => stands("", "unknown"),
    }
}
