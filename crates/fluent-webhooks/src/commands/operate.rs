//! The operator's API in a process of its own, beside a cluster: with the rights of an operator,
//! which no gateway and no dispatcher has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use event_model::SystemClock;
use grpc::{GrpcServer, Routes};
use operator::Operator;
use process::{ObservabilitySettings, Shutdown, StageArgs, StopTimes};
use settings::{OperatorSettings, QueueSettings, Section, SettingsTree};

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
        async |plan: &Plan| GrpcServer::check(&plan.operator),
        async |plan: Plan, shutdown| plan.run(&shutdown).await,
    )
}

/// All settings, read before anything is opened.
struct Plan {
    config: PathBuf,
    queue: QueueSettings,
    operator: OperatorSettings,
    observed: ObservabilitySettings,
}

impl Plan {
    fn read(config: PathBuf, tree: SettingsTree) -> anyhow::Result<Self> {
        let missing = "expected `fluent-connect.operator.grpc`: where to listen, and who may call";
        let queue = tree.queue()?;
        let operator = tree.operator()?.context(missing)?;
        // Keys and routes are read again for each call. Mistakes in them are reported now.
        let _ = (tree.gateway()?, tree.routes(None)?);
        let observed = ObservabilitySettings::read(&tree)?;
        Ok(Self {
            config,
            queue,
            operator,
            observed,
        })
    }

    async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let readiness = self.observed.open("fluent-operator", shutdown).await?;
        let door = GrpcServer::bind(&self.operator, shutdown).await?;
        let opening = queues::open_stores(&self.queue, true, Arc::new(SystemClock));
        // A signal must not wait for a queue that is away.
        let Some(stores) = shutdown.draining().run_until_cancelled(opening).await else {
            return Ok(());
        };
        let stores = stores?;
        let settings = open::settings(&self.config);
        let audit = self.operator.audit.clone();
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
        door.serve(
            Routes::new(operator.clone().service()),
            readiness.clone(),
            shutdown,
        )?;
        shutdown.spawn_detached(process::show_routes(Arc::clone(&stores), None));
        shutdown.spawn_detached(operator.clone().watch_machinery());
        let reporter = self
            .observed
            .report("operator", stores, &readiness, None, shutdown);
        tokio::select! {
            () = shutdown.draining().cancelled_owned() => {}
            () = stage::be_ready(&readiness, async || operator.check_well().await) => {}
        }
        readiness.set(false);
        shutdown.finish().await;
        reporter.close().await;
        Ok(())
    }
}
