//! The gateway as a stage: from settings to a listening service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use event_model::{Clock, SystemClock};
use process::{
    AddToReport, Certificate, ObservabilitySettings, ProcessLimits, ProcessReporter, Shutdown,
    StageArgs, StageWork, StopTimes,
};
use queue::{FactAccess, Intake};
use queues::OpenedQueue;
use settings::{Gateway, QueueSettings, Section, SettingsTree, SpoolSettings};
use telemetry::metrics;
use tokio::net::TcpListener;
use verifier::WebhookVerifier;

use crate::quarantine::SpooledOverflow;
use crate::{
    Bounds, Ports, RefusedAccounts, RejectedCapture, SeenEventsRecorder, Senders, known_senders,
    request_telemetry, router, serve,
};

/// Receives Fluent Commerce's webhooks, verifies them, and makes them durable.
#[derive(Debug, Parser)]
#[command(name = "fluent-gateway", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

/// Runs the gateway as a process of its own.
pub fn main() -> ExitCode {
    process::run_stage(
        &Args::parse().stage,
        StopTimes::RECEIVING,
        &[
            Section::Gateway,
            Section::Queue,
            Section::Spool,
            Section::Observability,
        ],
        Plan::read,
        async |plan: &Plan| plan.check(),
        async |plan: Plan, shutdown| plan.run(shutdown).await,
    )
}

/// Everything the settings say, read before anything is opened.
struct Plan {
    config: PathBuf,
    gateway: Gateway,
    queue: QueueSettings,
    spool: Option<SpoolSettings>,
    observed: ObservabilitySettings,
}

impl Plan {
    fn read(tree: SettingsTree) -> anyhow::Result<Self> {
        let gateway = tree.gateway()?;
        let queue = tree.queue()?;
        let spool = tree.spool(&queue)?;
        let observed = ObservabilitySettings::read(&tree)?;
        Ok(Self {
            config: tree.file().to_owned(),
            gateway,
            queue,
            spool,
            observed,
        })
    }

    /// Reads the files that the settings name.
    fn check(&self) -> anyhow::Result<()> {
        let tls = self.gateway.tls.clone();
        tls.map_or(Ok(()), |files| Certificate::check(files, None))
    }

    async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened =
            queues::open_for_gateway(&self.queue, self.spool.as_ref(), "gateway", clock).await?;
        process::with_queue(&*opened.lifecycle, &shutdown, async |reporter| {
            self.serve(&opened, reporter, &shutdown).await
        })
        .await
    }

    async fn serve(
        &self,
        queue: &OpenedQueue,
        reporter: &mut Option<ProcessReporter>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let readiness = self.observed.open("fluent-gateway", shutdown).await?;
        let facts: Arc<dyn FactAccess> = Arc::clone(&queue.stores) as _;
        let refused = start(
            &self.gateway,
            &self.config,
            &queue.intake,
            Arc::clone(&facts),
            shutdown,
        )
        .await?;
        let report = self
            .observed
            .report("gateway", facts, &readiness, Some(refused), shutdown);
        *reporter = Some(report);
        process::until_stopped(
            &queue.lifecycle,
            StageWork::Accepting(Arc::clone(&queue.intake)),
            &readiness,
            shutdown,
        )
        .await
    }
}

/// Listens for webhooks. Returns the function that adds the gateway's facts to this process's
/// reports.
pub async fn start(
    settings: &Gateway,
    config: &Path,
    intake: &Arc<dyn Intake>,
    facts: Arc<dyn FactAccess>,
    shutdown: &Shutdown,
) -> anyhow::Result<AddToReport> {
    request_telemetry::begin_counters();
    settings
        .proxies
        .warnings()
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
    for (name, key) in settings.keys.keys() {
        metrics::KEY_BITS.set(key.bits() as f64, [name.to_string().into()]);
    }
    for (name, key) in settings.keys.keys().filter(|(_, key)| key.is_weak()) {
        tracing::warn!(key = %name, bits = key.bits(), fingerprint = key.fingerprint(), "weak key: Fluent's own, and shorter than is advised today");
    }
    let certificate = settings.tls.clone().map(Certificate::load).transpose()?;
    let listener = listen(settings.listen, shutdown).await?;
    let address = listener.local_addr()?;
    let bounds = bounds(settings.body_limit)?;
    intake.on_forwarded(Arc::new(request_telemetry::forwarded));
    let mut ports = ports(settings, Arc::clone(intake));
    intake.on_quarantine_full(Arc::new(SpooledOverflow {
        accounts: Arc::clone(&ports.accounts),
        signatures: settings.signatures.clone(),
        refusals: ports.senders.refusals.clone(),
    }));
    ports.rejected = RejectedCapture::start(intake, &ports.accounts, shutdown);
    let refused = ports.refused.clone();
    let senders = ports.senders.clone();
    senders.refusals.start(shutdown);
    let reported = senders.clone();
    known_senders::keep(senders.proven.clone(), Arc::clone(&facts), shutdown);
    ports
        .seen
        .keep(&process::process_id("gateway", config), facts, shutdown);
    let router = router(ports, &bounds);
    let tls = certificate
        .map(|certificate| certificate.acceptor("http/1.1", None, shutdown))
        .transpose()?;
    shutdown.spawn_intake(serve(
        listener,
        tls,
        router,
        bounds,
        senders,
        shutdown.clone(),
    ));
    // The path is not logged: it may have a secret in it.
    tracing::info!(%address, tls = settings.tls.is_some(), "listening for webhooks");
    Ok(Arc::new(move |report| {
        refused.add_to(report);
        reported
            .main
            .add_to(report, |address| reported.proxies.contains(address));
    }))
}

/// The bounds that fit into this process. Logs a line if they are below the usual ones.
fn bounds(body: usize) -> anyhow::Result<Bounds> {
    let limits = ProcessLimits::read();
    let bounds = Bounds::fitting(body, limits)?;
    if bounds.is_shrunk() {
        tracing::info!(
            memory = limits.memory,
            descriptors = limits.descriptors,
            connections = bounds.connections,
            bodies = bounds.bodies,
            "the memory and descriptors of this process allow fewer connections and bytes of bodies at once than usual"
        );
    }
    Ok(bounds)
}

/// The socket that was passed to this process, or a new one.
async fn listen(address: SocketAddr, shutdown: &Shutdown) -> anyhow::Result<TcpListener> {
    let Some(inherited) = process::inherited_listener("webhook")? else {
        let bound = process::listen(address);
        return bound.with_context(|| {
            format!("fluent-connect.webhook.listen: listening on {address} for webhooks")
        });
    };
    let inherited = TcpListener::from_std(inherited)?;
    let passed = inherited.local_addr()?;
    if !is_same_socket(passed, address) {
        tracing::warn!(%passed, listen = %address, "webhooks come by the socket that was passed (LISTEN_FDS), not by webhook.listen");
    }
    shutdown.socket_outlives_us();
    Ok(inherited)
}

/// Whether both listen at the same addresses: `[::]` of a socket takes what `0.0.0.0` does, too.
fn is_same_socket(passed: SocketAddr, listen: SocketAddr) -> bool {
    let takes_all = passed.ip().is_unspecified() && listen.ip().is_unspecified();
    passed == listen || (takes_all && passed.port() == listen.port())
}

/// Everything that receiving a webhook needs, from these settings.
pub fn ports(settings: &Gateway, intake: Arc<dyn Intake>) -> Ports {
    let signatures = &settings.signatures;
    let headers = signatures.sha512.iter().chain(&signatures.md5);
    Ports {
        verifier: Arc::new(WebhookVerifier::new(
            Arc::clone(&settings.keys),
            signatures.clone(),
        )),
        accounts: Arc::new(settings.accounts.clone()),
        intake,
        clock: Arc::new(SystemClock),
        signature_headers: headers.map(|name| name.to_lowercase()).collect(),
        path: settings.path.as_str().into(),
        malformed: settings.malformed,
        senders: Senders {
            proxies: settings.proxies.clone(),
            ..Senders::default()
        },
        rejected: RejectedCapture::disabled(),
        refused: RefusedAccounts::new(settings.accounts.clone()),
        seen: SeenEventsRecorder::default(),
    }
}
