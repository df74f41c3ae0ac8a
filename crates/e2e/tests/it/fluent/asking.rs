//! Confirmation, and a Fluent that is asked wrongly or is away.

use std::fs;

use serde_json::Value;
use simulator::api::{Fluent, LOGIN};

use crate::fluent::{ENRICH, PICKUP, QUERY, dead, fluent, happens, pipeline, template_route};
use crate::pipeline::{Pipeline, SANDBOX, until};
use crate::sink::{Sink, status};

#[tokio::test(flavor = "multi_thread")]
async fn what_fluent_does_not_confirm_is_not_delivered() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let pipeline = pipeline(
        &fluent,
        &sink.route("refund", "match: {}, entity-check: fluent"),
        &[],
    );
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "RefundDue", &order).await;
    until("the genuine one is delivered", || sink.len() == 1).await;
    // Signed by the platform, and written by somebody else: another order's ref.
    let mut forged: Value =
        serde_json::from_slice(&fluent.world().webhook("RefundDue", &order)).unwrap();
    forged["entityRef"] = "CC_SOMEBODY_ELSES".into();
    pipeline
        .accept(&SANDBOX.sign(forged.to_string()).unwrap())
        .await;
    until("the other is kept", || dead(&pipeline) == 1).await;
    let letters = pipeline.json(&["dead-letters", "list"]).to_string();
    assert!(letters.contains("does not confirm it"), "{letters}");
    assert_eq!(sink.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_query_is_said_at_the_start() {
    let fluent = fluent().await;
    let route = |more: &str| format!("    - {{ name: r, match: {{}}, dispatcher: log, {more} }}\n");
    let said = |routes: &str, has_api: bool| {
        let mut pipeline = Pipeline::prepare("    []\n");
        for (name, text) in [
            ("secret", LOGIN),
            ("order.graphql", QUERY),
            ("bad.graphql", "query {\n  order(\n}"),
        ] {
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
    assert!(
        bad.contains("bad.graphql: line 3, column 1: expected GraphQL"),
        "{bad}"
    );
    let missing = said(&route("enrich: { query: order.graphql }"), true);
    assert!(missing.contains("needs the variable `$id`"), "{missing}");
    let nobody = said(&route("entity-check: fluent"), false);
    assert!(
        nobody.contains("expected `api` in one of the accounts"),
        "{nobody}"
    );
    let typo = said(
        &route("enrich: { query: order.graphql, variable: {} }"),
        true,
    );
    assert!(typo.contains("did you mean `variables`?"), "{typo}");
    assert_eq!(fluent.calls().logins, 0, "nobody is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn fluent_may_be_away_for_a_while() {
    let sink = Sink::answering(|_, _| status(200)).await;
    let fluent = fluent().await;
    let more = format!("{ENRICH} }}, retry: {{ initial: 100ms, max-delay: 500ms }}");
    let pipeline = pipeline(
        &fluent,
        &template_route(&sink, &more),
        &[("pickup.json", PICKUP)],
    );
    let order = fluent.world().place_order();
    let url = fluent.url();
    let world = fluent.world().clone();
    let body = world.webhook("OrderBooked", &order);
    drop(fluent);
    pipeline.accept(&SANDBOX.sign(body).unwrap()).await;
    until("it is tried in vain", || {
        pipeline.log().contains("can't be reached")
    })
    .await;
    let address = url.trim_start_matches("http://").parse().unwrap();
    let _back = Fluent::open(address, world).await.unwrap();
    until("it is delivered", || sink.len() == 1).await;
}
