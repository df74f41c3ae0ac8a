//! All stages in one process.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use dispatch::Registry;
use event_model::{Clock, SystemClock};
use gateway::Bounds;
use queue::EventQueue;
use service::{Health, Readiness, Shutdown};
use settings::{Gateway, Routes, Tree};
use telemetry::Format;
use tokio::net::TcpListener;

use crate::cli::Common;
use crate::open;

/// How soon readiness follows the queue's state.
const READY_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn run(common: &Common, log: &str, registry: &Registry) -> ExitCode {
    let format = if common.json { Format::Json } else { Format::Readable };
    let plan = open::tree(&common.config).and_then(|tree| Plan::read(tree, registry));
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return service::code(Err(error)),
    };
    let _logs = telemetry::start_logs(format, log);
    service::run(|shutdown| plan.run(registry, shutdown))
}

/// Everything the settings say, read before anything is opened.
struct Plan {
    tree: Tree,
    gateway: Gateway,
    routes: Routes,
}

impl Plan {
    fn read(tree: Tree, registry: &Registry) -> anyhow::Result<Self> {
        let (gateway, routes) = (tree.gateway()?, tree.routes(Some(registry))?);
        tree.queue()?;
        tree.health()?;
        Ok(Self { tree, gateway, routes })
    }

    async fn run(self, registry: &Registry, shutdown: Shutdown) -> anyhow::Result<()> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = adapters::open(&self.tree.queue()?, Arc::clone(&clock))?;
        let queue = opened.queue;
        let result = self.stages(registry, Arc::clone(&queue), clock, &shutdown).await;
        // What is in flight first, then the queue it settles with.
        shutdown.finish().await;
        queue.close().await;
        tracing::info!("stopped");
        result
    }

    async fn stages(
        &self,
        registry: &Registry,
        queue: Arc<dyn EventQueue>,
        clock: Arc<dyn Clock>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        self.warn();
        let readiness = Readiness::default();
        if let Some(address) = self.tree.health()? {
            let health = Health::bind(address, readiness.clone()).await;
            let health = health.with_context(|| format!("listening on {address} for health checks"))?;
            shutdown.spawn_unwaited(health.serve(shutdown.clone()));
        }
        let dispatching =
            dispatcher::open(&self.routes, &self.tree.folder(), registry, &*queue, clock).await?;
        let listen = self.gateway.listen;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listening on {listen} for webhooks"))?;
        let address = listener.local_addr()?;
        dispatching.start(shutdown);
        let bounds = Bounds::new(self.gateway.body_limit);
        let router = gateway::router(open::ports(&self.gateway, Arc::clone(&queue)), &bounds);
        shutdown.spawn(gateway::serve(listener, router, bounds, shutdown.clone()));
        shutdown.spawn_unwaited(keep_ready(readiness.clone(), Arc::clone(&queue)));
        tracing::info!(%address, path = self.gateway.path, routes = self.routes.0.len(), "listening for webhooks");
        let draining = shutdown.draining();
        tokio::select! {
            () = draining.cancelled() => tracing::info!("stopping: what is in flight is finished first"),
            why = queue.failed() => {
                readiness.set(false);
                bail!("the queue can't be trusted any more ({why}); restart to begin a new file, then `fluent-webhooks salvage` the old one");
            }
        }
        Ok(())
    }

    fn warn(&self) {
        for (name, key) in self.gateway.keys.keys().filter(|(_, key)| key.is_weak()) {
            tracing::warn!(key = %name, bits = key.bits(), fingerprint = key.fingerprint(), "weak key: Fluent's own, and shorter than is advised today");
        }
        if self.routes.0.is_empty() {
            tracing::warn!("no routes: every event will be kept as unrouted");
        }
    }
}

/// Ready is who can make an event durable now.
async fn keep_ready(readiness: Readiness, queue: Arc<dyn EventQueue>) {
    loop {
        readiness.set(queue.has_room());
        tokio::time::sleep(READY_EVERY).await;
    }
}
