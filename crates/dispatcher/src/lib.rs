//! Takes events from the queue, route by route, and hands each to its
//! dispatcher.
//!
//! ```text
//! Consumer ─permits─▶ deliveries ─▶ attempt ─▶ Dispatcher
//!                                     │
//!                     policy::disposition ┴─▶ settle: done │ again, later │ dead letter
//! ```
//!
//! Each route has a consumer and permits of its own, so a slow one delays no
//! other. No delivery is taken without a permit to work on it.
//!
//! Start reading at [`open`] and `route.rs`; what becomes of a failure is
//! decided in [`policy`].

mod attempt;
mod breaker;
mod capacity;
mod delivery_telemetry;
mod explain;
mod fluent_clients;
mod heartbeat;
mod isolation;
mod login_ledger;
mod note_retry;
mod notify;
mod process_resources;
mod rate_limit;
mod reconciled_dedup;
mod remote;
mod report;
mod route;
mod route_selection;
mod route_status;
mod same_id;
mod send_test;
mod stage;
#[cfg(test)]
mod testing;
mod unrouted;

pub mod policy;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dispatch::{
    AnyDispatcher, BoxError, Dispatcher, Extensions, InvalidSetting, OpenContext, Registry,
    RegistryError,
};
use dispatch_grpc::Remote;
use enrichment::Enrichment;
use event_model::Clock;
use futures::stream::{self, StreamExt, TryStreamExt};
use process::Shutdown;
use queue::{Consumer, DeadReason, Route, RouteFilter, Source};
use settings::{OutcomeHookSettings, RouteSettings, Routes, SettingsError, SettingsTree};
use subscriptions::SubscriptionDispatcher;
use telemetry::{ErrorChain, metrics};

pub use crate::fluent_clients::accounts as fluent_accounts;
pub use crate::login_ledger::RestingLogins;
pub use crate::process_resources::ProcessResources;
pub use crate::route_selection::RouteSelection;
pub use crate::send_test::{TestResult, context as test_context, send_test};
pub use crate::stage::{main, registry};

use crate::isolation::Isolation;
use crate::notify::OutcomeHooks;
use crate::reconciled_dedup::ReconciledDedup;
use crate::route_status::StatusRegistry;
use crate::same_id::SameId;

/// Time that a delivery may be held without a heartbeat, of which there are three in this time.
const LEASE: Duration = Duration::from_secs(30);

/// Routes that are joined at the same time.
const JOINED_TOGETHER: usize = 16;

/// Every route of the settings, opened and ready to run.
#[derive(Debug)]
pub struct RunningRoutes {
    pub(crate) routes: Vec<OpenRoute>,
    unrouted: Option<Box<dyn Consumer>>,
    registry: StatusRegistry,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
pub(crate) struct OpenRoute {
    pub(crate) settings: RouteSettings,
    pub(crate) opened: OpenedRoutes,
    pub(crate) dedup: Option<ReconciledDedup>,
    pub(crate) same_id: Option<SameId>,
    pub(crate) consumer: Box<dyn Consumer>,
    /// Time that its deliveries may be held without a heartbeat.
    pub(crate) lease: Duration,
}

/// Dispatcher and enrichment of a route, opened.
#[derive(Debug)]
pub struct OpenedRoutes {
    /// Delivers the events.
    pub dispatcher: AnyDispatcher,
    /// Asks Fluent about the events first, if the route wants it.
    pub enrichment: Option<Enrichment>,
    then: OutcomeHooks,
}

/// Opens the dispatchers and enrichment of every selected route; an error names the route whose
/// settings are wrong or name something that does not exist.
pub async fn open_dispatchers(
    routes: &Routes,
    selection: &RouteSelection,
    folder: &Path,
    shared: &Extensions,
    registry: &Registry,
) -> anyhow::Result<Vec<OpenedRoutes>> {
    let mut opened = Vec::new();
    let mut failed = Vec::new();
    for route in routes.0.iter().filter(|route| selection.has(&route.name)) {
        let cx = OpenContext::new(&*route.name, folder).with_extensions(shared);
        match open_route(route, &cx, registry).await {
            Ok(route) => opened.push(route),
            Err(errors) => failed.extend(errors.into_iter().map(|source| NotOpened {
                route: route.name.clone(),
                source,
            })),
        }
    }
    match failed.is_empty() {
        true => Ok(opened),
        false => Err(RoutesNotOpened(failed).into()),
    }
}

/// Opens all parts of a route; an error for each that can't be.
async fn open_route(
    route: &RouteSettings,
    cx: &OpenContext,
    registry: &Registry,
) -> Result<OpenedRoutes, Vec<BoxError>> {
    let enrichment = Enrichment::open(route.enrich.as_ref(), route.entity_check, cx);
    let dispatcher = registry.open(&route.dispatcher, route.table.clone(), cx);
    let dispatcher = dispatcher.await.map_err(each);
    let on_success = open_hook(route.on_success.as_ref(), cx, registry).await;
    let on_dead_letter = open_hook(route.on_dead_letter.as_ref(), cx, registry).await;
    match (enrichment, dispatcher, on_success, on_dead_letter) {
        (Ok(enrichment), Ok(dispatcher), Ok(on_success), Ok(on_dead_letter)) => Ok(OpenedRoutes {
            dispatcher,
            enrichment,
            then: OutcomeHooks {
                on_success,
                on_dead_letter,
            },
        }),
        (enrichment, dispatcher, on_success, on_dead_letter) => Err([
            enrichment.err().map(|error| vec![error]),
            dispatcher.err(),
            on_success.err(),
            on_dead_letter.err(),
        ]
        .into_iter()
        .flatten()
        .flatten()
        .collect()),
    }
}

/// One error for each thing that keeps a dispatcher from opening.
fn each(error: RegistryError) -> Vec<BoxError> {
    error.into_each().into_iter().map(BoxError::from).collect()
}

async fn open_hook(
    listed: Option<&OutcomeHookSettings>,
    cx: &OpenContext,
    registry: &Registry,
) -> Result<Option<AnyDispatcher>, Vec<BoxError>> {
    let Some(listed) = listed else {
        return Ok(None);
    };
    // A handler would take an outcome for an event: only templates can tell them apart.
    if [SubscriptionDispatcher::KIND, Remote::KIND].contains(&&*listed.dispatcher) {
        let why = format!(
            "`{}` can't be told of outcomes: expected one with templates",
            listed.dispatcher
        );
        return Err(vec![InvalidSetting::new(&*listed.dispatcher, why).into()]);
    }
    let opened = registry.open(&listed.dispatcher, listed.table.clone(), cx);
    opened.await.map(Some).map_err(each)
}

/// A part of a route that can't be run, with the reason.
#[derive(Debug)]
pub struct NotOpened {
    /// Its name.
    pub route: String,
    /// Error of its dispatcher, or of its enrichment.
    pub source: BoxError,
}

impl NotOpened {
    /// The error with the place in the settings of what is to blame.
    fn located(&self, tree: &SettingsTree) -> SettingsError {
        let written = InvalidSetting::among(&*self.source).map(InvalidSetting::written);
        let why = ErrorChain(&*self.source).to_string();
        tree.wrong_route(&self.route, written, &why)
    }
}

/// Routes that can't be run.
#[derive(Debug, thiserror::Error)]
#[error("{}", described(.0))]
pub struct RoutesNotOpened(pub Vec<NotOpened>);

fn described(failed: &[NotOpened]) -> String {
    let each = failed.iter().map(|failed| {
        let why = ErrorChain(&*failed.source);
        format!("opening route {}: {why}", failed.route)
    });
    each.collect::<Vec<_>>().join("\n")
}

/// Adds to the error of routes that can't be opened their locations in the settings.
pub fn located(tree: &SettingsTree, error: anyhow::Error) -> anyhow::Error {
    let Some(RoutesNotOpened(failed)) = error.downcast_ref() else {
        return error;
    };
    let each = failed.iter().map(|failed| failed.located(tree));
    SettingsError::of_all(each).map_or(error, anyhow::Error::from)
}

/// Finds the values that keep routes from opening, without what no value is to blame for.
pub fn invalid_values(tree: &SettingsTree, error: &anyhow::Error) -> Vec<SettingsError> {
    let failed = error.downcast_ref().map(|RoutesNotOpened(failed)| failed);
    let failed = failed.into_iter().flatten();
    failed
        .filter(|failed| InvalidSetting::among(&*failed.source).is_some())
        .map(|failed| failed.located(tree))
        .collect()
}

/// Opens every selected route's dispatcher, then joins every selected route, so that a route that
/// can't deliver is noticed before any event is taken.
pub async fn open(
    routes: &Routes,
    selection: &RouteSelection,
    folder: &Path,
    shared: &Extensions,
    registry: &Registry,
    source: &Arc<dyn Source>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<RunningRoutes> {
    let opened = open_dispatchers(routes, selection, folder, shared, registry).await?;
    join_routes(routes, selection, opened, source, clock, LEASE).await
}

/// Joins every selected route, to deliver with what is open already. The lease is a parameter so
/// that a test need not wait for half a minute.
#[doc(hidden)]
pub async fn join_routes(
    routes: &Routes,
    selection: &RouteSelection,
    opened: Vec<OpenedRoutes>,
    source: &Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    lease: Duration,
) -> anyhow::Result<RunningRoutes> {
    let selected: Vec<_> = routes
        .0
        .iter()
        .filter(|route| selection.has(&route.name))
        .collect();
    // Joined by every process, so that unrouted events are kept from the start; taken only if the
    // route is selected.
    let unrouted = unrouted::route(routes, lease);
    let changing: Vec<_> = selected
        .iter()
        .map(|settings| route_of(settings, lease))
        .chain([unrouted.clone()])
        .collect();
    source
        .announce(&changing)
        .await
        .context("saying which routes are about to be joined")?;
    let joining = selected.into_iter().cloned().zip(opened).map(async |(settings, opened)| {
        let consumer = source.subscribe(route_of(&settings, lease)).await;
        let consumer = consumer.with_context(|| format!("joining route {}", settings.name))?;
        let dedup = ReconciledDedup::of(&settings, source);
        let same_id = SameId::of(&settings, source);
        if let Some(same_id) = &same_id {
            same_id.try_out(clock.now()).await.with_context(|| {
                format!(
                    "route {} says `same-id: skip`, and this process can't mark what it delivers; on a cluster it takes the rights `fluent.same-id.>` and `$JS.API.STREAM.MSG.GET.FLUENT_SAME_IDS` (config/nats/accounts.conf)",
                    settings.name
                )
            })?;
        }
        anyhow::Ok(OpenRoute { settings, opened, dedup, same_id, consumer, lease })
    });
    let open = stream::iter(joining)
        .buffered(JOINED_TOGETHER)
        .try_collect()
        .await?;
    let unrouted = source
        .subscribe(unrouted)
        .await
        .context("joining the reserved route")?;
    let unrouted = selection.has(queue::UNROUTED).then_some(unrouted);
    let registry = StatusRegistry::default();
    source.show_status(registry.status_source(Arc::clone(&clock)));
    Ok(RunningRoutes {
        routes: open,
        unrouted,
        registry,
        clock,
    })
}

fn route_of(settings: &RouteSettings, lease: Duration) -> Route {
    let name = settings.name.clone();
    let filter = settings.terms.clone().into();
    Route {
        name,
        filter,
        start: settings.start,
        lease,
    }
}

impl RunningRoutes {
    /// Returns the names of the routes that run here.
    pub fn names(&self) -> HashSet<String> {
        let unrouted = self.unrouted.as_ref().map(|_| queue::UNROUTED.to_owned());
        self.routes
            .iter()
            .map(|route| route.settings.name.clone())
            .chain(unrouted)
            .collect()
    }

    /// Starts every route. Each runs until draining begins or the queue closes.
    pub fn start(self, shutdown: &Shutdown) {
        let isolation = Isolation::default();
        for route in self.routes {
            let isolation = isolation.clone();
            let registry = self.registry.clone();
            let clock = Arc::clone(&self.clock);
            let name = format!("the task of route {}", route.settings.name);
            shutdown.spawn_critical(
                name,
                route::run(route, isolation, registry, clock, shutdown.clone()),
            );
        }
        if let Some(unrouted) = self.unrouted {
            // `increase` in an alert needs a sample before the first dead letter.
            metrics::DEAD_LETTERS.add(
                0,
                [queue::UNROUTED.into(), DeadReason::Unrouted.as_str().into()],
            );
            let name = format!("the task of route {}", queue::UNROUTED);
            shutdown.spawn_critical(name, unrouted::run(unrouted, self.clock, shutdown.clone()));
        }
    }
}

/// Returns the filter of events that no route matches.
pub(crate) fn everything_else(routes: &Routes) -> RouteFilter {
    RouteFilter {
        none_of: routes.0.iter().map(|route| route.terms.clone()).collect(),
        ..RouteFilter::default()
    }
}
