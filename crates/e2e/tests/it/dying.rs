//! kill -9 loses nothing that was answered 200, and invents nothing.

use std::collections::HashSet;
use std::time::Duration;

use crate::ledger::Load;
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{HANGS, Sink, status};

const KILLS: usize = 50;

fn ids(letters: &serde_json::Value) -> HashSet<String> {
    letters
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["eventId"].as_str().unwrap().to_owned())
        .collect()
}

/// I1, I2 and I3 of the invariants, with a sender that never retries.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_load_lose_nothing_and_invent_nothing() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route(
        "all",
        "match: {}, retry: { initial: 50ms, max-delay: 1s, max-elapsed: 1h }",
    ));
    let load = Load::start(&[pipeline.url()], 8);
    for _ in 0..KILLS {
        let before = load.accepted();
        until("some are accepted", || load.accepted() > before).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        pipeline.kill();
        pipeline.run();
    }
    let (sent, accepted) = load.stop().await;
    until("every accepted one arrived or is dead", || {
        let counts = sink.counts();
        let missing: Vec<_> = accepted
            .iter()
            .filter(|id| !counts.contains_key(*id))
            .collect();
        missing.is_empty()
            || missing.iter().all(|id| {
                ids(&pipeline.json(&["dead-letters", "list", "--limit", "1000"])).contains(*id)
            })
    })
    .await;

    let counts = sink.counts();
    let invented: Vec<_> = counts.keys().filter(|id| !sent.contains(*id)).collect();
    assert!(
        invented.is_empty(),
        "delivered and never sent: {invented:?}"
    );
    let again: usize = counts.values().map(|count| count - 1).sum();
    // Per crash at most what was in flight (16) is delivered once more.
    assert!(again <= KILLS * 16, "{again} deliveries too many");
    assert!(accepted.len() > KILLS, "{} accepted", accepted.len());
    println!(
        "{} sent, {} accepted, {} delivered, {again} of them again, {KILLS} kills",
        sent.len(),
        accepted.len(),
        counts.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_killed_the_process_alone_is_buried() {
    let routes =
        "    - { name: odd, match: {}, dispatcher: misbehaving, misbehaving: { millis: 20 } }\n";
    let mut pipeline = Pipeline::start(routes);
    let sender = pipeline.sender(simulator::Retry::Never);
    for number in 0..6 {
        pipeline
            .accept(&signed("E", &format!("GOOD_{number}")))
            .await;
    }
    // It may die before it can answer: the event is durable all the same.
    let killer = signed("E", "ABORT_1");
    drop(sender.send(&killer).await);
    let is_buried = |pipeline: &Pipeline| {
        let said = pipeline.command(&["dead-letters", "list", "--json"]).stdout;
        serde_json::from_slice::<Vec<serde_json::Value>>(&said)
            .is_ok_and(|letters| !letters.is_empty())
    };
    for _ in 0..10 {
        pipeline.wait();
        pipeline.spawn();
        let mut is_running = true;
        let mut is_over = false;
        until("it dies of it, or buries it", || {
            (is_running, is_over) = (pipeline.is_running(), is_buried(&pipeline));
            is_over || !is_running
        })
        .await;
        if is_over {
            break;
        }
    }
    until("it stays up once the killer is buried", || {
        pipeline.is_running() && pipeline.is_ready()
    })
    .await;
    let is_done = |number: usize| {
        let story = pipeline.json(&["events", "show", &format!("GOOD_{number}")]);
        story[0]["outcomes"][0]["state"] == "done"
    };
    until("the others are done", || (0..6).all(is_done)).await;
    let letters = pipeline.json(&["dead-letters", "list"]);
    let buried: Vec<_> = letters
        .as_array()
        .unwrap()
        .iter()
        .map(|l| (l["entity"].clone(), l["reason"].clone()))
        .collect();
    assert_eq!(buried, [("ORDER/ABORT_1".into(), "crash".into())]);
    let deaths = pipeline.json(&["events", "show", "ABORT_1"]);
    let outcomes: Vec<_> = deaths[0]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["outcome"].clone())
        .collect();
    assert_eq!(
        outcomes,
        ["died", "died", "died"],
        "twice beside others, once alone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hung_when_the_process_died_twice_holds_up_no_other_route() {
    let good = Sink::open().await;
    let hangs = Sink::answering(|_, _| status(HANGS)).await;
    let routes =
        good.route("good", "match: {}") + &hangs.route("hangs", "match: {}, concurrency: 6");
    let mut pipeline = Pipeline::start(&routes);
    for number in 0..6 {
        pipeline.accept(&signed("E", &format!("W_{number}"))).await;
    }
    for times in 1..=2 {
        until("all of them hang", || hangs.len() == 6 * times).await;
        until("the others are done", || good.counts().len() == 6).await;
        pipeline.kill();
        pipeline.run();
    }
    // Each of the six may have killed it, and none of them answers.
    until("one is attempted alone", || hangs.len() > 12).await;
    let began = std::time::Instant::now();
    pipeline.accept(&signed("E", "AFTER")).await;
    until("the good one has it", || good.counts().len() == 7).await;
    let took = began.elapsed();
    println!("beside six suspects that hang: {took:?}");
    assert!(took < Duration::from_secs(20), "I10: {took:?}");
    pipeline.kill();
}
