//! A queue that is away, from the start or later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::SystemClock;
use fluent_queue_spooled::{Options, Spooled};
use queue::conformance::event;
use queue::{Intake, Lifecycle};

use crate::world::{PATIENCE, World, events, publish};

const KEEP: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn away_at_the_start_is_no_reason_to_refuse() {
    let mut world = World::new().await;
    world.servers.kill_all();
    // Who waited for a queue that is away would wait for the first of them already.
    let options = Options {
        keep: KEEP,
        wait_for_queue: Duration::from_hours(1),
        ..Options::new(world.spool())
    };
    let spooled = Spooled::open(world.queue().await, options, Arc::new(SystemClock)).unwrap();
    let events = events("E", 1500);
    publish(&spooled, &events).await;
    assert!(spooled.has_room(), "it can make events durable");
    world.servers.start_all().unwrap();
    assert_eq!(world.wait_for(&events).await, vec![1; events.len()]);
    in_order(&world, &events).await;
    world.wait_until_empty().await;
    spooled.close().await;
}

/// Asserts that the stream has the events of each entity in the order in which they were
/// accepted.
async fn in_order(world: &World, events: &[event_model::Event]) {
    let accepted: BTreeMap<String, usize> = events
        .iter()
        .enumerate()
        .map(|(number, event)| (event.id().to_string(), number))
        .collect();
    let mut last = BTreeMap::new();
    for (_, id, _) in world.stored().await {
        let number = accepted[&id];
        let before = last.insert(number % 20, number);
        assert!(
            before.is_none_or(|before| before < number),
            "{before:?} came before {number}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_kept_is_forwarded_by_the_next_once() {
    let mut world = World::new().await;
    let spooled = world.spooled(KEEP).await;
    let before = events("B", 100);
    let after = events("A", 300);
    publish(&spooled, &before).await;
    world.servers.kill_all();
    publish(&spooled, &after).await;
    // The file as kill -9 leaves it: nothing is closed.
    let copy = world.folder.path().join("next.db");
    for suffix in ["", "-wal"] {
        let name = |path: &std::path::Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(&world.spool()), name(&copy)).unwrap();
    }
    drop(spooled);
    world.servers.start_all().unwrap();
    let options = Options {
        keep: KEEP,
        ..Options::new(&copy)
    };
    let next = Spooled::open(world.queue().await, options, Arc::new(SystemClock)).unwrap();
    let all = [before, after].concat();
    assert_eq!(
        world.wait_for(&all).await,
        vec![1; all.len()],
        "each is stored once"
    );
    next.close().await;
}

/// What another file holds must not be told of the one that is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_says_nothing_of_what_waits() {
    let mut world = World::new().await;
    let spooled = world.spooled(KEEP).await;
    publish(&spooled, &events("B", 3)).await;
    world.wait_until_acknowledged().await;
    let empty = world.folder.path().join("empty.db");
    fluent_queue_spooled::backup(&world.spool(), &empty).unwrap();
    world.servers.kill_all();
    publish(&spooled, &events("A", 10)).await;
    let waits = spooled.health().await.spool.unwrap();
    assert_eq!(waits.unsent, 10);
    let away = world.folder.path().join("away.db");
    std::fs::rename(world.spool(), &away).unwrap();
    std::fs::copy(&empty, world.spool()).unwrap();
    assert!(spooled.health().await.spool.is_none());
    world.servers.start_all().unwrap();
    spooled.close().await;
    let queue = world.queue().await;
    let marks = queue::facts::spools(queue.stores().facts()).await.unwrap();
    assert!(!marks.iter().any(|(_, mark)| mark.is_closed), "{marks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_whose_gateway_is_gone_is_drained() {
    let mut world = World::new().await;
    let spooled = world.spooled(Duration::from_hours(1)).await;
    let confirmed = events("C", 50);
    let unsent = events("U", 50);
    publish(&spooled, &confirmed).await;
    world.wait_until_acknowledged().await;
    world.servers.kill_all();
    publish(&spooled, &unsent).await;
    spooled.close().await;
    drop(spooled);
    world.servers.start_all().unwrap();

    let state = fluent_queue_spooled::spool_state(&world.spool()).unwrap();
    assert_eq!((state.unsent, state.unconfirmed), (50, 50));
    let drained =
        fluent_queue_spooled::drain(&world.spool(), world.queue().await, Arc::new(SystemClock))
            .await
            .unwrap();
    assert_eq!(
        (drained.sent, drained.confirmed, drained.refed, drained.left),
        (50, 100, 0, 0)
    );
    assert_eq!(
        world.wait_for(&[confirmed, unsent].concat()).await,
        vec![1; 100]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_events_are_forwarded_too() {
    let mut world = World::new().await;
    world.servers.kill_all();
    let spooled = world.spooled(KEEP).await;
    let event = events("Q", 1).remove(0);
    let body = queue::Quarantined {
        id: 0,
        body: event.body().clone(),
        proof: event_model::Proof::Signed(event_model::Algorithm::Sha512),
        key: "sydney_sandbox".parse().unwrap(),
        signature: "c2ln".to_owned(),
        received_at: event.received_at(),
        reason: "not-json".to_owned(),
    };
    spooled.quarantine(body.clone()).await.unwrap();
    world.servers.start_all().unwrap();
    world.wait_until_empty().await;
    let kept = world
        .queue()
        .await
        .stores()
        .quarantine()
        .list(0, 10)
        .await
        .unwrap();
    assert_eq!(
        kept,
        [queue::Quarantined {
            id: kept[0].id,
            ..body
        }]
    );
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_that_is_gone_had_set_aside_is_drained_too() {
    let mut world = World::new().await;
    world.servers.kill_all();
    let spooled = world.spooled(KEEP).await;
    let before = events("B", 40);
    let after = events("A", 10);
    publish(&spooled, &before).await;
    spooled.close().await;
    drop(spooled);
    // The disk failed under the file. The next start went on with a new one, and its gateway was
    // taken away before it had salvaged the old file.
    let untrusted = world.folder.path().join("spool.db.untrusted");
    std::fs::write(&untrusted, "fsync failed").unwrap();
    let spooled = world.spooled(KEEP).await;
    assert!(spooled.damaged_file().is_some());
    publish(&spooled, &after).await;
    spooled.close().await;
    drop(spooled);
    world.servers.start_all().unwrap();

    let drained =
        fluent_queue_spooled::drain(&world.spool(), world.queue().await, Arc::new(SystemClock))
            .await
            .unwrap();
    assert_eq!((drained.refed, drained.left), (0, 0));
    assert_eq!(world.wait_for(&[before, after].concat()).await, vec![1; 50]);
    let again =
        fluent_queue_spooled::drain(&world.spool(), world.queue().await, Arc::new(SystemClock))
            .await;
    assert_eq!(
        again.unwrap(),
        fluent_queue_spooled::DrainReport::default(),
        "nothing is left to take over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_queues_word_is_late_nobody_waits_until_it_speaks_again() {
    const WAIT: Duration = Duration::from_secs(2);
    let world = World::new().await;
    let options = Options {
        wait_for_queue: WAIT,
        ..Options::new(world.spool())
    };
    let spooled = Spooled::open(world.queue().await, options, Arc::new(SystemClock)).unwrap();
    // Events of one entity, which take one lane.
    let send = async |name: String| spooled.publish(event(&name, "1")).await.unwrap();
    // Publishes until an answer comes from the queue: once the lane has read its file, and again
    // when the queue is back.
    let waits_for_the_queue = async |name: &str| {
        let began = Instant::now();
        for number in 0.. {
            if send(format!("{name}_{number}")).await.epoch != "spool" {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nobody waits for the queue");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    waits_for_the_queue("FIRST").await;

    world.servers.servers[0].freeze();
    let mut waited = 0;
    for number in 0..20 {
        let began = Instant::now();
        assert_eq!(send(format!("LATE_{number}")).await.epoch, "spool");
        waited += usize::from(began.elapsed() >= WAIT);
    }
    // And who stood still together with this machine.
    assert!(
        (1..=5).contains(&waited),
        "only the first has waited: {waited} of 20"
    );
    world.servers.servers[0].thaw();
    waits_for_the_queue("AGAIN").await;
    spooled.close().await;
}
