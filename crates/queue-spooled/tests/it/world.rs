//! A NATS server with streams and a folder for spools, for the tests of this crate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{Event, SystemClock};
use fluent_queue_spooled::{Options, Spooled};
use nats_server::Cluster;
use queue::Intake;
use queue_nats::{JetStream, cluster};
use tempfile::TempDir;

/// Longest wait for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One server with its streams, and a folder for a spool.
pub(crate) struct World {
    pub(crate) servers: Cluster,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = nats_server::Options {
            folder: Some(folder.path().join("nats")),
            ..nats_server::Options::default()
        };
        let world = Self {
            servers: Cluster::start(1, &options).unwrap(),
            folder,
        };
        world.make_streams().await;
        world
    }

    pub(crate) fn nats(&self) -> queue_nats::Options {
        let mut options = queue_nats::Options::new(self.servers.urls());
        options.layout.bytes = 64 << 20;
        options
    }

    pub(crate) async fn make_streams(&self) {
        let report = cluster::Cluster::connect(&self.nats())
            .await
            .unwrap()
            .init()
            .await
            .unwrap();
        assert!(report.is_good(), "{report}");
    }

    pub(crate) async fn queue(&self) -> Arc<JetStream> {
        Arc::new(
            JetStream::open(self.nats(), Arc::new(SystemClock))
                .await
                .unwrap(),
        )
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.folder.path().join("spool.db")
    }

    /// A gateway's intake, whose spool confirms events after `keep`.
    pub(crate) async fn spooled(&self, keep: Duration) -> Spooled {
        let options = Options {
            keep,
            ..Options::new(self.spool())
        };
        Spooled::open(self.queue().await, options, Arc::new(SystemClock)).unwrap()
    }

    /// Copies the server's files as they are after kill -9, and returns their folder.
    pub(crate) fn save(&mut self) -> PathBuf {
        self.servers.kill_all();
        let saved = self.folder.path().join("saved");
        copy(&self.store(), &saved);
        self.servers.start_all().unwrap();
        saved
    }

    /// Brings back the server with saved files: what came since is lost.
    pub(crate) fn restore(&mut self, saved: &Path) {
        self.servers.kill_all();
        std::fs::remove_dir_all(self.store()).unwrap();
        copy(saved, &self.store());
        self.servers.start_all().unwrap();
    }

    fn store(&self) -> PathBuf {
        self.servers.servers[0].folder().join("store")
    }

    /// Position, id and republished mark of every event in the stream, read from the server
    /// itself.
    pub(crate) async fn stored(&self) -> Vec<(u64, String, bool)> {
        let client = async_nats::connect(self.servers.urls()).await.unwrap();
        let stream = async_nats::jetstream::new(client)
            .get_stream("FLUENT_EVENTS")
            .await
            .unwrap();
        let mut found = Vec::new();
        for position in 1..=stream.cached_info().state.last_sequence {
            let Ok(message) = stream.get_raw_message(position).await else {
                continue;
            };
            let id = message.headers.get("ce-id").unwrap().to_string();
            found.push((position, id, message.headers.get("fluent-refed").is_some()));
        }
        found
    }

    /// Waits until every one of `events` is in the stream; returns how often each is there.
    pub(crate) async fn wait_for(&self, events: &[Event]) -> Vec<usize> {
        let began = Instant::now();
        loop {
            let stored = self.stored().await;
            let count = |event: &Event| {
                stored
                    .iter()
                    .filter(|(_, id, _)| *id == event.id().to_string())
                    .count()
            };
            let counts: Vec<usize> = events.iter().map(count).collect();
            if counts.iter().all(|count| *count > 0) {
                return counts;
            }
            let missing = counts.iter().filter(|count| **count == 0).count();
            assert!(
                began.elapsed() < PATIENCE,
                "{missing} of {} are missing",
                events.len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the queue has acknowledged everything.
    pub(crate) async fn wait_until_acknowledged(&self) {
        let began = Instant::now();
        while fluent_queue_spooled::spool_state(&self.spool())
            .unwrap()
            .unsent
            > 0
        {
            assert!(began.elapsed() < PATIENCE, "not everything is acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the spool is empty.
    pub(crate) async fn wait_until_empty(&self) {
        let began = Instant::now();
        loop {
            let state = fluent_queue_spooled::spool_state(&self.spool()).unwrap();
            if state.unsent + state.unconfirmed + state.quarantined == 0 {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the spool still holds {state:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Events about twenty entities, in turn.
pub(crate) fn events(name: &str, count: usize) -> Vec<Event> {
    (0..count)
        .map(|number| {
            queue::conformance::event(&format!("{name}{number}"), &format!("e{}", number % 20))
        })
        .collect()
}

pub(crate) async fn publish(intake: &dyn Intake, events: &[Event]) {
    for event in events {
        intake.publish(event.clone()).await.unwrap();
    }
}
