//! Lines in the log that whoever writes to the streams could cause at will.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue::conformance::event;
use queue::{Intake, Lifecycle, Source};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::joining::{names, open, route, set, world};
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

/// Notes how many events are said to wait for a route whose match has changed.
#[derive(Clone, Default)]
struct PassedOver(Arc<Mutex<Vec<u64>>>);

impl Subscriber for PassedOver {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().contains("ensure_consumers")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Behind(&self.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Behind<'l>(&'l Mutex<Vec<u64>>);

impl Visit for Behind<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "behind" {
            self.0.lock().unwrap().push(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Who narrows the match of a route that is behind is told once how many events that concerns.
#[tokio::test]
async fn a_match_that_changes_while_events_wait_says_how_many() {
    let (_servers, options) = world().await;
    let before = open(&options).await;
    drop(before.subscribe(route(&["OLD", "NEW"])).await.unwrap());
    for (name, reference) in [("OLD", "1"), ("NEW", "2"), ("OLD", "3")] {
        before.publish(event(name, reference)).await.unwrap();
    }
    before.close().await;
    let said = PassedOver::default();
    let _noting = tracing::subscriber::set_default(said.clone());
    let mut queues = Vec::new();
    for _ in 0..2 {
        let after = open(&options).await;
        let mut consumer = after.subscribe(route(&["NEW"])).await.unwrap();
        if queues.is_empty() {
            assert_eq!(names(&mut *consumer, 1).await, set(&["NEW"]));
        }
        queues.push(after);
    }
    assert_eq!(*said.0.lock().unwrap(), [3]);
    for queue in queues {
        queue.close().await;
    }
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
