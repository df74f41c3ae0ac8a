//! The measured processes, which run by themselves so that their processor time can be told
//! apart. Each prints its address and serves until it is killed.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use event_model::{Account, Accounts, SystemClock};
use gateway::{Bounds, Ports};
use process::Shutdown;
use queue::Intake;
use queue_embedded::{Embedded, Options};
use settings::OnMalformed;
use tokio::net::TcpListener;
use verifier::{KeyRing, PublicKey, Signatures, WebhookVerifier};

use crate::inputs::PATH;
use crate::watched::{self, WatchedGateway};

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

/// Runs a bare axum route that reads the body, and answers as many bytes as the gateway.
pub(crate) fn axum() -> anyhow::Result<()> {
    let answer = |_: Bytes| async {
        axum::Json(
            serde_json::json!({"eventId": "0".repeat(64), "duplicate": false, "traceId": "0".repeat(32)}),
        )
    };
    block_on(async {
        Ok(axum::serve(listen().await?, Router::new().route(PATH, post(answer))).await?)
    })
}

/// Runs the gateway as the product composes it, without a dispatcher.
pub(crate) fn gateway(folder: &Path, key: &Path) -> anyhow::Result<()> {
    block_on(async {
        let queue = Embedded::open(Options::new(folder.join("queue.db")), Arc::new(SystemClock))?;
        serve(key, Arc::new(queue)).await
    })
}

/// Runs the gateway with telemetry. It prints the number of dropped spans whenever it gets a
/// line.
pub(crate) fn watched_gateway(gateway: WatchedGateway) -> anyhow::Result<()> {
    let queue = gateway.queue();
    block_on(async {
        let started = gateway.watched.start("fluent-gateway")?;
        std::thread::spawn(move || {
            for _ in std::io::stdin().lines() {
                println!("{}", watched::dropped(&started));
            }
        });
        let queue = Embedded::open(Options::new(queue), Arc::new(SystemClock))?;
        serve(&gateway.key, Arc::new(queue)).await
    })
}

/// Runs the gateway on JetStream.
pub(crate) fn gateway_on_nats(
    servers: &str,
    replicas: usize,
    key: &Path,
    spool: Option<PathBuf>,
) -> anyhow::Result<()> {
    let mut options = queue_nats::Options::new(servers.split(','));
    options.layout.replicas = replicas;
    block_on(async {
        let queue = Arc::new(queue_nats::JetStream::open(options, Arc::new(SystemClock)).await?);
        let intake: Arc<dyn Intake> = match spool {
            Some(spool) => {
                let options = queue_spooled::Options::new(spool.join("spool.db"));
                Arc::new(queue_spooled::Spooled::open(
                    queue,
                    options,
                    Arc::new(SystemClock),
                )?)
            }
            None => queue,
        };
        // The connection to the servers is not measured.
        while !intake.has_room() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        serve(key, intake).await
    })
}

async fn serve(key: &Path, intake: Arc<dyn Intake>) -> anyhow::Result<()> {
    let name: event_model::KeyName = "sydney_sandbox".parse()?;
    let ring = KeyRing::new([(
        name.clone(),
        PublicKey::parse(&std::fs::read_to_string(key)?)?,
    )])?;
    let account = Account {
        name: "ACME".to_owned(),
        key: name,
        retailers: None,
    };
    let signatures = Signatures::default();
    let bounds = Bounds::new(2 << 20);
    let senders = gateway::Senders::default();
    {
        let ports = Ports {
            signature_headers: signatures
                .sha512
                .iter()
                .chain(&signatures.md5)
                .cloned()
                .collect(),
            verifier: Arc::new(WebhookVerifier::new(Arc::new(ring), signatures)),
            accounts: Arc::new(Accounts::new([account])),
            intake,
            clock: Arc::new(SystemClock),
            path: PATH.into(),
            malformed: OnMalformed::Quarantine,
            senders: senders.clone(),
            rejected: gateway::RejectedCapture::disabled(),
            refused: gateway::RefusedAccounts::new(Accounts::default()),
            seen: gateway::SeenEventsRecorder::default(),
        };
        let router = gateway::router(ports, &bounds);
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let serving = gateway::serve(
            listen().await?,
            None,
            router,
            bounds,
            senders,
            shutdown.clone(),
        );
        shutdown.spawn(serving);
        pending().await
    }
}
