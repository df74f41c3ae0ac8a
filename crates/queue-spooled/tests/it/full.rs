//! A spool that has no room, and an event that does not fit.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Event, SystemClock};
use fluent_queue_spooled::{Options, Spooled};
use queue::{Intake, Lifecycle, QueueError};

use crate::world::{World, events};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_passes_on_and_refuses_only_when_the_queue_is_away() {
    let mut world = World::new().await;
    let options = Options {
        bytes: 256 << 10,
        ..Options::new(world.spool())
    };
    let spooled = Spooled::open(world.queue().await, options, Arc::new(SystemClock)).unwrap();
    world.servers.kill_all();
    let events = events("F", 2000);
    let mut accepted = Vec::new();
    let began = std::time::Instant::now();
    while spooled.has_room() {
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "nothing can be made durable now"
        );
        let event = &events[accepted.len()];
        match tokio::time::timeout(Duration::from_secs(30), spooled.publish(event.clone())).await {
            Ok(Ok(_)) => accepted.push(event.clone()),
            // A measurement may find fewer bytes than were counted: then the spool has room
            // again.
            Ok(Err(QueueError::Full | QueueError::Unavailable { .. })) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(_) => panic!("neither taken nor refused"),
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    assert!(
        (100..2000).contains(&accepted.len()),
        "{} fit",
        accepted.len()
    );
    world.servers.start_all().unwrap();
    let rest = events[accepted.len()..].to_vec();
    for event in &rest {
        while spooled.publish(event.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    world.wait_for(&events).await;
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_fit_holds_up_no_other() {
    let world = World::new().await;
    let spooled = world.spooled(Duration::from_millis(300)).await;
    let large = large();
    spooled.publish(large.clone()).await.unwrap();
    let same_entity = queue::conformance::event("E", "large");
    assert_eq!(same_entity.bucket(), large.bucket());
    spooled.publish(same_entity.clone()).await.unwrap();
    world.wait_for(&[same_entity]).await;
    world.wait_until_empty().await;
    assert_eq!(
        fluent_queue_spooled::spool_state(&world.spool())
            .unwrap()
            .set_aside,
        1
    );
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_many_it_alone_is_set_aside() {
    let mut world = World::new().await;
    world.servers.kill_all();
    let spooled = world.spooled(Duration::from_millis(300)).await;
    // Stored while the queue is away, so that they leave in groups of many entities.
    let events = events("G", 300);
    for event in &events[..150] {
        spooled.publish(event.clone()).await.unwrap();
    }
    spooled.publish(large()).await.unwrap();
    for event in &events[150..] {
        spooled.publish(event.clone()).await.unwrap();
    }
    world.servers.start_all().unwrap();
    world.wait_for(&events).await;
    world.wait_until_empty().await;
    let set_aside = fluent_queue_spooled::spool_state(&world.spool())
        .unwrap()
        .set_aside;
    assert_eq!(set_aside, 1, "the large one, and no other");
    spooled.close().await;
}

/// An event that is larger than the stream accepts.
fn large() -> Event {
    let name = "x".repeat(200);
    let filler = "y".repeat(3 << 20);
    let small = queue::conformance::event(&name, "large");
    let body = String::from_utf8(small.body().to_vec()).unwrap();
    let body = body.replacen('{', &format!("{{\"filler\":\"{filler}\","), 1);
    let stored = event_model::StoredEvent {
        body: body.into_bytes().into(),
        ..small.stored().clone()
    };
    let id = event_model::EventId::of(small.environment(), &stored.body);
    Event::restore(id, stored).unwrap()
}
