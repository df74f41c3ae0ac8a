//! The embedded queue keeps every promise of the port.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use event_model::SystemClock;
use fluent_queue_embedded::{Embedded, Options};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::conformance::{Harness, Queue};

#[derive(Debug)]
struct Files {
    folder: tempfile::TempDir,
    life: AtomicU32,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            life: AtomicU32::new(0),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder
            .path()
            .join(format!("{}/queue.db", self.life.load(Ordering::Relaxed)))
    }

    fn serve(&self) -> Queue {
        open(Options::new(self.path()))
    }
}

impl Harness for Files {
    fn open(&self) -> BoxFuture<'_, Queue> {
        async { self.serve() }.boxed()
    }

    fn open_forgetful(&self) -> BoxFuture<'_, Queue> {
        async {
            let mut options = Options::new(self.path());
            options.retention.age = std::time::Duration::ZERO;
            // Longer than the age of the checks' old events.
            options.dedup_window = std::time::Duration::from_hours(24 * 365 * 100);
            open(options)
        }
        .boxed()
    }

    /// The file and its log as kill -9 leaves them at this moment.
    fn crash<'a>(&'a self, queue: Queue) -> BoxFuture<'a, Queue> {
        async move {
            let before = self.path();
            self.life.fetch_add(1, Ordering::Relaxed);
            fs::create_dir_all(self.path().parent().unwrap()).unwrap();
            copy(&before, &self.path(), "");
            copy(&before, &self.path(), "-wal");
            drop(queue);
            self.serve()
        }
        .boxed()
    }

    fn forget_attempts(&self) -> BoxFuture<'_, ()> {
        async {
            let file = rusqlite::Connection::open(self.path()).unwrap();
            file.busy_timeout(std::time::Duration::from_secs(5))
                .unwrap();
            file.execute("DELETE FROM attempts", []).unwrap();
        }
        .boxed()
    }

    fn damage_newest(&self) -> BoxFuture<'_, ()> {
        async {
            let file = rusqlite::Connection::open(self.path()).unwrap();
            file.busy_timeout(std::time::Duration::from_secs(5))
                .unwrap();
            let newest = "UPDATE bodies SET body = x'7b' WHERE position = (SELECT max(position) FROM bodies)";
            assert_eq!(file.execute(newest, []).unwrap(), 1);
        }
        .boxed()
    }
}

fn open(options: Options) -> Queue {
    let queue = Arc::new(Embedded::open(options, Arc::new(SystemClock)).unwrap());
    Queue::new(Arc::clone(&queue), queue)
}

fn copy(from: &Path, to: &Path, suffix: &str) {
    let with = |path: &Path| format!("{}{suffix}", path.display());
    if Path::new(&with(from)).exists() {
        fs::copy(with(from), with(to)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    queue::conformance::all(async || Box::new(Files::new()) as Box<dyn Harness>).await;
}
