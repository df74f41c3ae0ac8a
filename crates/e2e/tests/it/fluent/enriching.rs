//! What Fluent says rides with the event; what it does not say yet is waited for.

use std::time::Duration;

use e2e::collector::Collector;
use serde_json::Value;
use simulator::api::World;

use crate::fluent::{
    ENRICH, PICKUP, dead, fluent, happens, pipeline, pipeline_with, template_route,
};
use crate::observed::{one, recorded_at};
use crate::pipeline::{SANDBOX, until};
use crate::sink::Sink;

#[tokio::test(flavor = "multi_thread")]
async fn a_thin_webhook_is_delivered_with_what_fluent_says_of_its_order() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let route = template_route(&sink, &format!("{ENRICH} }}"));
    let pipeline = pipeline(&fluent, &route, &[("pickup.json", PICKUP)]);
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderReadyForPickup", &order).await;
    until("it is delivered", || sink.len() == 1).await;
    let mail: Value = serde_json::from_slice(&sink.requests()[0].body).unwrap();
    assert_eq!(mail["to"], order.email);
    assert_eq!(mail["dear"], order.first_name);
    assert_eq!(mail["order"], order.entity.reference);
    assert!(
        !pipeline.log().contains(&order.email),
        "nobody's address is in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_event_has_the_answer_beside_the_event() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let http = format!(
        "http: {{ url: \"http://{}/\", format: structured }}",
        sink.address
    );
    let route =
        format!("    - {{ name: erp, match: {{}}, dispatcher: http, {http}, {ENRICH} }} }}\n");
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
    let fluent = fluent().await;
    let sink = Sink::open().await;
    fluent.behave(|behaviour| {
        behaviour.invisible_for = Duration::from_hours(1);
        behaviour.fail_next = 1;
    });
    let more = format!(
        "{ENRICH} }}, retry: {{ initial: 100ms, max-delay: 300ms, attempts: 2 }}, breaker: {{ failures: 2 }}"
    );
    let pipeline = pipeline(
        &fluent,
        &template_route(&sink, &more),
        &[("pickup.json", PICKUP)],
    );
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderBooked", &order).await;
    let shown = || {
        pipeline
            .json(&["events", "show", &order.entity.reference])
            .to_string()
    };
    let says_why = || shown().contains("C0120E") && shown().contains("S0001E");
    until("its history says why it waits", says_why).await;
    assert!(sink.is_empty());
    fluent.behave(|behaviour| behaviour.invisible_for = Duration::ZERO);
    until("it is delivered", || sink.len() == 1).await;
    // More attempts than the destination may have, and none of them counted against it.
    assert!(
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(!pipeline.log().contains("left alone"), "{}", pipeline.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_never_comes_is_a_dead_letter_after_patience() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let more = format!("{ENRICH}, max-wait: 1s }}, retry: {{ initial: 200ms, max-delay: 300ms }}");
    let pipeline = pipeline(
        &fluent,
        &template_route(&sink, &more),
        &[("pickup.json", PICKUP)],
    );
    let stranger = World::new("ACME", 35).place_order();
    happens(&pipeline, &fluent, "OrderBooked", &stranger).await;
    until("it is given up", || dead(&pipeline) == 1).await;
    let letters = pipeline.json(&["dead-letters", "list"]).to_string();
    assert!(letters.contains("also after 1 s"), "{letters}");
    assert_eq!(sink.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_about_one_order_asks_once() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    fluent.behave(|behaviour| behaviour.latency = Duration::from_millis(50));
    let routes = template_route(&sink, &format!("{ENRICH} }}"));
    let mut pipeline = pipeline(&fluent, &routes, &[("pickup.json", PICKUP)]);
    // Held back, so that they come together.
    assert!(
        pipeline
            .command(&["routes", "pause", "pickup"])
            .status
            .success()
    );
    // From then on nothing begins: the time is the promise.
    tokio::time::sleep(queue::PAUSES_WITHIN).await;
    let order = fluent.world().place_order();
    for number in 0..20 {
        happens(&pipeline, &fluent, &format!("Order{number}"), &order).await;
    }
    assert!(
        pipeline
            .command(&["routes", "resume", "pickup"])
            .status
            .success()
    );
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
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let guard =
        "freshness: { status: orderById.status, updated: orderById.updatedOn, outdated: skip }";
    let more = format!("{ENRICH}, {guard} }}, retry: {{ initial: 100ms, max-delay: 200ms }}");
    let pipeline = pipeline(
        &fluent,
        &template_route(&sink, &more),
        &[("pickup.json", PICKUP)],
    );
    let order = fluent.world().place_order();
    assert!(
        pipeline
            .command(&["routes", "pause", "pickup"])
            .status
            .success()
    );
    let mut body: Value =
        serde_json::from_slice(&fluent.world().webhook("OrderBooked", &order)).unwrap();
    body["entityStatus"] = "BOOKED".into();
    pipeline
        .accept(&SANDBOX.sign(body.to_string()).unwrap())
        .await;
    fluent.world().advance(&order.entity.id, "CANCELLED");
    body["entityStatus"] = "CANCELLED".into();
    body["name"] = "OrderCancelled".into();
    pipeline
        .accept(&SANDBOX.sign(body.to_string()).unwrap())
        .await;
    assert!(
        pipeline
            .command(&["routes", "resume", "pickup"])
            .status
            .success()
    );
    until("the second is delivered", || sink.len() == 1).await;
    until("the first is done with", || {
        pipeline
            .json(&["events", "show", &order.entity.reference])
            .to_string()
            .contains("has moved on")
    })
    .await;
    assert_eq!(sink.requests()[0].header("ce-type"), "OrderCancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_pauses_what_asks_and_nothing_else() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    // One at a time: what is under way together is refused together.
    let asking = template_route(&sink, &format!("{ENRICH} }}, concurrency: 1"));
    let plain = sink.route("plain", "match: {}");
    let pipeline = pipeline(
        &fluent,
        &format!("{asking}{plain}"),
        &[("pickup.json", PICKUP)],
    );
    fluent.behave(|behaviour| behaviour.rate_limit = Some((1, Duration::from_secs(60))));
    for _ in 0..5 {
        happens(
            &pipeline,
            &fluent,
            "OrderBooked",
            &fluent.world().place_order(),
        )
        .await;
    }
    until("one of them, and all of the other route", || {
        sink.len() == 6
    })
    .await;
    until("the rest waits as long as Fluent says", || {
        let deliveries = pipeline.json(&["routes", "list"]).to_string();
        deliveries.contains("\"waiting\":4")
    })
    .await;
    assert_eq!(fluent.calls().limited, 1, "it is not asked again before");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_is_a_part_of_the_attempt_in_the_events_trace() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let collector = Collector::open().await;
    let route = template_route(&sink, &format!("{ENRICH} }}"));
    let pipeline = pipeline_with(
        &fluent,
        &route,
        &[("pickup.json", PICKUP)],
        recorded_at(collector.grpc),
    );
    happens(
        &pipeline,
        &fluent,
        "OrderBooked",
        &fluent.world().place_order(),
    )
    .await;
    until("it is recorded", || {
        collector
            .spans()
            .iter()
            .any(|span| span.name == "ask Fluent")
    })
    .await;
    until("so is its attempt", || {
        collector.spans().iter().any(|span| span.name == "attempt")
    })
    .await;
    let spans = collector.spans();
    let asked = one(&spans, "ask Fluent");
    let attempt = one(&spans, "attempt");
    assert_eq!((&asked.parent, &asked.trace), (&attempt.id, &attempt.trace));
    assert!(!asked.has_failed, "{asked:?}");
}
