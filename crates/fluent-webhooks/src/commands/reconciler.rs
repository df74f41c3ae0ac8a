//! The reconciler in a process of its own, beside a cluster.

use std::process::ExitCode;
use std::sync::Arc;

use dispatcher::ProcessResources;
use event_model::SystemClock;
use process::{ObservabilitySettings, Shutdown, StageArgs, StopTimes};
use settings::{QueueSettings, Section, SettingsTree};

use crate::reconciling::ReconcilerTask;
use crate::stage;

pub(crate) fn run(args: &StageArgs) -> ExitCode {
    process::run_stage(
        args,
        StopTimes::DELIVERING,
        &[
            Section::Gateway,
            Section::QueueToDeliver,
            Section::Apis,
            Section::Routes,
            Section::Reconcile,
            Section::Observability,
        ],
        Plan::read,
        async |_: &Plan| Ok(()),
        async |plan: Plan, shutdown| plan.run(&shutdown).await,
    )
}

/// All settings, read before anything is opened.
struct Plan {
    tree: SettingsTree,
    queue: QueueSettings,
    reconciling: ReconcilerTask,
    observed: ObservabilitySettings,
}

impl Plan {
    fn read(tree: SettingsTree) -> anyhow::Result<Self> {
        // What came is verified as a dispatcher does.
        let queue = tree.queue_to_deliver()?;
        let reconciling = ReconcilerTask::required(&tree)?;
        // Reads the logins, too.
        ProcessResources::by(&tree)?;
        let observed = ObservabilitySettings::read(&tree)?;
        Ok(Self {
            tree,
            queue,
            reconciling,
            observed,
        })
    }

    async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let readiness = self.observed.open("fluent-reconciler", shutdown).await?;
        let opening = queues::open_stores(&self.queue, false, Arc::new(SystemClock));
        // A signal must not wait for a queue that is away.
        let Some(stores) = shutdown.draining().run_until_cancelled(opening).await else {
            return Ok(());
        };
        let stores = stores?;
        let apis = dispatcher::fluent_accounts(&self.tree, Arc::clone(&stores) as _)?;
        self.reconciling
            .routes
            .warnings()
            .iter()
            .for_each(|warning| tracing::warn!("{warning}"));
        let reporter = self.observed.report(
            "reconciler",
            Arc::clone(&stores) as _,
            &readiness,
            None,
            shutdown,
        );
        let ask = async || stores.history().complete_since().await;
        tokio::select! {
            () = shutdown.draining().cancelled_owned() => {}
            () = self.reconciling.serve(&*stores, &apis) => {}
            () = stage::be_ready(&readiness, ask) => {}
        }
        readiness.set(Some(process::STOPPING.into()));
        shutdown.finish().await;
        reporter.close().await;
        Ok(())
    }
}
