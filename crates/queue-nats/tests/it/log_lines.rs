//! Lines in the log that whoever writes to the streams could cause at will.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queue::{Intake, Lifecycle, Source};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::joining::{names, route, set, world};
use crate::verifying::{Key, dispatcher, quarantined, write};

/// Counts the errors that taking deliveries logs on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.target().contains("route_consumer")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn many_messages_that_are_not_genuine_or_damaged_have_a_line_of_each_kind() {
    const EACH: usize = 30;
    let lines = Lines::default();
    let (servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    let queue = dispatcher(&options, &[&key], &[]).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let _counting = tracing::subscriber::set_default(lines.clone());
    for number in 0..EACH {
        write(&servers, &key.event(&format!("F{number}")), |headers, _| {
            headers.insert("fluent-signature", "AAAA")
        })
        .await;
        write(&servers, &key.event(&format!("D{number}")), |headers, _| {
            headers.insert("fluent-algorithm", "none")
        })
        .await;
    }
    queue.publish(key.event("good")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["good"]));
    while quarantined(&queue).await.len() < 2 * EACH {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(lines.0.load(Ordering::Relaxed), 2);
    queue.close().await;
}
