//! Modes of files: everything made here is its owner's alone, whatever the umask.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use event_model::SystemClock;
use fluent_queue_embedded::{Embedded, Options};
use queue::Intake;
use queue::conformance::event;

/// The mode of every file and folder in `folder`.
fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        found.push((
            entry.path().display().to_string(),
            metadata.permissions().mode() & 0o777,
        ));
        if metadata.is_dir() {
            found.extend(modes(&entry.path()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_and_folder_is_the_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old/queue.db");
    std::fs::create_dir(old.parent().unwrap()).unwrap();
    std::fs::set_permissions(old.parent().unwrap(), PermissionsExt::from_mode(0o700)).unwrap();
    for suffix in ["", ".lock"] {
        let name = format!("{}{suffix}", old.display());
        std::fs::write(&name, "").unwrap();
        std::fs::set_permissions(&name, PermissionsExt::from_mode(0o644)).unwrap();
    }
    let at = |name: &str| folder.path().join("data").join(name);
    let queue = Embedded::open(Options::new(at("queue.db")), Arc::new(SystemClock)).unwrap();
    let upgraded = Embedded::open(Options::new(old), Arc::new(SystemClock)).unwrap();
    queue.publish(event("E", "HD_1")).await.unwrap();
    let found = modes(folder.path());
    for expected in ["queue.db-wal", "queue.db-shm", "queue.db.lock"] {
        assert!(
            found.iter().any(|(name, _)| name.ends_with(expected)),
            "{expected} in {found:?}"
        );
    }
    let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(open.is_empty(), "{open:?}");
    drop((queue, upgraded));
}
