//! A queue that forgets events which it acknowledged.

use std::time::Duration;

use queue::Lifecycle;

use crate::world::{World, events, publish};

const KEEP: Duration = Duration::from_secs(10);

/// Waits until the queue has said that it has them, and nothing of them is confirmed yet.
async fn acknowledged(world: &World, count: u64) {
    world.wait_until_acknowledged().await;
    let state = fluent_queue_spooled::spool_state(&world.spool()).unwrap();
    assert_eq!(
        state.unconfirmed, count,
        "this machine stood still until they were read back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_given_again_although_another_gateway_published_past_it() {
    let mut world = World::new().await;
    let kept = events("K", 20);
    let lost = events("L", 30);
    let others = events("O", 40);
    let another = world.queue().await;
    publish(&*another, &kept).await;
    let saved = world.save();
    let spooled = world.spooled(KEEP).await;
    publish(&spooled, &lost).await;
    acknowledged(&world, 30).await;
    world.restore(&saved);
    // Another gateway's events take the very positions that were acknowledged.
    publish(&*another, &others).await;
    let all = [kept, lost.clone(), others].concat();
    assert_eq!(world.wait_for(&all).await, vec![1; all.len()]);
    let marked = world
        .stored()
        .await
        .iter()
        .filter(|(_, _, refed)| *refed)
        .count();
    assert_eq!(
        marked,
        lost.len(),
        "what is given again is marked, and nothing else"
    );
    world.wait_until_empty().await;
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_middle_is_filled() {
    let world = World::new().await;
    let spooled = world.spooled(KEEP).await;
    let events = events("H", 50);
    publish(&spooled, &events).await;
    acknowledged(&world, 50).await;
    let client = async_nats::connect(world.servers.urls()).await.unwrap();
    let stream = async_nats::jetstream::new(client)
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap();
    for position in 20..30 {
        stream.delete_message(position).await.unwrap();
    }
    // The server still knows the ids: only reading the events back finds the gap.
    assert_eq!(world.wait_for(&events).await, vec![1; 50]);
    world.wait_until_empty().await;
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_is_filled_again_once_it_is_made_again() {
    let world = World::new().await;
    // Longer than this test takes: a new epoch is noticed at once.
    let spooled = world.spooled(Duration::from_hours(1)).await;
    let before = events("B", 60);
    let meanwhile = events("M", 20);
    publish(&spooled, &before).await;
    acknowledged(&world, 60).await;
    let client = async_nats::connect(world.servers.urls()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("FLUENT_EVENTS").await.unwrap();
    publish(&spooled, &meanwhile).await;
    assert!(
        jetstream.get_stream("FLUENT_EVENTS").await.is_err(),
        "only cluster init makes streams"
    );
    world.make_streams().await;
    let all = [before, meanwhile].concat();
    assert_eq!(world.wait_for(&all).await, vec![1; 80]);
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_down_for_longer_than_keep_lose_nothing() {
    let mut world = World::new().await;
    let saved = world.save();
    let keep = Duration::from_millis(300);
    let spooled = world.spooled(Duration::from_hours(1)).await;
    let events = events("D", 40);
    publish(&spooled, &events).await;
    acknowledged(&world, 40).await;
    spooled.close().await;
    drop(spooled);
    world.servers.kill_all();
    tokio::time::sleep(keep * 3).await;
    world.restore(&saved);
    let spooled = world.spooled(keep).await;
    assert_eq!(world.wait_for(&events).await, vec![1; 40]);
    world.wait_until_empty().await;
    spooled.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_beginning_is_given_again_though_it_looks_like_what_was_settled() {
    let world = World::new().await;
    let spooled = world.spooled(KEEP).await;
    let events = events("P", 40);
    publish(&spooled, &events).await;
    acknowledged(&world, 40).await;
    // What a server does that has lost its files and kept its state.
    let client = async_nats::connect(world.servers.urls()).await.unwrap();
    let stream = async_nats::jetstream::new(client)
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap();
    stream.purge().await.unwrap();
    assert_eq!(world.wait_for(&events).await, vec![1; 40]);
    world.wait_until_empty().await;
    spooled.close().await;
}
