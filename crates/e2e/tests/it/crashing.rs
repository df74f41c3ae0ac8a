//! A process ends before and after each durable step, and nothing is lost: an event that
//! was taken is delivered, or is a dead letter, or was settled.
#![cfg(feature = "failpoints")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use event_model::{SystemClock, Timestamp};
use queue::conformance::event;
use queue::{
    Attempt, DeadQuery, DeadReason, Disposition, Intake, Lifecycle, Outcome, Route, RouteFilter,
    Settlement, Source, StartPosition, Stores,
};
use tokio::time::{Instant, timeout};

/// How the process ends at its point.
const AT_THE_POINT: i32 = 77;

const IN_TIME: Duration = Duration::from_secs(30);

const EVENTS: [&str; 3] = ["A", "B", "C"];

fn route() -> Route {
    let name = "r".to_owned();
    let lease = Duration::from_secs(2);
    Route {
        name,
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease,
    }
}

fn settlement(verdict: Disposition) -> Settlement {
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Done,
        status: None,
        detail: None,
    };
    Settlement {
        disposition: verdict,
        asked: true,
        attempt,
    }
}

/// Ends a process that does `act` with a delivery of `store` at `point`.
fn crash(store: &str, act: &str, point: &str) {
    let status = Command::new(env!("CARGO_BIN_EXE_crash-at"))
        .args([store, act, point])
        .status()
        .unwrap();
    assert_eq!(
        status.code(),
        Some(AT_THE_POINT),
        "{act} did not come to {point}: {status}"
    );
}

async fn letters(stores: &dyn Stores) -> BTreeSet<String> {
    let query = DeadQuery {
        limit: 100,
        ..DeadQuery::default()
    };
    let letters = stores.dead_letters().list(query).await.unwrap();
    letters
        .iter()
        .map(|letter| letter.event.name().to_owned())
        .collect()
}

/// Delivers what there is until every event of `wanted` was seen, as a delivery or a letter.
async fn nothing_is_lost(
    source: &dyn Source,
    stores: &dyn Stores,
    wanted: &BTreeSet<String>,
    why: &str,
) {
    let mut consumer = source.subscribe(route()).await.unwrap();
    let began = Instant::now();
    let mut seen = letters(stores).await;
    while !wanted.is_subset(&seen) {
        assert!(
            began.elapsed() < IN_TIME,
            "{why}: only {seen:?} of {wanted:?} is left"
        );
        // A letter may be written by whoever finds what was damaged, or died alone.
        let Ok(next) = timeout(Duration::from_secs(1), consumer.next(8)).await else {
            seen.extend(letters(stores).await);
            continue;
        };
        for delivery in next.unwrap() {
            seen.insert(delivery.event.name().to_owned());
            delivery
                .ticket
                .settle(settlement(Disposition::Done))
                .await
                .unwrap();
        }
    }
}

/// The events of which a crash must leave something: all, but where what was done was to
/// settle one, and that is done.
fn wanted(act: &str, point: &str) -> BTreeSet<String> {
    let is_over = act == "done" && point.ends_with("commit.after");
    EVENTS
        .iter()
        .skip(usize::from(is_over))
        .map(|name| (*name).to_owned())
        .collect()
}

async fn prepare<Q: Intake + Source>(queue: &Q, act: &str) {
    for name in EVENTS {
        queue.publish(event(name, "o")).await.unwrap();
    }
    if act == "redrive" {
        let mut consumer = queue.subscribe(route()).await.unwrap();
        let mut buried = 0;
        while buried < EVENTS.len() {
            for delivery in timeout(IN_TIME, consumer.next(8)).await.unwrap().unwrap() {
                delivery
                    .ticket
                    .settle(settlement(Disposition::Dead(DeadReason::Permanent)))
                    .await
                    .unwrap();
                buried += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_file_loses_nothing() {
    for act in ["done", "again", "dead", "drop", "redrive"] {
        for point in ["commit.before", "commit.after"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("queue.db");
            let open = || {
                queue_embedded::Embedded::open(
                    queue_embedded::Options::new(&path),
                    Arc::new(SystemClock),
                )
            };
            let queue = open().unwrap();
            prepare(&queue, act).await;
            queue.close().await;
            drop(queue);
            crash(&format!("file:{}", path.display()), act, point);
            let queue = open().unwrap();
            // Which commit of several it was is not known.
            let wanted: BTreeSet<_> = wanted(act, point);
            nothing_is_lost(
                &queue,
                queue.stores(),
                &wanted,
                &format!("{act} at {point}"),
            )
            .await;
            queue.close().await;
        }
    }
}

/// What is left then is removed by the next process, and is nobody's meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_route_is_being_forgotten_is_made_good() {
    const WAITING: usize = 1100;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || {
        queue_embedded::Embedded::open(queue_embedded::Options::new(&path), Arc::new(SystemClock))
    };
    let queue = open().unwrap();
    let published = (0..WAITING).map(|number| queue.publish(event("E", &number.to_string())));
    assert!(
        futures::future::join_all(published)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let forgotten = || Route {
        name: "forgotten".to_owned(),
        ..route()
    };
    let mut consumer = queue.subscribe(forgotten()).await.unwrap();
    let mut waiting = 0;
    while waiting < WAITING {
        let some = timeout(IN_TIME, consumer.next(100)).await.unwrap().unwrap();
        waiting += some.len();
        let again = Disposition::Again(Duration::from_hours(1));
        let settled = some
            .into_iter()
            .map(|delivery| delivery.ticket.settle(settlement(again)));
        assert!(
            futures::future::join_all(settled)
                .await
                .iter()
                .all(Result::is_ok)
        );
    }
    drop(consumer);
    queue.close().await;
    drop(queue);
    crash(&format!("file:{}", path.display()), "forget", "sweep.after");
    let queue = open().unwrap();
    let mut consumer = queue.subscribe(forgotten()).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < WAITING {
        for delivery in timeout(IN_TIME, consumer.next(100)).await.unwrap().unwrap() {
            assert_eq!(
                delivery.attempt, 1,
                "the new route of that name begins anew"
            );
            assert!(seen.insert(delivery.event.id()), "each once");
            delivery
                .ticket
                .settle(settlement(Disposition::Done))
                .await
                .unwrap();
        }
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_on_a_cluster_loses_nothing() {
    let steps: [(&str, &[&str]); 7] = [
        ("done", &["mark.before", "mark.after", "record.after"]),
        (
            "again",
            &[
                "schedule.before",
                "schedule.after",
                "record.after",
                "acknowledge.after",
            ],
        ),
        (
            "dead",
            &[
                "letter.before",
                "letter.after",
                "record.after",
                "acknowledge.after",
            ],
        ),
        (
            "drop",
            &[
                "give-back.before",
                "give-back.after",
                "give-back.acknowledged",
            ],
        ),
        ("redrive", &["redrive.before", "redrive.after"]),
        ("key-unknown", &["key-unknown.before", "key-unknown.after"]),
        (
            "damaged",
            &["damaged.before", "damaged.after", "damaged.dismissed"],
        ),
    ];
    let servers = nats_server::Cluster::start(1, &nats_server::Options::default()).unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let mut options = queue_nats::Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    for (act, point) in steps
        .iter()
        .flat_map(|(act, points)| points.iter().map(move |point| (*act, *point)))
    {
        let cluster = queue_nats::cluster::Cluster::connect(&options)
            .await
            .unwrap();
        for stream in [
            "EVENTS",
            "RETRIES",
            "DEAD",
            "QUARANTINE",
            "ATTEMPTS",
            "INFLIGHT",
            "MARKS",
        ] {
            let _ = jetstream.delete_stream(format!("FLUENT_{stream}")).await;
        }
        assert!(cluster.init().await.unwrap().is_good());
        let open = async || {
            queue_nats::JetStream::open(options.clone(), Arc::new(SystemClock))
                .await
                .unwrap()
        };
        let queue = open().await;
        let is_damaged = act == "damaged";
        if is_damaged {
            let subject = event("X", "x").subject();
            jetstream
                .publish(subject, "not what it was".into())
                .await
                .unwrap()
                .await
                .unwrap();
        }
        prepare(&queue, act).await;
        queue.close().await;
        let url = servers.urls().remove(0);
        crash(
            &format!("nats:{url}"),
            if is_damaged { "done" } else { act },
            point,
        );
        let queue = open().await;
        let skipped = usize::from(is_damaged);
        let wanted: BTreeSet<_> = EVENTS
            .iter()
            .skip(skipped)
            .map(|name| (*name).to_owned())
            .collect();
        nothing_is_lost(
            &queue,
            &**queue.stores(),
            &wanted,
            &format!("{act} at {point}"),
        )
        .await;
        let began = Instant::now();
        let mut consumer = queue.subscribe(route()).await.unwrap();
        while is_damaged
            && queue
                .stores()
                .quarantine()
                .list(0, 9)
                .await
                .unwrap()
                .is_empty()
        {
            assert!(
                began.elapsed() < IN_TIME,
                "what was damaged is lost at {point}"
            );
            let _ = timeout(Duration::from_millis(200), consumer.next(8)).await;
        }
        queue.close().await;
    }
}
