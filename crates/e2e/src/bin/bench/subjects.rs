//! What runs as a process of its own, so that its processor time is its own.
//! Each prints its address and serves until it is killed.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use event_model::{Account, Accounts, SystemClock};
use gateway::{Bounds, Ports};
use queue_embedded::{Embedded, Options};
use service::Shutdown;
use settings::OnMalformed;
use tokio::net::TcpListener;
use verifier::{KeyRing, PublicKey, Signatures, WebhookVerifier};

use crate::inputs::PATH;

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

/// Reads the body and answers as much as the gateway does.
pub(crate) fn axum() -> anyhow::Result<()> {
    let answer = |_: Bytes| async {
        axum::Json(
            serde_json::json!({"eventId": "0".repeat(64), "duplicate": false, "traceId": "0".repeat(32)}),
        )
    };
    block_on(async { Ok(axum::serve(listen().await?, Router::new().route(PATH, post(answer))).await?) })
}

/// The gateway as the product composes it, without a dispatcher beside it.
pub(crate) fn gateway(folder: &Path, key: &Path) -> anyhow::Result<()> {
    let name: event_model::KeyName = "sydney_sandbox".parse()?;
    let ring = KeyRing::new([(name.clone(), PublicKey::parse(&std::fs::read_to_string(key)?)?)])?;
    let account = Account { name: "ACME".to_owned(), key: name, retailers: None };
    let (signatures, bounds) = (Signatures::default(), Bounds::new(2 << 20));
    block_on(async {
        let queue = Embedded::open(Options::new(folder.join("queue.db")), Arc::new(SystemClock))?;
        let ports = Ports {
            signature_headers: signatures.sha512.iter().chain(&signatures.md5).cloned().collect(),
            verifier: Arc::new(WebhookVerifier::new(Arc::new(ring), signatures)),
            accounts: Arc::new(Accounts::new([account])),
            queue: Arc::new(queue),
            clock: Arc::new(SystemClock),
            path: PATH.into(),
            malformed: OnMalformed::Quarantine,
        };
        let router = gateway::router(ports, &bounds);
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        shutdown.spawn(gateway::serve(listen().await?, None, router, bounds, shutdown.clone()));
        pending().await
    })
}
