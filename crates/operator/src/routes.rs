//! The state of routes, in numbers and in words.

use std::collections::{BTreeMap, HashSet};

use std::time::Duration;

use event_model::Timestamp;
use proto::v1;
use queue::{BreakerState, Pause, RouteProcessStatus, RouteState, UNROUTED};
use tonic::Status;

use crate::{Operator, failure};

/// The summary of a route without any obstacle.
pub(crate) const DELIVERING: &str = "delivering";

/// The summary of a route of which nothing went well lately.
const EVERY_ATTEMPT_FAILS: &str = "every attempt fails";

/// Most bytes of the reason of a pause.
const LONGEST_REASON: usize = 256;

/// Longest pause that ends by itself.
const LONGEST_PAUSE: Duration = Duration::from_hours(24 * 366);

impl Operator {
    pub(crate) async fn routes(&self) -> Result<Vec<v1::Route>, Status> {
        let listed = self.listed()?;
        let states = self
            .stores()
            .routes()
            .await
            .map_err(|error| failure::queue(&error))?;
        let failing = self.failing_routes(&states).await;
        Ok(self.describe(&states, &listed, &failing))
    }

    pub(crate) fn describe(
        &self,
        states: &[RouteState],
        listed: &HashSet<String>,
        failing: &BTreeMap<String, FailedAttempts>,
    ) -> Vec<v1::Route> {
        let described = |state: &RouteState| {
            let mut described = route(state, listed);
            if described.summary == DELIVERING && failing.contains_key(&state.name) {
                EVERY_ATTEMPT_FAILS.clone_into(&mut described.summary);
            }
            described
        };
        states.iter().map(described).collect()
    }

    /// The names of the routes in the settings.
    pub(crate) fn listed(&self) -> Result<HashSet<String>, Status> {
        let routes = self.settings()?.routes(None);
        let routes = routes.map_err(|error| failure::settings(&error.into()))?;
        Ok(routes.0.into_iter().map(|route| route.name).collect())
    }

    pub(crate) async fn pause(&self, route: &str, pause: &Pause) -> Result<(), Status> {
        self.stores()
            .set_paused(route, Some(pause))
            .await
            .map_err(|error| failure::queue(&error))
    }

    /// The pause that a request asks for.
    ///
    /// # Errors
    /// If its reason is too long, or its time is not valid.
    pub(crate) fn pause_of(
        &self,
        request: &v1::PauseRouteRequest,
        by: &str,
    ) -> Result<Pause, Status> {
        let wrong = |why: &str| Status::invalid_argument(why.to_owned());
        if request.reason.len() > LONGEST_REASON {
            return Err(wrong("reason: expected at most 256 bytes"));
        }
        let lasts = match &request.duration {
            None => None,
            Some(lasts) => {
                let lasts = grpc::duration_of(lasts)
                    .filter(|lasts| !lasts.is_zero() && *lasts <= LONGEST_PAUSE);
                Some(lasts.ok_or_else(|| wrong("duration: expected a time of up to a year"))?)
            }
        };
        let until = lasts.and_then(|lasts| self.0.clock.now().saturating_add(lasts).ok());
        let reason = Some(request.reason.clone()).filter(|reason| !reason.is_empty());
        Ok(Pause {
            until,
            reason,
            by: Some(by.to_owned()),
        })
    }

    pub(crate) async fn resume(&self, route: &str) -> Result<v1::ResumeRouteResponse, Status> {
        let failed = |error: queue::QueueError| failure::queue(&error);
        let states = self.stores().routes().await.map_err(failed)?;
        let state = states.into_iter().find(|state| state.name == route);
        self.stores()
            .set_paused(route, None)
            .await
            .map_err(failed)?;
        self.stores().close_breakers(route).await.map_err(failed)?;
        let is_open = |working: &&RouteProcessStatus| working.breaker != BreakerState::Closed;
        Ok(v1::ResumeRouteResponse {
            was_paused: state.as_ref().is_some_and(|state| state.paused),
            breakers: state.map_or(0, |state| {
                state.working.iter().filter(is_open).count() as u32
            }),
        })
    }

    pub(crate) async fn forget(&self, route: &str) -> Result<(), Status> {
        if route == UNROUTED {
            let why = "it is the product's own: it keeps what no other route matches";
            return Err(Status::failed_precondition(format!("route {route}: {why}")));
        }
        if self.listed()?.contains(route) {
            let why = "it is in the settings: take it out and restart first";
            return Err(Status::failed_precondition(format!("route {route}: {why}")));
        }
        self.stores()
            .forget(route)
            .await
            .map_err(|error| failure::queue(&error))
    }
}

fn route(state: &RouteState, listed: &HashSet<String>) -> v1::Route {
    v1::Route {
        name: state.name.clone(),
        position: state.position.packed(),
        behind: state.behind,
        waiting: state.waiting,
        in_flight: state.in_flight,
        dead_letters: state.dead,
        paused: state.paused,
        configured: listed.contains(&state.name),
        processes: state.working.iter().map(working).collect(),
        summary: summary(state),
        pause: state.pause.as_ref().map(pause),
    }
}

fn pause(pause: &Pause) -> v1::Pause {
    v1::Pause {
        until: pause.until.map(grpc::timestamp),
        reason: pause.reason.clone().unwrap_or_default(),
        by: pause.by.clone().unwrap_or_default(),
    }
}

/// The newest attempts of a route, all of which failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailedAttempts {
    pub(crate) count: usize,
    /// The beginning of the first of them.
    pub(crate) first_at: Timestamp,
}

/// A pause in words: `paused by ops until 2026-11-28T12:00:00Z: a deploy`.
pub(crate) fn paused_in_words(pause: Option<&Pause>) -> String {
    let Some(pause) = pause else {
        return "paused".to_owned();
    };
    let by = pause
        .by
        .as_ref()
        .map(|by| format!(" by {by}"))
        .unwrap_or_default();
    let until = pause
        .until
        .map(|until| format!(" until {until:.0}"))
        .unwrap_or_default();
    let reason = pause
        .reason
        .as_ref()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    format!("paused{by}{until}{reason}")
}

fn working(working: &RouteProcessStatus) -> v1::RouteProcess {
    let (breaker, until) = match working.breaker {
        BreakerState::Closed => ("closed", None),
        BreakerState::Open { until } => ("open", Some(until)),
        BreakerState::HalfOpen => ("half-open", None),
    };
    v1::RouteProcess {
        process: working.process.clone(),
        breaker: breaker.to_owned(),
        open_until: until.map(grpc::timestamp),
        throttled: working.throttled,
    }
}

/// The summary of a route: that it delivers, or what keeps it from delivering.
fn summary(route: &RouteState) -> String {
    let of = |count: usize| match route.working.len() {
        1 => String::new(),
        all => format!(" in {count} of {all} processes"),
    };
    let open: Vec<Timestamp> = route
        .working
        .iter()
        .filter_map(|working| until(&working.breaker))
        .collect();
    let half_open = route
        .working
        .iter()
        .filter(|working| working.breaker == BreakerState::HalfOpen)
        .count();
    let throttled = route
        .working
        .iter()
        .filter(|working| working.throttled)
        .count();
    match (route.paused, route.working.is_empty(), open.iter().min()) {
        (true, ..) => paused_in_words(route.pause.as_ref()),
        _ if route.name == UNROUTED => "keeps what no other route matches".to_owned(),
        (_, true, _) => "nobody runs it".to_owned(),
        (.., Some(until)) => format!("fails: left alone until {until:.0}{}", of(open.len())),
        _ if half_open > 0 => format!("fails: asking again{}", of(half_open)),
        _ if throttled > 0 => format!("held to its rate{}", of(throttled)),
        _ => DELIVERING.to_owned(),
    }
}

fn until(breaker: &BreakerState) -> Option<Timestamp> {
    if let BreakerState::Open { until } = breaker {
        Some(*until)
    } else {
        None
    }
}
