//! Fluent's own API, answered by a Fluent of our own: what a route asks before it
//! delivers, and what it posts back.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use simulator::api::{Fluent, LOGIN, Order, World};

use crate::pipeline::{Pipeline, SANDBOX, until};
use crate::sink::{Sink, status};

const QUERY: &str =
    "query ($id: ID!) { orderById(id: $id) { ref status updatedOn customer { firstName primaryEmail } } }";

const ENRICH: &str = "enrich: { query: order.graphql, variables: { id: \"{{ event.entityId }}\" }";

async fn fluent() -> Fluent {
    Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34)).await.unwrap()
}

/// A pipeline whose first account has an API, with these files beside its settings.
fn pipeline(fluent: &Fluent, routes: &str, files: &[(&str, &str)]) -> Pipeline {
    let mut pipeline = Pipeline::prepare("    []\n");
    for (name, text) in [("secret", LOGIN), ("order.graphql", QUERY)].iter().chain(files) {
        fs::write(pipeline.folder.path().join(name), text).unwrap();
    }
    pipeline.api = format!(
        ", api: {{ url: \"{}\", username: {LOGIN}, password: {{ file: secret }}, client-id: {LOGIN}, client-secret: {{ file: secret }}, per-second: 1000 }}",
        fluent.url()
    );
    pipeline.write_settings(routes);
    pipeline.run();
    pipeline
}

async fn happens(pipeline: &Pipeline, fluent: &Fluent, name: &str, order: &Order) {
    pipeline.accept(&SANDBOX.sign(fluent.world().webhook(name, order)).unwrap()).await;
}

fn template_route(sink: &Sink, more: &str) -> String {
    let http = format!(
        "http: {{ url: \"http://{}/\", template: {{ file: pickup.json, content-type: application/json }} }}",
        sink.address
    );
    format!("    - {{ name: pickup, match: {{}}, dispatcher: http, {http}, {more} }}\n")
}

const PICKUP: &str = r#"{"to": {{ enriched.orderById.customer.primaryEmail }}, "dear": {{ enriched.orderById.customer.firstName }}, "order": {{ event.entityRef }}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_thin_webhook_is_delivered_with_what_fluent_says_of_its_order() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    let route = template_route(&sink, &format!("{ENRICH} }}"));
    let pipeline = pipeline(&fluent, &route, &[("pickup.json", PICKUP)]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderReadyForPickup", &order).await;
    until("it is delivered", || sink.len() == 1).await;
    let mail: Value = serde_json::from_slice(&sink.requests()[0].body).unwrap();
    assert_eq!(mail["to"], order.email);
    assert_eq!(mail["dear"], order.first_name);
    assert_eq!(mail["order"], order.entity.reference);
    assert!(!pipeline.log().contains(&order.email), "nobody's address is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_event_has_the_answer_beside_the_event() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    let http = format!("http: {{ url: \"http://{}/\", format: structured }}", sink.address);
    let route = format!("    - {{ name: erp, match: {{}}, dispatcher: http, {http}, {ENRICH} }} }}\n");
    let pipeline = pipeline(&fluent, &route, &[]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderBooked", &order).await;
    until("it is delivered", || sink.len() == 1).await;
    let event: Value = serde_json::from_slice(&sink.requests()[0].body).unwrap();
    assert_eq!(event["data"]["event"]["entityRef"], order.entity.reference);
    assert_eq!(event["data"]["enriched"]["orderById"]["status"], "BOOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_is_not_there_yet_is_waited_for() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    fluent.behave(|behaviour| {
        behaviour.invisible_for = Duration::from_millis(1500);
        behaviour.fail_next = 1;
    });
    let more = format!(
        "{ENRICH} }}, retry: {{ first: 100ms, ceiling: 300ms, attempts: 2 }}, breaker: {{ failures: 2 }}"
    );
    let pipeline = pipeline(&fluent, &template_route(&sink, &more), &[("pickup.json", PICKUP)]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderBooked", &order).await;
    until("it is delivered", || sink.len() == 1).await;
    let shown = pipeline.json(&["events", "show", &order.entity.reference]).to_string();
    assert!(shown.contains("C0120E") && shown.contains("S0001E"), "its history says why it waited: {shown}");
    // More attempts than the destination may have, and none of them counted against it.
    assert!(pipeline.json(&["dead-letters", "list"]).as_array().unwrap().is_empty());
    assert!(!pipeline.log().contains("left alone"), "{}", pipeline.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_never_comes_is_a_dead_letter_after_patience() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    let more = format!("{ENRICH}, patience: 1s }}, retry: {{ first: 200ms, ceiling: 300ms }}");
    let pipeline = pipeline(&fluent, &template_route(&sink, &more), &[("pickup.json", PICKUP)]);
    let stranger = World::new("ACME", 35).place_order();
    happens(&pipeline, &fluent, "OrderBooked", &stranger).await;
    until("it is given up", || dead(&pipeline) == 1).await;
    let letters = pipeline.json(&["dead-letters", "list"]).to_string();
    assert!(letters.contains("also after 1 s"), "{letters}");
    assert_eq!(sink.len(), 0);
}

fn dead(pipeline: &Pipeline) -> usize {
    pipeline.json(&["dead-letters", "list"]).as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_about_one_order_asks_once() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    fluent.behave(|behaviour| behaviour.latency = Duration::from_millis(50));
    let routes = template_route(&sink, &format!("{ENRICH} }}"));
    let mut pipeline = pipeline(&fluent, &routes, &[("pickup.json", PICKUP)]);
    // Held back, so that they come together.
    assert!(pipeline.command(&["routes", "pause", "pickup"]).status.success());
    let order = fluent.world().place_order();
    for number in 0..20 {
        happens(&pipeline, &fluent, &format!("Order{number}"), &order).await;
    }
    assert!(pipeline.command(&["routes", "resume", "pickup"]).status.success());
    until("all are delivered", || sink.len() == 20).await;
    assert_eq!(fluent.calls().queries, 1);
    // What came after the answer is asked about anew.
    fluent.world().advance(&order.entity.id, "COMPLETE");
    happens(&pipeline, &fluent, "OrderCompleted", &order).await;
    until("that too", || sink.len() == 21).await;
    assert_eq!((fluent.calls().queries, fluent.calls().logins), (2, 1));
    assert_eq!(pipeline.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_entity_has_moved_on_is_skipped_where_the_route_says_so() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    let guard = "guard: { status: orderById.status, updated: orderById.updatedOn, moved-on: skip }";
    let more = format!("{ENRICH}, {guard} }}, retry: {{ first: 100ms, ceiling: 200ms }}");
    let pipeline = pipeline(&fluent, &template_route(&sink, &more), &[("pickup.json", PICKUP)]);
    let order = fluent.world().place_order();
    assert!(pipeline.command(&["routes", "pause", "pickup"]).status.success());
    let mut body: Value = serde_json::from_slice(&fluent.world().webhook("OrderBooked", &order)).unwrap();
    body["entityStatus"] = "BOOKED".into();
    pipeline.accept(&SANDBOX.sign(body.to_string()).unwrap()).await;
    fluent.world().advance(&order.entity.id, "CANCELLED");
    body["entityStatus"] = "CANCELLED".into();
    body["name"] = "OrderCancelled".into();
    pipeline.accept(&SANDBOX.sign(body.to_string()).unwrap()).await;
    assert!(pipeline.command(&["routes", "resume", "pickup"]).status.success());
    until("the second is delivered", || sink.len() == 1).await;
    until("the first is done with", || {
        pipeline.json(&["events", "show", &order.entity.reference]).to_string().contains("has moved on")
    })
    .await;
    assert_eq!(sink.requests()[0].header("ce-type"), "OrderCancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_pauses_what_asks_and_nothing_else() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    let asking = template_route(&sink, &format!("{ENRICH} }}"));
    let plain = sink.route("plain", "match: {}");
    let pipeline = pipeline(&fluent, &format!("{asking}{plain}"), &[("pickup.json", PICKUP)]);
    fluent.behave(|behaviour| behaviour.rate_limit = Some((1, Duration::from_secs(60))));
    for _ in 0..5 {
        happens(&pipeline, &fluent, "OrderBooked", &fluent.world().place_order()).await;
    }
    until("one of them, and all of the other route", || sink.len() == 6).await;
    until("the rest waits as long as Fluent says", || {
        let deliveries = pipeline.json(&["routes", "list"]).to_string();
        deliveries.contains("\"waiting\":4")
    })
    .await;
    assert_eq!(fluent.calls().limited, 1, "it is not asked again before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fluent_does_not_confirm_is_not_delivered() {
    let (fluent, sink) = (fluent().await, Sink::open().await);
    let pipeline = pipeline(&fluent, &sink.route("refund", "match: {}, confirm: fluent"), &[]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "RefundDue", &order).await;
    until("the genuine one is delivered", || sink.len() == 1).await;
    // Signed by the platform, and written by somebody else: another order's ref.
    let mut forged: Value = serde_json::from_slice(&fluent.world().webhook("RefundDue", &order)).unwrap();
    forged["entityRef"] = "CC_SOMEBODY_ELSES".into();
    pipeline.accept(&SANDBOX.sign(forged.to_string()).unwrap()).await;
    until("the other is kept", || dead(&pipeline) == 1).await;
    let letters = pipeline.json(&["dead-letters", "list"]).to_string();
    assert!(letters.contains("does not confirm it"), "{letters}");
    assert_eq!(sink.len(), 1);
}

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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_query_is_said_at_the_start() {
    let fluent = fluent().await;
    let route = |more: &str| format!("    - {{ name: r, match: {{}}, dispatcher: log, {more} }}\n");
    let said = |routes: &str, has_api: bool| {
        let mut pipeline = Pipeline::prepare("    []\n");
        for (name, text) in
            [("secret", LOGIN), ("order.graphql", QUERY), ("bad.graphql", "query {\n  order(\n}")]
        {
            fs::write(pipeline.folder.path().join(name), text).unwrap();
        }
        if has_api {
            pipeline.api = format!(
                ", api: {{ url: \"{}\", username: u, password: {{ file: secret }}, client-id: c, client-secret: {{ file: secret }} }}",
                fluent.url()
            );
        }
        pipeline.write_settings(routes);
        let output = pipeline.command(&["check"]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let bad = said(&route("enrich: { query: bad.graphql }"), true);
    assert!(bad.contains("bad.graphql: line 3, column 1: expected GraphQL"), "{bad}");
    let missing = said(&route("enrich: { query: order.graphql }"), true);
    assert!(missing.contains("needs the variable `$id`"), "{missing}");
    let nobody = said(&route("confirm: fluent"), false);
    assert!(nobody.contains("expected `api` in one of the accounts"), "{nobody}");
    let typo = said(&route("enrich: { query: order.graphql, variable: {} }"), true);
    assert!(typo.contains("did you mean `variables`?"), "{typo}");
    assert_eq!(fluent.calls().logins, 0, "nobody is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn fluent_may_be_away_for_a_while() {
    let sink = Sink::answering(|_, _| status(200)).await;
    let fluent = fluent().await;
    let more = format!("{ENRICH} }}, retry: {{ first: 100ms, ceiling: 500ms }}");
    let pipeline = pipeline(&fluent, &template_route(&sink, &more), &[("pickup.json", PICKUP)]);
    let (order, url) = (fluent.world().place_order(), fluent.url());
    let world = fluent.world().clone();
    let body = world.webhook("OrderBooked", &order);
    drop(fluent);
    pipeline.accept(&SANDBOX.sign(body).unwrap()).await;
    until("it is tried in vain", || pipeline.log().contains("can't be reached")).await;
    let address = url.trim_start_matches("http://").parse().unwrap();
    let _back = Fluent::open(address, world).await.unwrap();
    until("it is delivered", || sink.len() == 1).await;
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
