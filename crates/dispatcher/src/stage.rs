//! The dispatcher as a stage: from settings to running routes.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use clap::Parser;
use dispatch::Registry;
use event_model::{Clock, SystemClock};
use grpc::GrpcServer;
use process::{
    AddToReport, ObservabilitySettings, ProcessReporter, Shutdown, StageArgs, StageWork, StopTimes,
};
use queue::UNROUTED;
use queues::OpenedQueue;
use settings::{OperatorSettings, QueueSettings, Routes, Section, SettingsTree};

use crate::{ProcessResources, RouteSelection, located, open, open_dispatchers};

/// Delivers events from the queue to the systems that need them.
#[derive(Debug, Parser)]
#[command(name = "fluent-dispatcher", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
    /// Run only these routes of the settings; `unrouted` names what no route matches
    #[arg(long, value_name = "NAME", num_args = 1..)]
    route: Vec<String>,
    /// Instead of delivering, serve this route's dispatcher over gRPC, to a route
    /// elsewhere with `dispatcher: grpc`; where and to whom, `operator` says
    #[arg(long, value_name = "NAME", conflicts_with_all = ["route", "check"])]
    serve_dispatcher: Option<String>,
    /// Print the JSON Schema of the settings, with the dispatchers of this binary
    #[arg(long)]
    schema: bool,
}

/// The dispatchers that come with the product.
pub fn registry() -> Registry {
    Registry::new()
        .with::<dispatch_http::HttpDispatcher>()
        .with::<dispatch_fluent::FluentDispatcher>()
        .with::<dispatch_log::LogDispatcher>()
        .with::<dispatch_grpc::Remote>()
        .with::<subscriptions::SubscriptionDispatcher>()
}

/// Runs the routes of the settings as a process of its own, with these dispatchers.
#[expect(clippy::print_stdout, reason = "the answer to a question")]
pub fn main(registry: &Registry) -> ExitCode {
    let args = Args::parse();
    if args.schema {
        println!("{:#}", settings::schema(registry));
        return ExitCode::SUCCESS;
    }
    if let Some(route) = &args.serve_dispatcher {
        return crate::remote::main(&args.stage, route, registry);
    }
    let routes = match args.route.is_empty() {
        true => Section::RoutesOf(registry),
        // The tables of routes that other processes run are checked there.
        false => Section::Routes,
    };
    let sections = [
        Section::QueueToDeliver,
        routes,
        Section::Operator,
        Section::Observability,
    ];
    process::run_stage(
        &args.stage,
        StopTimes::DELIVERING,
        &sections,
        |tree| Plan::read(tree, registry, args.route),
        async |plan: &Plan| plan.check(registry).await,
        async |plan: Plan, shutdown| plan.run(registry, shutdown).await,
    )
}

/// Settings of the stage, all read before anything is opened.
struct Plan {
    tree: SettingsTree,
    queue: QueueSettings,
    routes: Routes,
    selection: RouteSelection,
    operator: Option<OperatorSettings>,
    observed: ObservabilitySettings,
}

impl Plan {
    fn read(tree: SettingsTree, registry: &Registry, names: Vec<String>) -> anyhow::Result<Self> {
        let queue = tree.queue_to_deliver()?;
        let selection = RouteSelection::of(names);
        // The tables of routes that other processes run are checked there.
        let all = tree.routes(None)?;
        for name in selection.names() {
            let is_known = name == UNROUTED || all.0.iter().any(|route| route.name == *name);
            let known: Vec<_> = all.0.iter().map(|route| route.name.as_str()).collect();
            ensure!(
                is_known,
                "there is no route {name} in the settings: expected one of {}",
                known.join(", ")
            );
        }
        let routes = match selection.is_everything() {
            true => tree.routes(Some(registry))?,
            false => all,
        };
        let observed = ObservabilitySettings::read(&tree)?;
        let operator = tree.operator()?;
        Ok(Self {
            tree,
            queue,
            routes,
            selection,
            operator,
            observed,
        })
    }

    async fn run(self, registry: &Registry, shutdown: Shutdown) -> anyhow::Result<()> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = queues::open(&self.queue, "dispatcher", Arc::clone(&clock)).await?;
        process::with_queue(&*opened.lifecycle, &shutdown, async |reporter| {
            self.serve(registry, &opened, clock, reporter, &shutdown)
                .await
        })
        .await
    }

    /// Opens what the routes need, and nothing of the queue.
    async fn check(&self, registry: &Registry) -> anyhow::Result<()> {
        self.operator.as_ref().map(GrpcServer::check).transpose()?;
        let shared = ProcessResources::by(&self.tree)?.shared;
        let folder = self.tree.folder();
        let opened = open_dispatchers(&self.routes, &self.selection, &folder, &shared, registry);
        opened.await.map_err(|error| located(&self.tree, error))?;
        Ok(())
    }

    async fn serve(
        &self,
        registry: &Registry,
        queue: &OpenedQueue,
        clock: Arc<dyn Clock>,
        reporter: &mut Option<ProcessReporter>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let readiness = self.observed.open("fluent-dispatcher", shutdown).await?;
        let mut resources =
            ProcessResources::open(&self.tree, shutdown, Arc::clone(&queue.stores) as _).await?;
        let resting = resources.resting.clone();
        let add: AddToReport = Arc::new(move |report| resting.add_to(report));
        let report = self.observed.report(
            "dispatcher",
            Arc::clone(&queue.stores) as _,
            &readiness,
            Some(add),
            shutdown,
        );
        *reporter = Some(report);
        let folder = self.tree.folder();
        let shared = &resources.shared;
        let opening = open(
            &self.routes,
            &self.selection,
            &folder,
            shared,
            registry,
            &queue.source,
            clock,
        );
        // A signal must not have to wait for a queue that is away.
        let Some(dispatching) = shutdown.draining().run_until_cancelled(opening).await else {
            return Ok(());
        };
        let dispatching = dispatching.map_err(|error| located(&self.tree, error))?;
        tracing::info!(routes = dispatching.routes.len(), "delivering");
        self.routes
            .warnings()
            .iter()
            .for_each(|warning| tracing::warn!("{warning}"));
        if let Some(door) = resources.door.take() {
            door.serve(resources.routes(shutdown), readiness.clone(), shutdown)?;
        }
        shutdown.spawn_detached(process::show_routes(
            Arc::clone(&queue.stores),
            Some(dispatching.names()),
        ));
        dispatching.start(shutdown);
        process::until_stopped(
            &queue.lifecycle,
            StageWork::Delivering(Arc::clone(&queue.source)),
            &readiness,
            shutdown,
        )
        .await
    }
}
