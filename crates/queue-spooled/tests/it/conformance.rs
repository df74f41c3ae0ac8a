//! A spool keeps every promise of an intake, with a real queue behind it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_model::SystemClock;
use fluent_queue_spooled::{Options, Spooled};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::conformance::{IntakeHarness, OpenIntake, intake, lifecycle};

use crate::world::World;

/// A spool before a server of its own; each process has a file of its own.
struct Spools {
    world: World,
    life: AtomicU32,
}

impl std::fmt::Debug for Spools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spools")
    }
}

impl Spools {
    async fn fresh() -> Box<dyn IntakeHarness> {
        Box::new(Self {
            world: World::new().await,
            life: AtomicU32::new(0),
        })
    }

    fn path(&self) -> PathBuf {
        self.world
            .folder
            .path()
            .join(format!("spool-{}.db", self.life.load(Ordering::Relaxed)))
    }

    async fn serve(&self) -> OpenIntake {
        let options = Options {
            keep: Duration::from_millis(500),
            ..Options::new(self.path())
        };
        let queue = self.world.queue().await;
        let stores = Arc::clone(queue.stores());
        let spooled = Spooled::open(queue, options, Arc::new(SystemClock)).unwrap();
        OpenIntake::new(Arc::new(spooled), stores)
    }
}

impl IntakeHarness for Spools {
    fn open(&self) -> BoxFuture<'_, OpenIntake> {
        self.serve().boxed()
    }

    /// The file and its log as kill -9 leaves them at this moment.
    fn crash<'a>(&'a self, open: OpenIntake) -> BoxFuture<'a, OpenIntake> {
        async move {
            let before = self.path();
            self.life.fetch_add(1, Ordering::Relaxed);
            for suffix in ["", "-wal"] {
                let from = PathBuf::from(format!("{}{suffix}", before.display()));
                if from.exists() {
                    std::fs::copy(from, format!("{}{suffix}", self.path().display())).unwrap();
                }
            }
            drop(open);
            self.serve().await
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_an_intake() {
    intake::all(Spools::fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_lives_and_ends_as_an_intake_does() {
    lifecycle::all(Spools::fresh).await;
}
