//! Stories of events whose attempts the history no longer has: they say so, and claim nothing.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Event, SystemClock, Timestamp};
use fluent_queue_nats::{JetStream, Options};
use history_index::Index;
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    Attempt, Consumer, DeadReason, Disposition, EventStory, Intake, Lifecycle, Outcome,
    PAUSES_WITHIN, Pause, Position, ReceivedQuery, ReplayOutcome, Route, RouteFilter, Settlement,
    Source, StartPosition, StoryState,
};

use crate::joining::world;

struct World {
    _servers: Servers,
    options: Options,
    _folder: tempfile::TempDir,
    jetstream: async_nats::jetstream::Context,
    queue: Arc<JetStream>,
    /// Without an index: reads the streams through.
    plain: Arc<JetStream>,
}

impl World {
    async fn start() -> Self {
        let (servers, mut options) = world().await;
        let jetstream =
            async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
        let folder = tempfile::tempdir().unwrap();
        let plain = JetStream::open(options.clone(), Arc::new(SystemClock))
            .await
            .unwrap();
        options.index = Some(Arc::new(
            Index::open(&folder.path().join("index.db")).unwrap(),
        ));
        let queue = JetStream::open(options.clone(), Arc::new(SystemClock))
            .await
            .unwrap();
        Self {
            _servers: servers,
            options,
            _folder: folder,
            jetstream,
            queue: Arc::new(queue),
            plain: Arc::new(plain),
        }
    }

    async fn subscribe(&self, name: &str) -> Box<dyn Consumer> {
        let route = Route {
            name: name.to_owned(),
            ..route_r()
        };
        self.queue.subscribe(route).await.unwrap()
    }

    /// Removes the oldest attempts, as their age or their bytes would.
    async fn forget(&self) {
        self.jetstream
            .get_stream("FLUENT_ATTEMPTS")
            .await
            .unwrap()
            .purge()
            .await
            .unwrap();
    }

    /// Settles one event in a process that ends before it could write that into the history, which
    /// refuses it.
    fn settle_and_die(&self, name: &'static str, disposition: Disposition) {
        let options = self.options.clone();
        let jetstream = self.jetstream.clone();
        let dying = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let queue = JetStream::open(options, Arc::new(SystemClock))
                    .await
                    .unwrap();
                let mut consumer = queue.subscribe(route_r()).await.unwrap();
                refuse(&jetstream, true).await;
                queue
                    .publish(event(name, &name.to_lowercase()))
                    .await
                    .unwrap();
                settle(&mut *consumer, disposition).await;
                let facts = queue.stores().facts();
                eventually("a gap is noted", async || {
                    !queue::history_gaps(facts).await.unwrap().is_empty()
                })
                .await;
            });
            runtime.shutdown_background();
        });
        tokio::task::block_in_place(|| dying.join()).unwrap();
    }

    /// Returns the story, after checking that it is the same with and without an index.
    async fn story(&self, reference: &str) -> EventStory {
        let find = async |queue: &JetStream| {
            queue
                .stores()
                .history()
                .find(reference, 1)
                .await
                .unwrap()
                .remove(0)
        };
        let indexed = find(&*self.queue).await;
        let plain = find(&*self.plain).await;
        assert_eq!(indexed.states, plain.states);
        assert_eq!(indexed.history_since, plain.history_since);
        indexed
    }

    async fn received(&self) -> Vec<(Position, Event)> {
        let all = ReceivedQuery {
            from: Timestamp::UNIX_EPOCH,
            until: Timestamp::MAX,
            after: Position::START,
            limit: 100,
        };
        self.queue
            .stores()
            .history()
            .received(all)
            .await
            .unwrap()
            .events
    }

    async fn replay(&self, again: bool) -> Vec<ReplayOutcome> {
        self.queue
            .stores()
            .replay("r", &self.received().await, again)
            .await
            .unwrap()
    }
}

/// Settles the next delivery, and returns the name of its event.
async fn settle(consumer: &mut dyn Consumer, disposition: Disposition) -> String {
    let next = tokio::time::timeout(Duration::from_secs(60), consumer.next(1)).await;
    let delivery = next.expect("nothing came").unwrap().remove(0);
    let outcome = match disposition {
        Disposition::Done => Outcome::Done,
        _ => Outcome::Permanent,
    };
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome,
        status: None,
        detail: None,
    };
    let name = delivery.event.name().to_owned();
    delivery
        .ticket
        .settle(Settlement {
            disposition,
            asked: true,
            attempt,
        })
        .await
        .unwrap();
    name
}

fn route_r() -> Route {
    Route {
        name: r(),
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(60),
    }
}

fn r() -> String {
    "r".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_history_has_forgotten_is_unknown_and_not_done_or_not_reached() {
    let world = World::start().await;
    let mut consumer = world.subscribe("r").await;
    for (name, disposition) in [
        ("DONE", Disposition::Done),
        ("DEAD", Disposition::Dead(DeadReason::Permanent)),
        ("WAITS", Disposition::Again(Duration::from_hours(1))),
    ] {
        world
            .queue
            .publish(event(name, &name.to_lowercase()))
            .await
            .unwrap();
        settle(&mut *consumer, disposition).await;
    }
    assert_eq!(
        world.story("done").await.states,
        [StoryState::Done { route: r() }]
    );
    assert_eq!(
        world.story("done").await.history_since,
        None,
        "all of it is kept"
    );
    world.forget().await;
    // The history begins with the first of them.
    for (name, reference) in [("BEGINS", "begins"), ("NEW", "new")] {
        world.queue.publish(event(name, reference)).await.unwrap();
        settle(&mut *consumer, Disposition::Done).await;
    }
    // With the route paused, nobody takes the following events.
    world
        .queue
        .stores()
        .set_paused("r", Some(&Pause::default()))
        .await
        .unwrap();
    tokio::time::sleep(PAUSES_WITHIN).await;
    world.queue.publish(event("AHEAD", "ahead")).await.unwrap();

    for reference in ["done", "dead"] {
        let story = world.story(reference).await;
        assert_eq!(
            story.states,
            [StoryState::Unknown { route: r() }],
            "{reference}"
        );
        assert!(
            story.steps.is_empty() && story.history_since.is_some(),
            "{story:?}"
        );
    }
    let waits = world.story("waits").await;
    assert!(
        matches!(&waits.states[..], [StoryState::Waiting { .. }]),
        "{:?}",
        waits.states
    );
    let new = world.story("new").await;
    assert_eq!(
        (&new.states[..], new.history_since),
        (&[StoryState::Done { route: r() }][..], None)
    );
    let ahead = world.story("ahead").await;
    assert_eq!(ahead.states, [StoryState::NotReached { route: r() }]);
    let unknown = ReplayOutcome::Unknown;
    assert_eq!(
        world.replay(false).await,
        [
            unknown,
            unknown,
            ReplayOutcome::Ahead,
            ReplayOutcome::Done,
            ReplayOutcome::Done,
            ReplayOutcome::Ahead
        ]
    );
    world.queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_it_again_gets_also_what_is_unknown_but_for_what_is_on_its_way() {
    let world = World::start().await;
    let mut consumer = world.subscribe("r").await;
    world.queue.publish(event("DONE", "done")).await.unwrap();
    settle(&mut *consumer, Disposition::Done).await;
    world.queue.publish(event("WAITS", "waits")).await.unwrap();
    settle(&mut *consumer, Disposition::Again(Duration::from_hours(1))).await;
    world.forget().await;
    assert_eq!(
        world.replay(false).await,
        [ReplayOutcome::Unknown, ReplayOutcome::Ahead]
    );
    assert_eq!(
        world.replay(true).await,
        [ReplayOutcome::HandedOver, ReplayOutcome::Ahead]
    );
    assert_eq!(settle(&mut *consumer, Disposition::Done).await, "DONE");
    // Received since the history begins, and not for this route when it came: known.
    world.queue.publish(event("LATE", "late")).await.unwrap();
    settle(&mut *consumer, Disposition::Done).await;
    assert_eq!(
        world.replay(false).await,
        [
            ReplayOutcome::Done,
            ReplayOutcome::Ahead,
            ReplayOutcome::Done
        ]
    );
    world.queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_no_history_has_since_their_process_was_killed_are_said_to_be_missing() {
    let world = World::start().await;
    world.settle_and_die("LOST", Disposition::Done);
    refuse(&world.jetstream, false).await;
    let story = world.story("lost").await;
    assert_eq!(story.states, [StoryState::Unknown { route: r() }]);
    assert_eq!(story.gaps.len(), 1, "{story:?}");
    assert_eq!(story.gaps[0].route, "r");
    assert_eq!(story.history_since, None);
    assert_eq!(world.replay(false).await, [ReplayOutcome::Unknown]);
    assert_eq!(world.replay(true).await, [ReplayOutcome::HandedOver]);
    world.queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_of_the_history_is_gone_when_all_was_written_after_all() {
    let world = World::start().await;
    let mut consumer = world.subscribe("r").await;
    refuse(&world.jetstream, true).await;
    world.queue.publish(event("LATE", "late")).await.unwrap();
    settle(&mut *consumer, Disposition::Done).await;
    let facts = world.queue.stores().facts();
    let gaps = async || {
        let all = queue::history_gaps(facts).await.unwrap();
        all.into_iter().flat_map(|(_, gaps)| gaps).count()
    };
    eventually("a gap is noted", async || gaps().await == 1).await;
    refuse(&world.jetstream, false).await;
    eventually("it is no gap", async || gaps().await == 0).await;
    let story = world.story("late").await;
    assert_eq!(story.states, [StoryState::Done { route: r() }]);
    assert_eq!((story.gaps, story.steps.len()), (Vec::new(), 1));
    world.queue.close().await;
}

/// Lets the history refuse whatever is written, or take it again.
async fn refuse(jetstream: &async_nats::jetstream::Context, is_refused: bool) {
    let mut stream = jetstream.get_stream("FLUENT_ATTEMPTS").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = if is_refused { 1 } else { 3 << 20 };
    jetstream.update_stream(config).await.unwrap();
}

/// Waits until this holds.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "not in time: {what}");
}
