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
                 retry: { first: 100ms, ceiling: 1s }\n";
    let attributes = r#"{"trackingNumber": {{ "TRK-" ~ event.entityRef }}, "carrier": "Star Track"}"#;
    fluent.behave(|behaviour| behaviour.fail_next = 1);
    let pipeline = pipeline(&fluent, route, &[("label.json", attributes)]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderBooked", &order).await;
    until("it is there", || !fluent.world().posted().is_empty()).await;
    let now = fluent.world().order(&order.entity.id, Duration::ZERO).unwrap();
    assert_eq!(now.attributes["trackingNumber"], format!("TRK-{}", order.entity.reference));
    assert_eq!(fluent.world().posted()[0]["entityType"], "ORDER");
}

/// A carrier that makes labels, counting its calls, and the route to it.
async fn carrier(told: &str) -> (Sink, String) {
    let sink = Sink::answering(|request, _| {
        let mut response = status(if request.header("ce-type") == "Impossible" { 422 } else { 200 });
        *response.body_mut() = axum::body::Body::from(r#"{"label": "L-77", "weight": 2.5}"#);
        response
    })
    .await;
    let route =
        sink.route("carrier", &format!("match: {{}}, retry: {{ first: 100ms, ceiling: 500ms }}, {told}"));
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
    let now = fluent.world().order(&order.entity.id, Duration::ZERO).unwrap();
    assert_eq!((&now.attributes["label"], &now.attributes["status"]), (&"L-77".into(), &200.into()));
    assert_eq!(sink.len(), 1, "one label");
    until("it is done", || {
        pipeline.json(&["events", "show", &order.entity.reference]).to_string().contains("done")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_told_to_the_orders_workflow() {
    let fluent = fluent().await;
    let told = "on-dead-letter: { dispatcher: fluent, fluent: { event: \"{{ event.name }}Failed\", attributes: why.json } }";
    let (_sink, route) = carrier(told).await;
    let pipeline = pipeline(&fluent, &route, &[("why.json", r#"{"reason": {{ outcome.reason }}}"#)]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "Impossible", &order).await;
    until("it is given up", || dead(&pipeline) == 1).await;
    assert_eq!(fluent.world().posted()[0]["name"], "ImpossibleFailed");
    assert_eq!(fluent.world().posted()[0]["attributes"]["reason"], "permanent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fluent_will_never_take_is_a_dead_letter() {
    let fluent = fluent().await;
    let told = "on-success: { dispatcher: fluent, fluent: { event: \"\", attributes: label.json } }";
    let (sink, route) = carrier(told).await;
    let pipeline = pipeline(&fluent, &route, &[("label.json", LABEL)]);
    happens(&pipeline, &fluent, "ConsignmentBooked", &fluent.world().place_order()).await;
    until("a person sees it", || dead(&pipeline) == 1).await;
    let letters = pipeline.json(&["dead-letters", "list"]).to_string();
    assert!(
        letters.contains("delivered, and nobody was told") && letters.contains("status 400"),
        "{letters}"
    );
    assert_eq!(sink.len(), 1);
}
