//! A route that wants one event of each Fluent id, with a real queue.

use std::collections::BTreeMap;

use enrichment::Enrichment;
use event_model::{Bytes, Event, EventId, StoredEvent};
use queue::{EventStory, StoryState};
use settings::OnSameId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// Returns an event with the Fluent id of the order `o`, in this state.
fn event(status: &str) -> Event {
    let first = queue::conformance::event("E", "o");
    let text = String::from_utf8(first.body().to_vec()).unwrap();
    let body = text.replace('}', &format!(r#","entityStatus":"{status}"}}"#));
    let id = EventId::of(first.environment(), body.as_bytes());
    let event = Event::restore(
        id,
        StoredEvent {
            body: Bytes::from(body),
            ..first.stored().clone()
        },
    )
    .unwrap();
    assert_eq!(event.fluent_key(), first.fluent_key());
    event
}

/// Answers that a test gives by the event's state, and the states that were dispatched.
struct Destination {
    answers: BTreeMap<&'static str, UnboundedSender<Result<Done, DispatchError>>>,
    asked: UnboundedReceiver<String>,
}

/// Returns a destination that answers an event when the test says so.
fn destination() -> (Destination, ScriptedDispatcher) {
    let (asking, asked) = unbounded_channel();
    let mut answers = BTreeMap::new();
    let mut waiting = BTreeMap::new();
    for status in ["BOOKED", "SHIPPED"] {
        let (answer, answered) = unbounded_channel();
        answers.insert(status, answer);
        waiting.insert(status, Arc::new(tokio::sync::Mutex::new(answered)));
    }
    let scripted = ScriptedDispatcher::new(move |event| {
        let status = event.fields().entity_status.clone().unwrap();
        let answered: Arc<tokio::sync::Mutex<UnboundedReceiver<_>>> =
            Arc::clone(&waiting[status.as_str()]);
        asking.send(status).unwrap();
        async move { answered.lock().await.recv().await.expect("an answer") }
    });
    (Destination { answers, asked }, scripted)
}

impl Destination {
    fn answer(&self, status: &str, answer: Result<Done, DispatchError>) {
        self.answers[status].send(answer).unwrap();
    }

    /// Returns the state of the event that is attempted next.
    async fn next(&mut self) -> String {
        timeout(PATIENCE, self.asked.recv())
            .await
            .expect("an attempt")
            .expect("an attempt")
    }
}

struct World {
    queue: queues::OpenedQueue,
    shutdown: Shutdown,
    destination: Destination,
}

impl World {
    async fn start(folder: &Path, on_same_id: OnSameId) -> Self {
        Self::start_asking(folder, on_same_id, None).await
    }

    async fn start_asking(
        folder: &Path,
        on_same_id: OnSameId,
        enrichment: Option<Enrichment>,
    ) -> Self {
        let queue = embedded(folder).await;
        let (destination, scripted) = destination();
        let quick = RetrySettings {
            initial: SECOND / 20,
            max_delay: SECOND / 5,
            ..RetrySettings::default()
        };
        let settings = RouteSettings {
            same_id: on_same_id,
            retry: quick,
            ..route("r")
        };
        let opened = open_route(settings.clone(), FakeQueue::default(), scripted).opened;
        let opened = OpenedRoutes {
            enrichment,
            ..opened
        };
        let routes = Routes(vec![settings]);
        let selection = RouteSelection::everything();
        let clock = Arc::new(SystemClock);
        let joined = join_routes(
            &routes,
            &selection,
            vec![opened],
            &queue.source,
            clock,
            LEASE,
        )
        .await
        .unwrap();
        let shutdown = Shutdown::manual(SECOND);
        joined.start(&shutdown);
        Self {
            queue,
            shutdown,
            destination,
        }
    }

    async fn publish(&self, status: &str) -> EventId {
        self.queue.intake.publish(event(status)).await.unwrap();
        event(status).id()
    }

    async fn story(&self, id: EventId) -> EventStory {
        let found = self
            .queue
            .stores
            .history()
            .find(&id.to_string(), 1)
            .await
            .unwrap();
        found.into_iter().next().expect("it is kept")
    }

    /// Returns the story of the event once one of its attempts says this.
    async fn until_said(&self, id: EventId, words: &str) -> EventStory {
        let saying = async {
            loop {
                let story = self.story(id).await;
                let says =
                    |detail: &Option<String>| detail.as_ref().is_some_and(|it| it.contains(words));
                if story.steps.iter().any(|step| says(&step.record.detail)) {
                    return story;
                }
                sleep(SECOND / 20).await;
            }
        };
        timeout(PATIENCE, saying)
            .await
            .unwrap_or_else(|_| panic!("no attempt of {id} says {words:?}"))
    }

    async fn end(self) {
        self.shutdown.finish().await;
        self.queue.lifecycle.close().await;
    }
}

fn permanent() -> DispatchError {
    DispatchError::permanent("testing", "x")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_events_of_one_id_the_second_waits_and_is_skipped_until_somebody_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path(), OnSameId::Skip).await;
    let first = world.publish("BOOKED").await;
    assert_eq!(world.destination.next().await, "BOOKED");
    let second = world.publish("SHIPPED").await;
    world
        .until_said(second, "of the same Fluent id is attempted")
        .await;
    // A temporary failure blocks no other event, and the first to be delivered is the one.
    world.destination.answer("BOOKED", Err(unavailable()));
    let next = world.destination.next().await;
    world.destination.answer(&next, Ok(Done::default()));
    let (done, skipped) = if next == "BOOKED" {
        (first, second)
    } else {
        (second, first)
    };
    let story = world
        .until_said(skipped, &format!("skipped: event {done}"))
        .await;
    assert!(
        matches!(&story.states[..], [StoryState::Done { .. }, ..]),
        "{:?}",
        story.states
    );
    assert!(
        world.destination.asked.try_recv().is_err(),
        "the destination was asked for one of them"
    );

    let events = [(
        story.position,
        event(if skipped == first {
            "BOOKED"
        } else {
            "SHIPPED"
        }),
    )];
    let stores = &world.queue.stores;
    let replayed = stores.replay("r", &events, false).await.unwrap();
    assert_eq!(replayed, [queue::ReplayOutcome::Done]);
    stores.replay("r", &events, true).await.unwrap();
    let next = world.destination.next().await;
    assert_eq!(
        next,
        events[0].1.fields().entity_status.clone().unwrap(),
        "a person wants it"
    );
    world.destination.answer(&next, Ok(Done::default()));
    world.end().await;
}

/// Returns an enrichment that always fails: it knows only another account.
fn asking_in_vain() -> Enrichment {
    let secret = || -> fluent_api::ReadSecret { Arc::new(|| Ok("x".to_owned())) };
    let credentials = fluent_api::Credentials {
        username: "x".to_owned(),
        password: secret(),
        client_id: "x".to_owned(),
        client_secret: secret(),
    };
    let client = fluent_api::Client::new(fluent_api::Options {
        base: "http://127.0.0.1:9".parse().unwrap(),
        account: "ANOTHER".to_owned(),
        environment: "sandbox".to_owned(),
        credentials,
        limits: fluent_api::Limits::default(),
        ledger: Arc::new(fluent_api::MemoryLedger::new(|| SystemClock.now())),
    })
    .unwrap();
    let accounts = fluent_api::Accounts::default().with("ANOTHER", "sandbox", client);
    let shared = dispatch::Extensions::default().with(accounts);
    let cx = dispatch::OpenContext::new("r", Path::new(".")).with_extensions(&shared);
    Enrichment::open(None, Some(settings::EntityCheckSource::Fluent), &cx)
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fluent_is_not_asked_about_an_event_that_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start_asking(folder.path(), OnSameId::Skip, Some(asking_in_vain())).await;
    let first = event("BOOKED");
    let delivered = world
        .queue
        .source
        .note_same_id_delivered(first.fluent_key(), "r", first.id());
    delivered.await.unwrap();
    let second = world.publish("SHIPPED").await;
    let ended = async {
        while world.story(second).await.steps.is_empty() {
            sleep(SECOND / 20).await;
        }
        world.story(second).await
    };
    let story = timeout(PATIENCE, ended).await.expect("an attempt");
    let said = story.steps[0].record.detail.clone().unwrap_or_default();
    assert!(
        said.contains(&format!("skipped: event {}", first.id())),
        "{said}"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_no_other_event_of_its_id_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path(), OnSameId::Skip).await;
    world.publish("BOOKED").await;
    assert_eq!(world.destination.next().await, "BOOKED");
    let second = world.publish("SHIPPED").await;
    world
        .until_said(second, "of the same Fluent id is attempted")
        .await;
    world.destination.answer("BOOKED", Err(permanent()));
    assert_eq!(world.destination.next().await, "SHIPPED");
    world.destination.answer("SHIPPED", Ok(Done::default()));
    // An event that a person redrives is delivered, whatever came before.
    let letters = world.queue.stores.dead_letters();
    // The other's turn came before the letter was written.
    let written = async {
        loop {
            let query = queue::DeadQuery {
                limit: 9,
                ..queue::DeadQuery::default()
            };
            if let Some(letter) = letters.list(query).await.unwrap().pop() {
                return letter.id;
            }
            sleep(SECOND / 20).await;
        }
    };
    let letter = timeout(PATIENCE, written).await.expect("a letter");
    assert!(
        letters
            .redrive(&[letter], None)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(world.destination.next().await, "BOOKED");
    world.destination.answer("BOOKED", Ok(Done::default()));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_says_nothing_delivers_both_and_asks_for_no_mark() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path(), OnSameId::Deliver).await;
    for status in ["BOOKED", "SHIPPED"] {
        world.publish(status).await;
        assert_eq!(world.destination.next().await, status);
        world.destination.answer(status, Ok(Done::default()));
    }
    let facts = world
        .queue
        .stores
        .facts()
        .entries(queue::same_id::SAME_ID)
        .await
        .unwrap();
    assert_eq!(facts, []);
    world.end().await;
}
