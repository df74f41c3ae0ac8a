//! A dispatcher in a process of its own, for routes of other processes.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use dispatch::{AnyDispatcher, Registry};
use dispatch_grpc::Server;
use event_model::SystemClock;
use grpc::{GrpcServer, Routes};
use process::{ObservabilitySettings, Shutdown, StageArgs, StopTimes};
use settings::{OperatorSettings, Section, SettingsTree};
use telemetry::ErrorChain;

use crate::{ProcessResources, RouteSelection, located, open_dispatchers};

/// Serves the dispatcher of one route of the settings.
pub(crate) fn main(args: &StageArgs, route: &str, registry: &Registry) -> ExitCode {
    process::run_stage(
        args,
        StopTimes::DELIVERING,
        &[Section::Routes, Section::Operator, Section::Observability],
        |tree| Plan::read(tree, route, registry),
        async |_: &Plan| Ok(()),
        async |plan: Plan, shutdown| plan.run(registry, &shutdown).await,
    )
}

/// Everything the settings say, read before anything is opened.
struct Plan {
    tree: SettingsTree,
    operator: OperatorSettings,
    route: settings::RouteSettings,
    observed: ObservabilitySettings,
}

impl Plan {
    fn read(tree: SettingsTree, route: &str, registry: &Registry) -> anyhow::Result<Self> {
        let routes = tree.routes_of(registry)?;
        let found = routes.0.into_iter().find(|listed| listed.name == route);
        let route = found.with_context(|| format!("there is no route {route} in the settings"))?;
        if route.dispatcher == "grpc" || route.dispatcher == "subscription" {
            bail!(
                "route {} has `dispatcher: {}`: expected the one to be served",
                route.name,
                route.dispatcher
            );
        }
        let asks = route.enrich.is_some() || route.entity_check.is_some();
        if asks || route.on_success.is_some() || route.on_dead_letter.is_some() {
            bail!(
                "the route {} has enrich, entity-check, on-success or on-dead-letter: expected them with the route that calls, not here",
                route.name
            );
        }
        let missing = "expected `fluent-connect.operator.grpc`: where to listen, and who may call";
        let operator = tree.operator()?.context(missing)?;
        let observed = ObservabilitySettings::read(&tree)?;
        Ok(Self {
            tree,
            operator,
            route,
            observed,
        })
    }

    async fn run(self, registry: &Registry, shutdown: &Shutdown) -> anyhow::Result<()> {
        let readiness = self.observed.open("fluent-dispatcher", shutdown).await?;
        let dispatcher = self.dispatcher(registry).await?;
        let door = GrpcServer::bind(&self.operator, shutdown).await?;
        let server = Server::new(dispatcher.clone(), shutdown.clone());
        door.serve(Routes::new(server.service()), readiness.clone(), shutdown)?;
        readiness.set(None);
        shutdown.draining().cancelled().await;
        // Callers see this in the health service, and call another replica.
        readiness.set(Some(process::STOPPING.into()));
        shutdown.finish().await;
        dispatcher.close().await;
        Ok(())
    }

    /// Opens what the dispatcher shares; the tries of Fluent's logins, if it uses any, are in the
    /// stores of the queue that the settings name, or nowhere.
    async fn resources(&self) -> anyhow::Result<ProcessResources> {
        if self.tree.apis()?.is_empty() {
            return ProcessResources::by(&self.tree);
        }
        match queues::open_stores(&self.tree.queue()?, false, Arc::new(SystemClock)).await {
            Ok(stores) => ProcessResources::with_marks(&self.tree, stores),
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "how often Fluent's logins failed is known to this process alone: a restart forgets it");
                ProcessResources::by(&self.tree)
            }
        }
    }

    async fn dispatcher(&self, registry: &Registry) -> anyhow::Result<AnyDispatcher> {
        let routes = settings::Routes(vec![self.route.clone()]);
        let selection = RouteSelection::everything();
        let shared = self.resources().await?.shared;
        let opened =
            open_dispatchers(&routes, &selection, &self.tree.folder(), &shared, registry).await;
        let mut opened = opened.map_err(|error| located(&self.tree, error))?;
        let opened = opened.pop().context("the route has no dispatcher")?;
        Ok(opened.dispatcher)
    }
}
