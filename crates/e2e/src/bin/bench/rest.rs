//! The requests of dispatchers to a server while no events come, which it has to answer day and
//! night.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use event_model::SystemClock;
use nats_server::Cluster;
use queue::{Route, RouteFilter, Source, StartPosition};
use queue_nats::{JetStream, Options};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::report::{Report, Row};
use crate::stages::runtime;

/// Dispatchers, and below them routes, as many as in a large installation.
const DISPATCHERS: usize = 20;
const ROUTES: usize = 20;

/// The intervals of `service` and `dispatcher`.
const PROBED_EVERY: Duration = Duration::from_secs(3);
const SHOWN_EVERY: Duration = Duration::from_secs(15);
const LEASE: Duration = Duration::from_secs(30);

/// Time until requests that become less frequent have reached their lowest frequency.
const SETTLED_AFTER: Duration = Duration::from_secs(75);
const MEASURED_FOR: Duration = Duration::from_secs(60);

/// A server, with the folder of its streams.
pub(crate) struct Server {
    pub(crate) options: Options,
    pub(crate) cluster: Cluster,
    pub(crate) _folder: tempfile::TempDir,
}

impl Server {
    /// Messages that the server has received. Every request is one.
    fn requests(&self) -> anyhow::Result<u64> {
        let server = self.cluster.servers.first().context("no server")?;
        let answer = server.get("/varz")?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .context("the server's answer has no body")?;
        let answer: serde_json::Value = serde_json::from_str(body)?;
        answer["in_msgs"]
            .as_u64()
            .context("the server does not count its messages")
    }
}

/// Measures requests a second, in the row's rate.
pub(crate) fn measure(report: &mut Report, server: &Server) -> anyhow::Result<()> {
    let row = runtime()?.block_on(async {
        let mut working = JoinSet::new();
        for _ in 0..DISPATCHERS {
            let queue = JetStream::open(server.options.clone(), Arc::new(SystemClock)).await?;
            start(Arc::new(queue), &mut working).await?;
        }
        sleep(SETTLED_AFTER).await;
        let before = server.requests()?;
        let began = Instant::now();
        sleep(MEASURED_FOR).await;
        let asked = server.requests()? - before;
        working.shutdown().await;
        anyhow::Ok(Row::new(
            usize::try_from(asked)?,
            began.elapsed(),
            Duration::ZERO,
        ))
    })?;
    report.add(
        &format!("requests of {DISPATCHERS} dispatchers x {ROUTES} routes at rest, R1"),
        row,
    );
    Ok(())
}

/// Starts the tasks of a dispatcher that has nothing to deliver.
async fn start(queue: Arc<JetStream>, working: &mut JoinSet<()>) -> anyhow::Result<()> {
    for number in 0..ROUTES {
        let name = format!("route-{number}");
        let filter = RouteFilter::default();
        let start = StartPosition::Now;
        let mut consumer = queue
            .subscribe(Route {
                name,
                filter,
                start,
                lease: LEASE,
            })
            .await?;
        working.spawn(async move { while consumer.next(16).await.is_ok() {} });
    }
    let probed = Arc::clone(&queue);
    let shown = queue;
    working.spawn(async move {
        loop {
            let _ = probed.probe().await;
            sleep(PROBED_EVERY).await;
        }
    });
    working.spawn(async move {
        loop {
            let _ = shown.stores().recent_routes().await;
            sleep(SHOWN_EVERY).await;
        }
    });
    Ok(())
}
