//! The operator's API in a process of its own, beside a cluster: with the rights of an operator,
//! which no gateway and no dispatcher has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use console::ConsoleServer;
use event_model::SystemClock;
use grpc::{GrpcServer, Routes};
use operator::Operator;
use process::{ObservabilitySettings, Shutdown, StageArgs, StopTimes};
use settings::{ConsoleSettings, OperatorSettings, QueueSettings, Section, SettingsTree};

use crate::test_sender::SettingsTestSender;
use crate::{open, stage};

pub(crate) fn run(args: &StageArgs) -> ExitCode {
    process::run_stage(
        args,
        StopTimes::DELIVERING,
        &[
            Section::Queue,
            Section::Operator,
            Section::Gateway,
            Section::Routes,
            Section::Observability,
        ],
        |tree| Plan::read(args.config.clone(), tree),
        async |plan: &Plan| plan.check(),
        async |plan: Plan, shutdown| plan.run(&shutdown).await,
    )
}

/// All settings, read before anything is opened.
struct Plan {
    config: PathBuf,
    tree: SettingsTree,
    queue: QueueSettings,
    operator: Option<OperatorSettings>,
    console: Option<ConsoleSettings>,
    observed: ObservabilitySettings,
}

impl Plan {
    fn read(config: PathBuf, tree: SettingsTree) -> anyhow::Result<Self> {
        let queue = tree.queue()?;
        let operator = tree.operator()?;
        let console = tree.console()?;
        ensure!(
            operator.is_some() || console.is_some(),
            "expected `fluent-connect.operator.grpc` or `.console`: where to listen, and who may call"
        );
        // Keys and routes are read again for each call. Mistakes in them are reported now.
        let _ = (tree.gateway()?, tree.routes(None)?);
        let observed = ObservabilitySettings::read(&tree)?;
        Ok(Self {
            config,
            tree,
            queue,
            operator,
            console,
            observed,
        })
    }

    /// Reads the files that the settings name.
    fn check(&self) -> anyhow::Result<()> {
        self.operator.as_ref().map(GrpcServer::check).transpose()?;
        self.console
            .as_ref()
            .map(ConsoleServer::check)
            .transpose()
            .map(drop)
    }

    async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let readiness = self.observed.open("fluent-operator", shutdown).await?;
        let door = match &self.operator {
            Some(operator) => Some(GrpcServer::bind(operator, shutdown).await?),
            None => None,
        };
        let console = self.console.as_ref();
        let console = console.map(|console| ConsoleServer::bind(console, shutdown));
        let console = console.transpose()?;
        let opening = queues::open_stores(&self.queue, true, Arc::new(SystemClock));
        // A signal must not wait for a queue that is away.
        let Some(stores) = shutdown.draining().run_until_cancelled(opening).await else {
            return Ok(());
        };
        let stores = stores?;
        let settings = open::settings(&self.config);
        let audit = self.tree.audit()?;
        let operator = Operator::new(
            Arc::clone(&stores),
            settings,
            audit,
            Arc::new(SystemClock),
            shutdown.clone(),
        );
        let sender = SettingsTestSender::new(
            open::settings(&self.config),
            &crate::registry(),
            Arc::clone(&stores) as _,
        );
        let operator = operator.with_test_sender(sender);
        if let Some(door) = door {
            let routes = Routes::new(operator.clone().service());
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
        shutdown.spawn_detached(process::show_routes(Arc::clone(&stores), None));
        shutdown.spawn_detached(operator.clone().watch_machinery());
        shutdown.spawn(operator.clone().run_jobs());
        let reporter = self
            .observed
            .report("operator", stores, &readiness, None, shutdown);
        tokio::select! {
            () = shutdown.draining().cancelled_owned() => {}
            () = stage::be_ready(&readiness, async || operator.check_well().await) => {}
        }
        readiness.set(Some(process::STOPPING.into()));
        shutdown.finish().await;
        reporter.close().await;
        Ok(())
    }
}
