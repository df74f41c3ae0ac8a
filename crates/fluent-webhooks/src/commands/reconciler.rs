//! Comparing with Fluent's log as a service, beside a cluster.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use event_model::SystemClock;
use queue::Stores;
use service::{Observed, Readiness, Shutdown, StageArgs};
use settings::{QueueSettings, Tree};
use tokio::time::sleep;

use crate::reconciling::Reconciling;

/// How often to look whether the queue can be looked into.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &StageArgs) -> ExitCode {
    if args.is_ready {
        return service::code(args.ask());
    }
    let plan = service::tree(&args.config).and_then(|tree| Plan::read(&tree));
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return service::code(Err(error)),
    };
    if args.check {
        args.is_good();
        return ExitCode::SUCCESS;
    }
    let _logs = args.start_logs();
    service::run(|shutdown| async move { plan.run(&shutdown).await })
}

/// Everything the settings say, read before anything is opened.
struct Plan {
    queue: QueueSettings,
    reconciling: Reconciling,
    apis: fluent_api::Accounts,
    observed: Observed,
}

impl Plan {
    fn read(tree: &Tree) -> anyhow::Result<Self> {
        let (queue, reconciling) = (tree.queue()?, Reconciling::required(tree)?);
        let apis = dispatcher::fluent_accounts(tree)?;
        Ok(Self { queue, reconciling, apis, observed: Observed::read(tree)? })
    }

    async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let readiness = self.observed.open("fluent-reconciler", shutdown).await?;
        let opening = adapters::open_stores(&self.queue, false, Arc::new(SystemClock));
        // A signal must not have to wait for a queue that is away.
        let Some(stores) = shutdown.draining().run_until_cancelled(opening).await else { return Ok(()) };
        let stores = stores?;
        self.reconciling.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        tokio::select! {
            () = shutdown.draining().cancelled_owned() => {}
            () = self.reconciling.serve(&*stores, &self.apis) => {}
            () = be_ready(&*stores, &readiness) => {}
        }
        readiness.set(false);
        Ok(())
    }
}

async fn be_ready(stores: &dyn Stores, readiness: &Readiness) {
    loop {
        readiness.set(stores.history().complete_since().await.is_ok());
        sleep(LOOK_EVERY).await;
    }
}
