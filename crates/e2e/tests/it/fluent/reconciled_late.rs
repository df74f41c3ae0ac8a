//! Webhooks that come while, or after, their events are taken from Fluent's log: no second effect.

use std::time::Duration;

use serde_json::Value;
use simulator::api::Sending;

use super::reconciling::{ALL, BOTH, arrived, field, minutes, reconcile, settled, webhook};
use crate::fluent::{dead, fluent, pipeline_with};
use crate::pipeline::until;
use crate::sink::{Sink, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_comes_late_is_not_a_second_effect() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let audit = sink.route("audit", "match: {}");
    let routes = format!("{}{audit}", sink.route("r", BOTH));
    let pipeline = pipeline_with(&fluent, &routes, &[], reconcile(""));
    let late = webhook(&fluent, minutes(5), Sending::Failed);
    assert_eq!(
        pipeline.json(&[&ALL[..], &["--yes"]].concat())["counts"]["admitted"],
        1
    );
    until("it is delivered", || sink.len() == 1).await;
    // Fluent tries again after an hour, and gets through.
    pipeline.accept(&late).await;
    let events = || pipeline.json(&["events", "show", &field(&late.body, "entityRef")]);
    until("it is settled", || {
        events().to_string().matches("\"done\"").count() >= 5
    })
    .await;
    assert!(
        events()
            .to_string()
            .contains("delivered before, as what was reconciled or came late"),
        "{}",
        events()
    );
    let paths: Vec<_> = sink
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(
        paths,
        ["/r", "/audit"],
        "who takes webhooks alone gets it now"
    );
    assert_eq!(
        pipeline.json(&[&ALL[..], &["--yes"]].concat())["counts"]["missing"],
        0
    );
    // Whoever wants the whole webhook there says so.
    let replayed = pipeline.json(&["replay", "--route", "r", "--from", "1h", "--again", "--yes"]);
    assert_eq!(replayed["succeeded"], 2, "{replayed}");
    let is_whole = || {
        sink.requests()
            .iter()
            .any(|one| one.path == "/r" && one.header("fluent-origin") == "webhook")
    };
    until("the webhook is there too", is_whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_given_up_for_the_webhook_that_came() {
    let fluent = fluent().await;
    let sink = Sink::answering(|request, _| match request.header("fluent-origin") {
        "reconciled" => status(503),
        _ => status(200),
    })
    .await;
    let retry = "retry: { initial: 200ms, max-delay: 300ms, max-elapsed: 1h }";
    let pipeline = pipeline_with(
        &fluent,
        &sink.route("r", &format!("{BOTH}, {retry}")),
        &[],
        reconcile(""),
    );
    let late = webhook(&fluent, minutes(5), Sending::Failed);
    assert_eq!(
        pipeline.json(&[&ALL[..], &["--yes"]].concat())["counts"]["admitted"],
        1
    );
    until("it was tried in vain", || sink.len() >= 2).await;
    pipeline.accept(&late).await;
    let events = || {
        pipeline
            .json(&["events", "show", &field(&late.body, "entityRef")])
            .to_string()
    };
    until("both are done", || {
        events().matches("\"done\"").count() >= 4
    })
    .await;
    settled(&pipeline).await;
    let delivered = sink
        .requests()
        .iter()
        .filter(|one| one.header("fluent-origin") == "webhook")
        .count();
    assert_eq!((delivered, dead(&pipeline)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_not_redriven_over_the_webhook_that_came() {
    let fluent = fluent().await;
    let sink = Sink::answering(|request, _| match request.header("fluent-origin") {
        "reconciled" => status(422),
        _ => status(200),
    })
    .await;
    let pipeline = pipeline_with(&fluent, &sink.route("r", BOTH), &[], reconcile(""));
    let late = webhook(&fluent, minutes(5), Sending::Failed);
    assert_eq!(
        pipeline.json(&[&ALL[..], &["--yes"]].concat())["counts"]["admitted"],
        1
    );
    until("it is refused for good", || dead(&pipeline) == 1).await;
    pipeline.accept(&late).await;
    until("the webhook is delivered", || sink.len() == 2).await;
    settled(&pipeline).await;
    let redriven = pipeline.json(&["dead-letters", "redrive", "--all", "--yes"]);
    assert_eq!(redriven["succeeded"], 1, "{redriven}");
    until("it is settled", || {
        pipeline
            .json(&["events", "show", "CC_1001"])
            .to_string()
            .contains("delivered before")
    })
    .await;
    assert_eq!(
        (sink.len(), dead(&pipeline)),
        (2, 0),
        "nobody is asked once more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_it_is_compared_is_not_admitted_too() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let pipeline = pipeline_with(&fluent, &sink.route("r", BOTH), &[], reconcile(""));
    let late = webhook(&fluent, minutes(5), Sending::Failed);
    // Slow enough to come between: four slices of the log, then what was sent, then it again.
    fluent.behave(|behaviour| behaviour.latency = Duration::from_secs(2));
    let config = pipeline.config();
    let args = [&ALL[..], &["--yes", "--json"]].concat();
    let reconciling = std::thread::spawn({
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        move || {
            crate::pipeline::command(
                &config,
                &args.iter().map(String::as_str).collect::<Vec<_>>(),
            )
        }
    });
    until("it is known to be missing", || fluent.calls().searches >= 5).await;
    pipeline.accept(&late).await;
    let output = reconciling.join().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["counts"]["admitted"], &said["counts"]["received"]),
        (&0.into(), &1.into()),
        "{said}"
    );
    settled(&pipeline).await;
    let origins: Vec<_> = sink
        .requests()
        .iter()
        .map(|one| one.header("fluent-origin").to_owned())
        .collect();
    assert_eq!(origins, ["webhook"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_admit_each_event_once() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let pipeline = pipeline_with(&fluent, &sink.route("r", BOTH), &[], reconcile(""));
    (0..40).for_each(|_| drop(webhook(&fluent, minutes(5), Sending::Failed)));
    let run = |config: std::path::PathBuf| {
        let args = [&ALL[..], &["--yes"]].concat();
        std::thread::spawn(move || crate::pipeline::command(&config, &args))
    };
    let both = [run(pipeline.config()), run(pipeline.config())];
    for one in both {
        let output = one.join().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    until("all are delivered", || arrived(&sink).len() == 40).await;
    settled(&pipeline).await;
    assert!(arrived(&sink).values().all(|count| *count == 1));
}
