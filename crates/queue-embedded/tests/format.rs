//! A file of another format is refused, and left as it is.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;

use event_model::SystemClock;
use fluent_queue_embedded::{Embedded, OpenError, Options, SqliteStores};
use queue::conformance::event;
use queue::{Intake, Lifecycle, Upstream};

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(Options::new(path), Arc::new(SystemClock))
}

fn set(path: &Path, change: &str) {
    rusqlite::Connection::open(path)
        .unwrap()
        .execute_batch(change)
        .unwrap();
}

#[tokio::test]
async fn a_file_of_another_format_is_refused_with_what_to_do_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path).unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    queue.close().await;
    drop(queue);
    // The file as it was before routes had columns for their settings.
    set(
        &path,
        "ALTER TABLE routes DROP COLUMN filter; ALTER TABLE routes DROP COLUMN pause;
         ALTER TABLE routes DROP COLUMN asked_again; UPDATE meta SET value = 7 WHERE key = 'format'",
    );
    let older = "has format 7, and this program works with 12 alone: let the version that wrote it deliver what it holds, and work off its dead letters and quarantine; then move the file away, or give this one a path of its own";
    let said = open(&path).unwrap_err().to_string();
    assert!(said.ends_with(older), "{said}");
    assert!(
        SqliteStores::open(&path, None)
            .unwrap_err()
            .to_string()
            .ends_with(older)
    );
    set(&path, "UPDATE meta SET value = 13 WHERE key = 'format'");
    assert!(matches!(
        open(&path),
        Err(OpenError::Newer {
            found: 13,
            known: 12,
            ..
        })
    ));
    assert!(matches!(
        SqliteStores::open(&path, None),
        Err(OpenError::Newer {
            found: 13,
            known: 12,
            ..
        })
    ));
    set(
        &path,
        "ALTER TABLE routes ADD COLUMN filter TEXT; ALTER TABLE routes ADD COLUMN pause TEXT;
         ALTER TABLE routes ADD COLUMN asked_again INTEGER NOT NULL DEFAULT 0;
         UPDATE meta SET value = 12 WHERE key = 'format'",
    );
    let queue = open(&path).unwrap();
    assert_eq!(
        (
            queue.damaged_file(),
            queue.horizon().await.unwrap().last.sequence()
        ),
        (None, 1)
    );
}

#[test]
fn there_is_nothing_beside_a_path_where_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let said = SqliteStores::open(&path, None).unwrap_err().to_string();
    assert!(said.starts_with("there is no queue at"), "{said}");
    assert!(!path.exists());
}
