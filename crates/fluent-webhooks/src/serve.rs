//! The command `serve`: all stages in one process.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use console::ConsoleServer;
use dispatch::Registry;
use dispatcher::{ProcessResources, RouteSelection};
use event_model::{Clock, SystemClock};
use fluent_api::Accounts;
use operator::Operator;
use process::{
    AddToReport, ObservabilitySettings, ProcessReporter, Readiness, Shutdown, StageArgs, StageWork,
    StopTimes,
};
use queue::{FactAccess, Intake, Stores};
use queues::OpenedQueue;
use settings::{
    ConsoleSettings, Gateway, QueueSettings, Routes, SettingsTree, SpoolSettings, UncheckedSettings,
};

use crate::cli::CommonArgs;
use crate::commands::check;
use crate::open;
use crate::reconciling::ReconcilerTask;
use crate::test_sender::SettingsTestSender;

pub(crate) fn run(common: &CommonArgs, log: &str, registry: &Registry) -> ExitCode {
    let args = StageArgs {
        config: common.config.clone(),
        json: common.json,
        log: log.to_owned(),
        is_ready: false,
        check: false,
    };
    let sections = check::sections(registry, false);
    // Secrets and templates of the routes are looked for only then: the service opens them itself.
    let is_wrong = |settings: UncheckedSettings| {
        let tree = settings.unchecked();
        !tree.mistakes(&sections).is_empty() || !check::wrong_files(tree).is_empty()
    };
    if process::unchecked_tree(&common.config).is_ok_and(is_wrong) {
        return process::run(|_| async {
            check::valid_tree(&common.config, false, registry)
                .await
                .map(drop)
        });
    }
    process::run_stage(
        &args,
        StopTimes::RECEIVING,
        &sections,
        |tree| Plan::read(common.config.clone(), tree, registry),
        async |_: &Plan| Ok(()),
        async |plan: Plan, shutdown| plan.run(registry, shutdown).await,
    )
}

/// Everything the settings say, read before anything is opened.
struct Plan {
    config: PathBuf,
    tree: SettingsTree,
    gateway: Gateway,
    routes: Routes,
    queue: QueueSettings,
    spool: Option<SpoolSettings>,
    reconciling: Option<Arc<ReconcilerTask>>,
    console: Option<ConsoleSettings>,
    observed: ObservabilitySettings,
}

impl Plan {
    fn read(config: PathBuf, tree: SettingsTree, registry: &Registry) -> anyhow::Result<Self> {
        let gateway = tree.gateway()?;
        let routes = tree.routes(Some(registry))?;
        let queue = tree.queue_to_deliver()?;
        let spool = tree.spool(&queue)?;
        let reconciling = ReconcilerTask::read(&tree)?.map(Arc::new);
        let console = tree.console()?;
        let observed = ObservabilitySettings::read(&tree)?;
        Ok(Self {
            config,
            tree,
            gateway,
            routes,
            queue,
            spool,
            reconciling,
            console,
            observed,
        })
    }

    async fn run(self, registry: &Registry, shutdown: Shutdown) -> anyhow::Result<()> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = queues::open_for_gateway(
            &self.queue,
            self.spool.as_ref(),
            "serve",
            Arc::clone(&clock),
        )
        .await?;
        [
            self.routes.warnings(),
            self.tree.match_warnings(&self.routes),
        ]
        .concat()
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
        process::with_queue(&*opened.lifecycle, &shutdown, async |reporter| {
            self.stages(registry, &opened, clock, reporter, &shutdown)
                .await
        })
        .await
    }

    async fn stages(
        &self,
        registry: &Registry,
        queue: &OpenedQueue,
        clock: Arc<dyn Clock>,
        reporter: &mut Option<ProcessReporter>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        if self.routes.0.is_empty() {
            tracing::warn!("no routes: every event will be kept as unrouted");
        }
        let readiness = self.observed.open("fluent-webhooks", shutdown).await?;
        let mut sharing =
            ProcessResources::open(&self.tree, shutdown, Arc::clone(&queue.stores) as _).await?;
        let console = self.console.as_ref();
        let console = console.map(|console| ConsoleServer::bind(console, shutdown));
        let console = console.transpose()?;
        let everything = RouteSelection::everything();
        let folder = self.tree.folder();
        let shared = &sharing.shared;
        let opening = dispatcher::open(
            &self.routes,
            &everything,
            &folder,
            shared,
            registry,
            &queue.source,
            clock,
        );
        // A disk that is full keeps it from beginning, for as long as that lasts.
        let opening = async {
            tokio::select! {
                opened = opening => opened,
                never = say_why(&readiness, &*queue.intake) => match never {},
            }
        };
        // A signal must not wait for a queue that is away.
        let Some(dispatching) = shutdown.draining().run_until_cancelled(opening).await else {
            return Ok(());
        };
        // Delivering begins only when accepting can begin, too.
        let dispatching = dispatching.map_err(|error| dispatcher::located(&self.tree, error))?;
        let facts: Arc<dyn FactAccess> = Arc::clone(&queue.stores) as _;
        let accepting = gateway::start(
            &self.gateway,
            &self.config,
            &queue.intake,
            Arc::clone(&facts),
            shutdown,
        );
        let refused = accepting.await?;
        let resting = sharing.resting.clone();
        let add: AddToReport = Arc::new(move |report| {
            refused(report);
            resting.add_to(report);
        });
        *reporter = Some(
            self.observed
                .report("serve", facts, &readiness, Some(add), shutdown),
        );
        let operator = self.operator_of(&queue.stores, registry, shutdown)?;
        if let Some(door) = sharing.door.take() {
            let routes = sharing.routes(shutdown);
            let routes = routes.add_service(operator.clone().service());
            let routes = routes.add_service(operator.clone().jobs_service());
            door.serve(routes, readiness.clone(), shutdown)?;
        }
        if let Some(console) = console {
            open::serve_console(
                console,
                operator.clone(),
                &self.tree,
                &self.config,
                shutdown,
            )?;
        }
        shutdown.spawn_detached(process::show_routes(Arc::clone(&queue.stores), None));
        shutdown.spawn_detached(operator.clone().watch_machinery());
        shutdown.spawn(operator.run_jobs());
        dispatching.start(shutdown);
        self.reconcile(&queue.stores, sharing.apis, shutdown);
        process::until_stopped(
            &queue.lifecycle,
            StageWork::Accepting(Arc::clone(&queue.intake)),
            &readiness,
            shutdown,
        )
        .await
    }

    /// Reconciles if the settings say so. A comparison that the end of the process cuts off is
    /// begun again by the next process.
    fn reconcile(&self, stores: &Arc<dyn Stores>, apis: Accounts, shutdown: &Shutdown) {
        let Some(reconciling) = self.reconciling.clone() else {
            return;
        };
        let stores = Arc::clone(stores);
        let draining = shutdown.draining();
        shutdown.spawn_detached(async move {
            draining
                .run_until_cancelled(reconciling.serve(&*stores, &apis))
                .await;
        });
    }

    fn operator_of(
        &self,
        stores: &Arc<dyn Stores>,
        registry: &Registry,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Operator> {
        let settings = open::settings(&self.config);
        let audit = self.tree.audit()?;
        let sender =
            SettingsTestSender::new(Arc::clone(&settings), registry, Arc::clone(stores) as _);
        let operator = Operator::new(
            Arc::clone(stores),
            settings,
            audit,
            Arc::new(SystemClock),
            shutdown.clone(),
        );
        Ok(operator.with_test_sender(sender))
    }
}

/// Says of a process that begins what keeps its queue from taking anything.
async fn say_why(readiness: &Readiness, intake: &dyn Intake) -> Infallible {
    loop {
        if let Some(why) = intake.impediment() {
            readiness.set(Some(why));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
