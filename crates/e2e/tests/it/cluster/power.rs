//! A power cut: what the disk had at that moment is all there is.
//!
//! As in `faults/power.rs`: needs root and loop devices; without them it says so
//! and passes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use e2e::deployment::{Deployment, Plan, settle, until};
use event_model::{Event, SystemClock};
use nats_server::Cluster;
use queue::{Intake, Lifecycle};
use queue_nats::{JetStream, cluster};
use queue_spooled::{Options, Spooled};

use crate::faults::power::{Mounted, make_disk};
use crate::ledger::Load;
use crate::sink::Sink;

/// Where a server keeps its streams; its configuration is elsewhere.
const STORE: &str = "nats/nats-1/store";

/// A server whose data lies on a disk of its own.
struct World {
    folder: tempfile::TempDir,
    servers: Cluster,
    disk: Option<Mounted>,
}

impl World {
    async fn new(sync_always: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        make_disk(&folder.path().join("disk.img"))?;
        let disk = Mounted::mount(&folder.path().join("disk.img"), &folder.path().join(STORE))?;
        let options = nats_server::Options {
            sync_always,
            folder: Some(folder.path().join("nats")),
            max_file: "200MB".to_owned(),
            ..nats_server::Options::default()
        };
        let servers = Cluster::start(1, &options).unwrap();
        let world = Self {
            folder,
            servers,
            disk: Some(disk),
        };
        world.make_streams().await;
        Some(world)
    }

    fn options(&self) -> queue_nats::Options {
        let mut options = queue_nats::Options::new(self.servers.urls());
        options.layout.bytes = 32 << 20;
        options
    }

    async fn make_streams(&self) {
        let report = cluster::Cluster::connect(&self.options())
            .await
            .unwrap()
            .init()
            .await
            .unwrap();
        assert!(report.is_good(), "{report}");
    }

    async fn queue(&self) -> Arc<JetStream> {
        Arc::new(
            JetStream::open(self.options(), Arc::new(SystemClock))
                .await
                .unwrap(),
        )
    }

    /// kill -9, and the disk as it was without a sync.
    fn cut_power(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        self.servers.kill_all();
        std::fs::copy(path("disk.img"), path("copy.img")).unwrap();
        drop(self.disk.take());
        self.disk = Mounted::mount(&path("copy.img"), &path(STORE));
        // Not healthy, perhaps: streams that can't be recovered keep it from that.
        self.servers.servers[0].start().unwrap();
    }

    async fn stored(&self) -> Vec<String> {
        self.messages()
            .await
            .into_iter()
            .map(|(id, _)| id)
            .collect()
    }

    /// How many of the stored events are marked as given again.
    async fn refed(&self) -> usize {
        self.messages()
            .await
            .into_iter()
            .filter(|(_, is_refed)| *is_refed)
            .count()
    }

    /// The id of every stored event, and whether it was given again.
    async fn messages(&self) -> Vec<(String, bool)> {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect(self.servers.urls()).await.unwrap();
        let Ok(stream) = async_nats::jetstream::new(client)
            .get_stream("FLUENT_EVENTS")
            .await
        else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for position in 1..=stream.cached_info().state.last_sequence {
            if let Ok(message) = stream.get_raw_message(position).await {
                let is_refed = message.headers.get("fluent-refed").is_some();
                found.push((message.headers.get("ce-id").unwrap().to_string(), is_refed));
            }
        }
        found
    }
}

fn events(count: usize) -> Vec<Event> {
    (0..count)
        .map(|number| queue::conformance::event(&format!("P{number}"), &format!("e{number}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sync_always_the_servers_forget_nothing() {
    let Some(mut world) = World::new(true).await else {
        return e2e::say_not_run("mounting needs root and loop devices");
    };
    let queue = world.queue().await;
    let events = events(400);
    for event in &events {
        queue.publish(event.clone()).await.unwrap();
    }
    world.cut_power();
    let stored = world.stored().await;
    let missing = events
        .iter()
        .filter(|event| !stored.contains(&event.id().to_string()))
        .count();
    assert_eq!(missing, 0, "of {}", events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_servers_default_the_spool_makes_the_stream_whole() {
    let Some(mut world) = World::new(false).await else {
        return e2e::say_not_run("mounting needs root and loop devices");
    };
    let spool = Options::new(world.folder.path().join("spool.db"));
    let spooled = Spooled::open(world.queue().await, spool, Arc::new(SystemClock)).unwrap();
    let events = events(400);
    for event in &events {
        spooled.publish(event.clone()).await.unwrap();
    }
    let path = world.folder.path().join("spool.db");
    until("all are acknowledged", Duration::from_secs(60), || {
        queue_spooled::spool_state(&path).unwrap().unconfirmed == events.len() as u64
    })
    .await;
    world.cut_power();
    let left = world.stored().await.len();
    println!(
        "{left} of {} acknowledged events were on the disk",
        events.len()
    );
    assert!(
        left < events.len(),
        "a server that forgets nothing proves nothing here"
    );
    // Missing, or there and short: what an operator does is the same.
    world.make_streams().await;
    let began = std::time::Instant::now();
    loop {
        let stored = world.stored().await;
        let missing = events
            .iter()
            .filter(|event| !stored.contains(&event.id().to_string()))
            .count();
        if missing == 0 {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{missing} of {} are missing",
            events.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        world.refed().await,
        events.len() - left,
        "what was lost is marked, and nothing else"
    );
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_spool_had_survives_it() {
    let sink = Sink::open().await;
    let routes = sink.route("all", "match: {}, start: beginning");
    let mut deployment = Deployment::prepare(Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    });
    deployment.make_streams();
    let folder = deployment.folder.path().to_owned();
    let path = |name: &str| folder.join(name);
    let mount = |image: &Path| Mounted::mount(image, &path("gateway-0"));
    if make_disk(&path("disk.img")).is_none() {
        return e2e::say_not_run("mkfs.ext4 is not here");
    }
    let Some(disk) = mount(&path("disk.img")) else {
        return e2e::say_not_run("mounting needs root and loop devices");
    };
    deployment.servers.kill_all();
    deployment.gateways[0].restart();
    let load = Load::start(&deployment.urls(), 4);
    until("the spool has many", Duration::from_secs(60), || {
        load.accepted() >= 300
    })
    .await;
    deployment.gateways[0].kill();
    let ledger = load.stop().await;
    std::fs::copy(path("disk.img"), path("copy.img")).unwrap();
    drop(disk);
    let _disk = mount(&path("copy.img")).unwrap();
    deployment.servers.start_all().unwrap();
    deployment.gateways[0].restart();
    deployment.dispatchers[0].restart();
    settle(&deployment, &sink, ledger, Duration::from_secs(60))
        .await
        .assert(0);
    deployment.gateways[0].kill();
}
