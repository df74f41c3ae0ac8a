//! Events that are posted back, and answers to outcomes.

use std::time::Duration;

use crate::fluent::{dead, fluent, happens, pipeline};
use crate::pipeline::until;
use crate::sink::{Sink, status};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_posted_back_to_the_orders_workflow() {
    let fluent = fluent().await;
    let route = "    - name: label\n      match: { event: OrderBooked }\n      dispatcher: fluent\n      \
                 fluent: { event: \"LabelCreated\", attributes: label.json }\n      \
                 retry: { initial: 100ms, max-delay: 1s }\n";
    let attributes =
        r#"{"trackingNumber": {{ "TRK-" ~ event.entityRef }}, "carrier": "Star Track"}"#;
    fluent.behave(|behaviour| behaviour.fail_next = 1);
    let pipeline = pipeline(&fluent, route, &[("label.json", attributes)]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderBooked", &order).await;
    until("it is there", || !fluent.world().posted().is_empty()).await;
    let now = fluent
        .world()
        .order(&order.entity.id, Duration::ZERO)
        .unwrap();
    assert_eq!(
        now.attributes["trackingNumber"],
        format!("TRK-{}", order.entity.reference)
    );
    assert_eq!(fluent.world().posted()[0]["entityType"], "ORDER");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fluent_was_never_asked_for_uses_up_no_attempts() {
    let fluent = fluent().await;
    let route = "    - name: label\n      match: {}\n      dispatcher: fluent\n      \
                 fluent: { event: LabelCreated }\n      \
                 retry: { initial: 100ms, max-delay: 200ms, attempts: 2 }\n";
    let pipeline = pipeline(&fluent, route, &[]);
    // A secret that is being replaced: nobody can log in.
    let secret = pipeline.folder.path().join("secret");
    let kept = std::fs::read(&secret).unwrap();
    std::fs::remove_file(&secret).unwrap();
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderBooked", &order).await;
    let tries = || pipeline.log().matches("not delivered").count();
    let is_over = || dead(&pipeline) > 0 || tries() >= 3;
    until("it was tried more often than it has attempts", is_over).await;
    assert_eq!(dead(&pipeline), 0);
    std::fs::write(&secret, kept).unwrap();
    until("it is there", || !fluent.world().posted().is_empty()).await;
}

/// A carrier that makes labels, counting its calls, and the route to it.
async fn carrier(told: &str) -> (Sink, String) {
    let sink = Sink::answering(|request, _| {
        let mut response = status(if request.header("ce-type") == "Impossible" {
            422
        } else {
            200
        });
        *response.body_mut() = axum::body::Body::from(r#"{"label": "L-77", "weight": 2.5}"#);
        response
    })
    .await;
    let route = sink.route(
        "carrier",
        &format!("match: {{}}, retry: {{ initial: 100ms, max-delay: 500ms }}, {told}"),
    );
    (sink, route)
}

const LABEL: &str = r#"{"label": {{ outcome.answer.label }}, "status": {{ outcome.status }}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_carriers_label_comes_back_to_the_orders_workflow() {
    let fluent = fluent().await;
    let told = "on-success: { dispatcher: fluent, fluent: { event: LabelCreated, attributes: label.json } }";
    let (sink, route) = carrier(told).await;
    let pipeline = pipeline(&fluent, &route, &[("label.json", LABEL)]);
    // Fluent fails three times: the carrier is not asked for a second label.
    fluent.behave(|behaviour| behaviour.fail_next = 3);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "ConsignmentBooked", &order).await;
    until("it is there", || !fluent.world().posted().is_empty()).await;
    let now = fluent
        .world()
        .order(&order.entity.id, Duration::ZERO)
        .unwrap();
    assert_eq!(
        (&now.attributes["label"], &now.attributes["status"]),
        (&"L-77".into(), &200.into())
    );
    assert_eq!(sink.len(), 1, "one label");
    until("it is done", || {
        pipeline
            .json(&["events", "show", &order.entity.reference])
            .to_string()
            .contains("done")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_told_to_the_orders_workflow() {
    let fluent = fluent().await;
    let told = "on-dead-letter: { dispatcher: fluent, fluent: { event: \"{{ event.name }}Failed\", attributes: why.json } }";
    let (_sink, route) = carrier(told).await;
    let pipeline = pipeline(
        &fluent,
        &route,
        &[("why.json", r#"{"reason": {{ outcome.reason }}}"#)],
    );
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "Impossible", &order).await;
    until("it is given up", || dead(&pipeline) == 1).await;
    assert_eq!(fluent.world().posted()[0]["name"], "ImpossibleFailed");
    assert_eq!(
        fluent.world().posted()[0]["attributes"]["reason"],
        "permanent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fluent_will_never_take_is_a_dead_letter() {
    let fluent = fluent().await;
    let told =
        "on-success: { dispatcher: fluent, fluent: { event: \"\", attributes: label.json } }";
    let (sink, route) = carrier(told).await;
    let pipeline = pipeline(&fluent, &route, &[("label.json", LABEL)]);
    happens(
        &pipeline,
        &fluent,
        "ConsignmentBooked",
        &fluent.world().place_order(),
    )
    .await;
    until("a person sees it", || dead(&pipeline) == 1).await;
    let letters = pipeline.json(&["dead-letters", "list"]).to_string();
    assert!(
        letters.contains("delivered, and nobody was told") && letters.contains("status 400"),
        "{letters}"
    );
    assert_eq!(sink.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_who_is_told_says_is_kept_and_not_logged() {
    let fluent = fluent().await;
    let told = Sink::answering(|_, _| {
        let mut response = status(400);
        *response.body_mut() = axum::body::Body::from("CANARY-told");
        response
    })
    .await;
    let ops = format!(
        "{{ url: \"http://{}/ops\", error-body-bytes: 200 }}",
        told.address
    );
    let on_success = format!("on-success: {{ dispatcher: http, http: {ops} }}");
    let on_dead_letter = format!("on-dead-letter: {{ dispatcher: http, http: {ops} }}");
    let (sink, route) = carrier(&format!("{on_success}, {on_dead_letter}")).await;
    let pipeline = pipeline(&fluent, &route, &[]);
    happens(
        &pipeline,
        &fluent,
        "ConsignmentBooked",
        &fluent.world().place_order(),
    )
    .await;
    happens(
        &pipeline,
        &fluent,
        "Impossible",
        &fluent.world().place_order(),
    )
    .await;
    until("both are given up", || dead(&pipeline) == 2).await;
    assert!(
        pipeline
            .json(&["dead-letters", "list"])
            .to_string()
            .contains("CANARY-told"),
        "a person sees it"
    );
    assert_eq!(
        sink.len(),
        2,
        "nobody is asked again since nobody could be told"
    );
    // Of the one that was delivered, and of both letters; each with a key of its own.
    let keys: Vec<_> = told
        .requests()
        .iter()
        .map(|told| told.header("idempotency-key").to_owned())
        .collect();
    assert_eq!(
        keys.iter()
            .filter(|key| key.ends_with("/on-dead-letter"))
            .count(),
        2,
        "{keys:?}"
    );
    assert_eq!(
        keys.iter()
            .filter(|key| key.ends_with("/on-success"))
            .count(),
        1,
        "{keys:?}"
    );
    let log = pipeline.log();
    assert!(
        log.contains("nobody was told") && !log.contains("CANARY-told"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_effect_and_the_telling_both_come_again_with_the_same_key() {
    let fluent = fluent().await;
    let told = "on-success: { dispatcher: fluent, fluent: { event: LabelCreated, attributes: label.json } }";
    let (sink, route) = carrier(told).await;
    let mut pipeline = pipeline(&fluent, &route, &[("label.json", LABEL)]);
    fluent.behave(|behaviour| behaviour.fail_next = 1_000_000);
    happens(
        &pipeline,
        &fluent,
        "ConsignmentBooked",
        &fluent.world().place_order(),
    )
    .await;
    until("the carrier has made its label", || sink.len() == 1).await;
    pipeline.kill();
    assert!(fluent.world().posted().is_empty());
    fluent.behave(|behaviour| behaviour.fail_next = 0);
    pipeline.run();
    until("Fluent is told", || !fluent.world().posted().is_empty()).await;
    let keys: Vec<_> = sink
        .requests()
        .iter()
        .map(|asked| asked.header("idempotency-key").to_owned())
        .collect();
    assert!(
        keys.len() == 2 && keys[0] == keys[1],
        "the carrier knows it by its key: {keys:?}"
    );
}
