//! A handler that does as its event's name says, and a process around it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dispatch::{
    AnyDispatcher, BoxError, Context, DispatchError, Dispatcher, Done, Event, Excerpt, OpenContext,
};
use fluent_dispatch_grpc::{Remote, Server};
use grpc::{GrpcServer, Routes};
use process::{Readiness, Shutdown};
use serde_json::Value;
use settings::OperatorSettings;

/// Longest wait for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long an event called `Hangs` takes: longer than anybody waits.
pub(crate) const HANGS_FOR: Duration = Duration::from_hours(1);

pub(crate) fn event(name: &str) -> Event {
    dispatch::testing::event(name, "REF")
}

pub(crate) fn cx(timeout: Duration) -> Context {
    Context::new("route", "key", timeout)
}

/// Counts calls and cancelled ones, and keeps the last event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handler {
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) cut_off: Arc<AtomicUsize>,
    pub(crate) last: Arc<std::sync::Mutex<Option<(Event, Context)>>>,
}

struct CountsIfCut(Arc<AtomicUsize>);

impl Drop for CountsIfCut {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Dispatcher for Handler {
    const KIND: &'static str = "as-told";
    type Settings = Value;

    async fn open(_: Value, _: &OpenContext) -> Result<Self, BoxError> {
        Ok(Self::default())
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        *self.last.lock().unwrap() = Some((event.clone(), cx.clone()));
        cx.answered(br#"{"label":"L-1"}"#);
        match event.name() {
            "Done" => Ok(Done::with_status(204)),
            "Remarking" => Ok(Done::with_status(200).remarking("é".repeat(300))),
            "Permanent" => Err(DispatchError::Permanent {
                action: "posting",
                status: Some(422),
                source: Excerpt("it said no".to_owned()).into(),
            }),
            "Transient" => Err(DispatchError::Transient {
                action: "posting",
                retry_after: Some(Duration::from_secs(7)),
                status: Some(503),
                source: "it is busy".into(),
            }),
            "Interrupted" => Err(DispatchError::interrupted("posting", "it went away")),
            "Panics" => panic!("as told"),
            "Slow" => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(Done::default())
            }
            _ => {
                let cut = CountsIfCut(Arc::clone(&self.cut_off));
                tokio::time::sleep(HANGS_FOR).await;
                drop(cut);
                Ok(Done::default())
            }
        }
    }
}

/// A process that serves a handler; it ends with the test.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
}

pub(crate) fn anybody() -> OperatorSettings {
    OperatorSettings {
        grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: None,
        tokens: Vec::new(),
        certificates: Vec::new(),
        audit: PathBuf::new(),
    }
}

pub(crate) async fn serve(handler: &Handler, settings: &OperatorSettings) -> Process {
    let shutdown = Shutdown::manual(Duration::from_secs(1));
    let door = GrpcServer::bind(settings, &shutdown).await.unwrap();
    let address = door.address().unwrap();
    let server = Server::new(AnyDispatcher::of(handler.clone()), shutdown.clone());
    door.serve(
        Routes::new(server.service()),
        Readiness::new(&shutdown),
        &shutdown,
    )
    .unwrap();
    Process { address, shutdown }
}

pub(crate) async fn remote(table: Value) -> Result<Remote, BoxError> {
    let settings = serde_json::from_value(table)?;
    Remote::open(settings, &OpenContext::new("route", "/")).await
}

pub(crate) async fn remote_to(process: &Process) -> Remote {
    let endpoint = format!("http://{}", process.address);
    remote(serde_json::json!({ "endpoints": [endpoint] }))
        .await
        .unwrap()
}
