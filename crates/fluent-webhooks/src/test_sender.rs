//! Test events to the destinations of routes, by the settings as they are now.

use std::fmt;
use std::sync::Arc;

use dispatch::Registry;
use dispatcher::{ProcessResources, RouteSelection, TestResult};
use event_model::{Clock, Environment, Event, SystemClock};
use futures::FutureExt;
use futures::future::BoxFuture;
use operator::{ReadSettings, TestSender};
use process::route_digests;
use proto::v1;
use queue::{FactAccess, MatchFields};
use settings::{RouteSettings, Routes, SettingsTree, nearest};
use simulator::{Events, Shape};
use telemetry::ErrorChain;
use tonic::Status;

use crate::sample_event;

/// Opens a route's dispatcher for each test, beside the routes that run.
pub(crate) struct SettingsTestSender {
    settings: ReadSettings,
    registry: Registry,
    facts: Arc<dyn FactAccess>,
}

impl fmt::Debug for SettingsTestSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingsTestSender").finish_non_exhaustive()
    }
}

impl TestSender for SettingsTestSender {
    fn send(
        &self,
        request: v1::SendTestEventRequest,
    ) -> BoxFuture<'_, Result<v1::SendTestEventResponse, Status>> {
        self.send_now(request).boxed()
    }
}

impl SettingsTestSender {
    pub(crate) fn new(
        settings: ReadSettings,
        registry: &Registry,
        facts: Arc<dyn FactAccess>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            registry: registry.clone(),
            facts,
        })
    }

    async fn send_now(
        &self,
        request: v1::SendTestEventRequest,
    ) -> Result<v1::SendTestEventResponse, Status> {
        let tree = (self.settings)().map_err(|error| not_possible(&*error))?;
        let route = find(&tree, &request.route)?;
        let settings = route_digests(&tree).remove(&route.name);
        if route.dispatcher == "subscription" {
            return Err(Status::failed_precondition(format!(
                "route {} has no destination to send to: its handlers ask for events",
                route.name
            )));
        }
        let event = event(&request, &route.terms)?;
        let mismatches = match route.terms.mismatches(&event) {
            Ok(mismatches) => mismatches.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        let event = event.into_test(fastrand::u64(..));
        let result = self.attempt(&tree, route, &event).await;
        let TestResult {
            attempt,
            answer,
            target,
        } = result.map_err(|error| not_possible(&*error))?;
        Ok(v1::SendTestEventResponse {
            event_id: event.id().to_string(),
            outcome: attempt.outcome.as_str().to_owned(),
            status: attempt.status.map(u32::from),
            detail: attempt.detail.unwrap_or_default(),
            answer,
            duration: Some(grpc::duration(attempt.took)),
            body: event.body().to_vec(),
            mismatches,
            target: target.unwrap_or_default(),
            settings: settings.unwrap_or_default().into_iter().collect(),
        })
    }

    async fn attempt(
        &self,
        tree: &SettingsTree,
        route: RouteSettings,
        event: &Event,
    ) -> anyhow::Result<TestResult> {
        let name = route.name.clone();
        let shared = ProcessResources::with_marks(tree, Arc::clone(&self.facts))?.shared;
        let everything = RouteSelection::everything();
        let only = Routes(vec![route]);
        let folder = tree.folder();
        let opened =
            dispatcher::open_dispatchers(&only, &everything, &folder, &shared, &self.registry);
        let opened = opened
            .await
            .map_err(|error| dispatcher::located(tree, error))?;
        let opened = opened.into_iter().next();
        let opened = opened.ok_or_else(|| anyhow::anyhow!("route {name} was not opened"))?;
        Ok(dispatcher::send_test(&name, opened, event, SystemClock.now()).await)
    }
}

fn not_possible(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::failed_precondition(ErrorChain(error).to_string())
}

fn find(tree: &SettingsTree, name: &str) -> Result<RouteSettings, Status> {
    let routes = tree.routes(None);
    let routes = routes.map_err(|error| not_possible(&error))?.0;
    if let Some(route) = routes.iter().find(|route| route.name == name) {
        return Ok(route.clone());
    }
    let known = routes.iter().map(|route| route.name.as_str());
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!(": there are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Err(Status::not_found(format!(
        "no route in the settings is called `{name}`{hint}"
    )))
}

/// The event of the request, or one that is made up for a route with these terms.
fn event(request: &v1::SendTestEventRequest, terms: &MatchFields) -> Result<Event, Status> {
    let environment = match request.environment.as_str() {
        "" => terms.environment.first().map_or("sandbox", String::as_str),
        named => named,
    };
    let environment: Environment = environment
        .parse()
        .map_err(|_| Status::invalid_argument("environment: expected sandbox or production"))?;
    let body = if request.body.is_empty() {
        made_up(terms)
    } else {
        request.body.to_vec()
    };
    sample_event::of_body(body, environment)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A whole event with the name, account and retailer that the route takes.
fn made_up(terms: &MatchFields) -> Vec<u8> {
    let first =
        |values: &[String], usual: &str| values.first().map_or(usual, String::as_str).to_owned();
    let retailer = first(&terms.retailer, "1").parse().unwrap_or(1);
    let account = first(&terms.account, "ACME");
    let name = first(&terms.event, "OrderStatusChange");
    Events::new(account, retailer, fastrand::u64(..))
        .of(&name, Shape::Full)
        .body
}
