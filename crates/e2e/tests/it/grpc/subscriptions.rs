use std::collections::HashMap;
use std::net::SocketAddr;

use proto::v1;
use proto::v1::subscribe_request::settle::Outcome;
use tonic::Code;

use super::subscriber::{Subscriber, attempt, reference};
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::Sink;

/// In hand for so long that a machine that stands still takes nothing back.
const ROUTE: &str = "    - { name: sub, match: {}, dispatcher: subscription, retry: { initial: 200ms, max-delay: 1s, max-elapsed: 1h }, \
                     subscription: { timeout: 30s, max-duration: 60s } }\n";

fn start() -> (Pipeline, SocketAddr) {
    start_with(ROUTE)
}

fn start_with(route: &str) -> (Pipeline, SocketAddr) {
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(route);
    pipeline.run();
    (pipeline, grpc)
}

async fn send(pipeline: &Pipeline, references: &[&str]) {
    for reference in references {
        pipeline.accept(&signed("E", reference)).await;
    }
}

fn steps(pipeline: &Pipeline, reference: &str) -> Vec<serde_json::Value> {
    pipeline.json(&["events", "show", reference])[0]["attempts"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_subscriber_says_is_what_happens() {
    let (pipeline, grpc) = start();
    let mut subscriber = Subscriber::join(grpc, "sub", 10).await.unwrap();
    send(&pipeline, &["DONE", "LATER", "NEVER"]).await;
    for _ in 0..3 {
        let delivered = subscriber.next().await.unwrap().unwrap();
        let event = delivered.event.clone().unwrap();
        assert!(
            event.body.windows(4).any(|bytes| bytes == b"ACME"),
            "the exact body"
        );
        assert_eq!(
            delivered.delivery.clone().unwrap().idempotency_key,
            event.id
        );
        let outcome = match reference(&delivered).as_str() {
            "DONE" => Outcome::Done(v1::Done {
                status: Some(201),
                remark: "its answer broke off".to_owned(),
            }),
            "LATER" => Outcome::Transient(v1::Transient {
                detail: "busy".to_owned(),
                ..v1::Transient::default()
            }),
            _ => Outcome::Permanent(v1::Permanent {
                status: Some(422),
                detail: "no such shop".to_owned(),
            }),
        };
        subscriber.settle(delivered.number, outcome).await;
    }
    let again = subscriber.next().await.unwrap().unwrap();
    assert_eq!((reference(&again).as_str(), attempt(&again)), ("LATER", 2));
    subscriber.done(again.number).await;

    until("it is done", || steps(&pipeline, "LATER").len() == 2).await;
    let done = steps(&pipeline, "DONE")[0].clone();
    assert_eq!(done["status"], 201);
    assert_eq!(done["detail"], "its answer broke off");
    assert!(
        !pipeline.log().contains("broke off"),
        "a remark is a handler's words, too"
    );
    let letter = pipeline.json(&["dead-letters", "list"])[0].clone();
    assert_eq!(letter["reason"], "permanent");
    assert!(
        letter["detail"].as_str().unwrap().contains("no such shop"),
        "{letter}"
    );
    assert!(
        !pipeline.log().contains("no such shop"),
        "what a handler says is never logged"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_than_it_has_room_for() {
    let (pipeline, grpc) = start();
    let mut subscriber = Subscriber::join(grpc, "sub", 2).await.unwrap();
    send(&pipeline, &["A", "B"]).await;
    let first = subscriber.next().await.unwrap().unwrap();
    let second = subscriber.next().await.unwrap().unwrap();
    // With two in hand it has no room: what comes now is another's.
    let mut other = Subscriber::join(grpc, "sub", 1).await.unwrap();
    send(&pipeline, &["C"]).await;
    let third = other.next().await.unwrap().unwrap();
    assert_eq!(reference(&third), "C");
    subscriber.progress(first.number).await;
    subscriber.progress(second.number).await;
    subscriber.done(first.number).await;
    send(&pipeline, &["D"]).await;
    let fourth = subscriber.next().await.unwrap().unwrap();
    assert_eq!(reference(&fourth), "D", "the first after the two");
    // Without credits nothing comes, and what is in hand stays there.
    subscriber.set_credits(0).await;
    subscriber.done(second.number).await;
    subscriber.done(fourth.number).await;
    until("it has said all that", || steps(&pipeline, "D").len() == 1).await;
    other.done(third.number).await;
    send(&pipeline, &["E"]).await;
    let fifth = other.next().await.unwrap().unwrap();
    assert_eq!(reference(&fifth), "E", "the other one has no credits");
    subscriber.set_credits(5).await;
    send(&pipeline, &["F"]).await;
    let sixth = subscriber.next().await.unwrap().unwrap();
    assert_eq!(
        (reference(&sixth).as_str(), attempt(&sixth)),
        ("F", 1),
        "what nobody had room for was not attempted"
    );
    // Half-closed, it ends when everything is settled.
    subscriber.done(sixth.number).await;
    let mut rest = subscriber.half_close().await;
    assert!(rest.message().await.unwrap().is_none());
    assert_eq!(attempt(&fifth), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_in_time_it_comes_again_and_progress_is_a_word() {
    let (pipeline, grpc) = start_with(&ROUTE.replace("30s", "4s"));
    let mut subscriber = Subscriber::join(grpc, "sub", 5).await.unwrap();
    send(&pipeline, &["SLOW"]).await;
    let slow = subscriber.next().await.unwrap().unwrap();
    // Twice the time without being settled, and never long without a word: that this time passes
    // is what the test is about.
    for _ in 0..5 {
        tokio::time::sleep(std::time::Duration::from_millis(1600)).await;
        subscriber.progress(slow.number).await;
    }
    subscriber.done(slow.number).await;
    until("it is done", || steps(&pipeline, "SLOW").len() == 1).await;
    assert_eq!(steps(&pipeline, "SLOW")[0]["outcome"], "done");

    send(&pipeline, &["SILENT"]).await;
    let silent = subscriber.next().await.unwrap().unwrap();
    let again = subscriber.next().await.unwrap().unwrap();
    assert_eq!((reference(&again).as_str(), attempt(&again)), ("SILENT", 2));
    assert_eq!(subscriber.expired, [silent.number]);
    // Too late: it means nothing.
    subscriber.done(silent.number).await;
    subscriber.done(again.number).await;
    until("it is done", || steps(&pipeline, "SILENT").len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_is_there_nothing_is_attempted() {
    let sink = Sink::open().await;
    let (pipeline, grpc) = start_with(&(ROUTE.to_owned() + &sink.route("all", "match: {}")));
    send(&pipeline, &["EARLY"]).await;
    until("a route that has somebody gets it", || sink.len() == 1).await;
    let mut subscriber = Subscriber::join(grpc, "sub", 1).await.unwrap();
    let early = subscriber.next().await.unwrap().unwrap();
    assert_eq!(attempt(&early), 1, "and was not attempted before");
    let by_others = |step: &serde_json::Value| step["route"] == "all";
    assert!(steps(&pipeline, "EARLY").iter().all(by_others));
    // One that goes away loses nothing; the next one has it at once.
    drop(subscriber);
    let mut other = Subscriber::join(grpc, "sub", 1).await.unwrap();
    let again = other.next().await.unwrap().unwrap();
    assert_eq!((reference(&again).as_str(), attempt(&again)), ("EARLY", 2));
    other.done(again.number).await;
    until("it is done", || {
        steps(&pipeline, "EARLY")
            .iter()
            .any(|step| step["route"] == "sub" && step["outcome"] == "done")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_share_a_route_over_kills_and_lose_nothing() {
    let (mut pipeline, grpc) = start();
    let all: Vec<String> = (0..120).map(|number| format!("E_{number}")).collect();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut counts = [0, 0];
    let mut pair = [
        Subscriber::join(grpc, "sub", 4).await.unwrap(),
        Subscriber::join(grpc, "sub", 4).await.unwrap(),
    ];
    send(
        &pipeline,
        &all.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    for round in 0..20 {
        let it = round % 2;
        let delivered = pair[it].next().await.unwrap().unwrap();
        counts[it] += 1;
        *seen.entry(reference(&delivered)).or_default() += 1;
        pair[it].done(delivered.number).await;
    }
    assert_eq!(counts, [10, 10]);
    // One subscriber vanishes with what it has in hand; then the service is killed.
    let [first, second] = pair;
    drop(first);
    pipeline.kill();
    drop(second);
    pipeline.run();
    let mut subscriber = Subscriber::join(grpc, "sub", 50).await.unwrap();
    let mut later = HashMap::new();
    let missing = |seen: &HashMap<String, usize>, later: &HashMap<String, usize>| {
        all.iter()
            .filter(|it| !seen.contains_key(*it) && !later.contains_key(*it))
            .count()
    };
    while missing(&seen, &later) > 0 {
        let delivered = subscriber.next().await.unwrap().unwrap();
        *later.entry(reference(&delivered)).or_default() += 1;
        subscriber.done(delivered.number).await;
    }
    // Twice may come what was in hand, or settled and not yet written down.
    let twice = later.keys().filter(|it| seen.contains_key(*it)).count();
    assert!(twice <= 16, "{twice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_waits_for_what_is_in_hand() {
    let (mut pipeline, grpc) = start();
    let mut subscriber = Subscriber::join(grpc, "sub", 1).await.unwrap();
    send(&pipeline, &["LAST", "LATER"]).await;
    let last = subscriber.next().await.unwrap().unwrap();
    pipeline.signal(rustix::process::Signal::TERM);
    until("it is stopping", || !pipeline.is_ready()).await;
    subscriber.done(last.number).await;
    let ended = subscriber.next().await;
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    assert_eq!(pipeline.wait(), Some(0));
    let story = steps(&pipeline, "LAST");
    assert_eq!((story.len(), &story[0]["outcome"]), (1, &"done".into()));
    assert!(
        steps(&pipeline, "LATER").is_empty(),
        "nothing new was taken"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_keep_to_the_contract_is_told_so() {
    let (_pipeline, grpc) = start();
    let join = async |route: &str, credits| {
        let refused = Subscriber::join(grpc, route, credits).await.err().unwrap();
        (refused.code(), refused.message().to_owned())
    };
    assert_eq!(join("sub", 0).await.0, Code::InvalidArgument);
    assert_eq!(join("sub", 1001).await.0, Code::InvalidArgument);
    let (code, said) = join("another", 1).await;
    assert_eq!(code, Code::NotFound);
    assert!(said.contains("dispatcher: subscription"), "{said}");
    let mut subscriber = Subscriber::join(grpc, "sub", 1).await.unwrap();
    subscriber.set_credits(5000).await;
    assert_eq!(
        subscriber.next().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_nobody_could_ask_for_is_refused_at_the_start() {
    let pipeline = Pipeline::prepare(ROUTE);
    let checked = pipeline.command(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("operator.grpc"), "{said}");
}
