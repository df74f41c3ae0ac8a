//! A file of an older format is taken over with all it holds.

use std::sync::Arc;

use event_model::SystemClock;
use queue::EventQueue;
use queue::conformance::event;
use queue_embedded::{Embedded, Options};

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_file_without_refs_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let queue = open();
    for number in 0..50 {
        queue.publish(event("E", &format!("HD_{number}"))).await.unwrap();
    }
    queue.close().await;
    drop(queue);
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch("DROP TABLE refs; UPDATE meta SET value = 1 WHERE key = 'format';").unwrap();
    drop(sql);

    let queue = open();
    queue.publish(event("LATER", "HD_7")).await.unwrap();
    let stories = queue.stores().history().find("HD_7", 9).await.unwrap();
    assert_eq!(stories.iter().map(|story| story.name.as_str()).collect::<Vec<_>>(), ["LATER", "E"]);
    queue.close().await;
}
