//! JetStream keeps every promise of the port, on one server and on three.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_model::SystemClock;
use fluent_queue_nats::{JetStream, Options, cluster};
use futures::FutureExt;
use futures::future::BoxFuture;
use history_index::Index;
use nats_server::Cluster;
use queue::conformance::{Harness, Queue};

use crate::proxy::Proxy;

/// Streams of their own on servers that all checks share; each queue connects
/// through a proxy that can be cut.
#[derive(Debug)]
struct Streams {
    ports: Vec<u16>,
    replicas: usize,
    proxies: Mutex<VecDeque<Proxy>>,
    folder: tempfile::TempDir,
    jetstream: async_nats::jetstream::Context,
}

impl Streams {
    async fn connect(&self, change: impl FnOnce(&mut Options)) -> Queue {
        let mut proxies = Vec::new();
        for port in &self.ports {
            proxies.push(Proxy::start(*port).await);
        }
        let mut options = Options::new(proxies.iter().map(Proxy::url));
        options.discover_servers = false;
        options.index = Some(Arc::new(
            Index::open(&self.folder.path().join("index.db")).unwrap(),
        ));
        options.layout.replicas = self.replicas;
        options.layout.bytes = 64 << 20;
        change(&mut options);
        self.proxies.lock().unwrap().extend(proxies);
        let queue = JetStream::open(options, Arc::new(SystemClock))
            .await
            .unwrap();
        let stores = Arc::clone(queue.stores());
        Queue::new(Arc::new(queue), stores)
    }
}

impl Harness for Streams {
    fn open(&self) -> BoxFuture<'_, Queue> {
        self.connect(|_| {}).boxed()
    }

    fn open_forgetful(&self) -> BoxFuture<'_, Queue> {
        self.connect(|options| {
            options.retention_age = Duration::ZERO;
            options.janitor_every = Duration::from_millis(100);
        })
        .boxed()
    }

    /// Leaves what kill -9 leaves: connections that are cut for good, without a farewell.
    fn crash<'a>(&'a self, queue: Queue) -> BoxFuture<'a, Queue> {
        async move {
            let proxies = std::mem::take(&mut *self.proxies.lock().unwrap());
            for proxy in proxies {
                proxy.cut().await;
            }
            drop(queue);
            self.connect(|_| {}).await
        }
        .boxed()
    }

    fn forget_attempts(&self) -> BoxFuture<'_, ()> {
        async move {
            self.jetstream
                .get_stream("FLUENT_ATTEMPTS")
                .await
                .unwrap()
                .purge()
                .await
                .unwrap();
        }
        .boxed()
    }

    /// A stream changes no message: the damaged one is stored anew.
    fn damage_newest(&self) -> BoxFuture<'_, ()> {
        async move {
            let mut stream = self.jetstream.get_stream("FLUENT_EVENTS").await.unwrap();
            let last = stream.info().await.unwrap().state.last_sequence;
            let message = stream.get_raw_message(last).await.unwrap();
            assert!(stream.delete_message(last).await.unwrap());
            // Under the id that the server knows, it would be no new message.
            let headers = message.headers.iter();
            let headers = headers.filter(|(name, _)| !name.to_string().starts_with("Nats-"));
            let mut kept = async_nats::HeaderMap::new();
            for (name, values) in headers {
                for value in values {
                    kept.append(name.clone(), value.clone());
                }
            }
            let stored = self
                .jetstream
                .publish_with_headers(message.subject, kept, "{".into())
                .await
                .unwrap();
            stored.await.unwrap();
        }
        .boxed()
    }
}

/// New streams for every check: those of the last one are removed.
async fn fresh(servers: &Cluster, replicas: usize) -> Box<dyn Harness> {
    let urls = servers.urls();
    let client = async_nats::connect(urls.clone()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for stream in [
        "EVENTS",
        "RETRIES",
        "DEAD",
        "QUARANTINE",
        "ATTEMPTS",
        "REFUSED",
        "MARKS",
        "INFLIGHT",
        "SAME_IDS",
    ] {
        let _ = jetstream.delete_stream(format!("FLUENT_{stream}")).await;
    }
    let mut options = Options::new(urls);
    options.layout.replicas = replicas;
    options.layout.bytes = 64 << 20;
    let report = cluster::Cluster::connect(&options)
        .await
        .unwrap()
        .init()
        .await
        .unwrap();
    assert!(report.is_good(), "{report}");
    let ports = servers
        .servers
        .iter()
        .map(nats_server::Server::port)
        .collect();
    let folder = tempfile::tempdir().unwrap();
    Box::new(Streams {
        ports,
        replicas,
        proxies: Mutex::default(),
        folder,
        jetstream,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_conforms() {
    let servers = Cluster::start(1, &nats_server::Options::default()).unwrap();
    queue::conformance::all(async || fresh(&servers, 1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_conform() {
    let servers = Cluster::start(3, &nats_server::Options::default()).unwrap();
    queue::conformance::all(async || fresh(&servers, 3).await).await;
}
