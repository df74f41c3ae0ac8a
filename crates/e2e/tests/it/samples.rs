//! `config/integrations`, as it is shipped: what each system gets.

use std::fs;
use std::path::Path;

use axum::http::Response;
use serde_json::{Value, json};
use simulator::api::{Fluent, LOGIN, World};
use simulator::{Events, Shape};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, until};
use crate::sink::{Request, Sink, status};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/integrations");

/// The routes of a sample, but for where their system is.
fn pipeline(sample: &str, sink: &Sink) -> Pipeline {
    pipeline_with(sample, sink, "")
}

/// The same with more of the account: its API.
fn pipeline_with(sample: &str, sink: &Sink, api: &str) -> Pipeline {
    let text = fs::read_to_string(Path::new(FOLDER).join(sample)).unwrap();
    let mut routes = text.split_once("  routes:\n").unwrap().1.to_owned();
    for host in ["warehouse", "carrier", "erp", "shop", "messages"] {
        routes = routes.replace(
            &format!("https://{host}.example.com"),
            &format!("http://{}", sink.address),
        );
    }
    let mut pipeline = Pipeline::prepare("    []\n");
    api.clone_into(&mut pipeline.api);
    pipeline.write_settings(&routes);
    let folder = pipeline.folder.path();
    for file in fs::read_dir(FOLDER)
        .unwrap()
        .map(|file| file.unwrap().path())
    {
        if file
            .extension()
            .is_some_and(|extension| extension == "json" || extension == "graphql")
        {
            fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
    }
    fs::create_dir(folder.join("secrets")).unwrap();
    for name in [
        "warehouse",
        "carrier",
        "erp",
        "messages",
        "shop-signing",
        "fluent",
    ] {
        fs::write(
            folder.join("secrets").join(name),
            "c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
        )
        .unwrap();
    }
    pipeline.run();
    pipeline
}

/// Sends one event, and says what arrived at `path`.
async fn arrived(
    pipeline: &Pipeline,
    sink: &Sink,
    name: &str,
    shape: Shape,
    path: &str,
) -> Request {
    let event = Events::new("ACME", 34, 5).of(name, shape);
    pipeline.accept(&SANDBOX.sign(event.body).unwrap()).await;
    let find = || {
        sink.requests()
            .into_iter()
            .find(|request| request.path == path)
    };
    until("it arrived", || find().is_some()).await;
    find().unwrap()
}

/// What arrived, as JSON.
async fn body(sample: &str, name: &str, shape: Shape, path: &str) -> Value {
    let sink = Sink::open().await;
    let pipeline = pipeline(sample, &sink);
    let request = arrived(&pipeline, &sink, name, shape, path).await;
    serde_json::from_slice(&request.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_gets_requests_and_may_know_them_already() {
    let sink = Sink::answering(|_, _| status(409)).await;
    let pipeline = pipeline("warehouse.yml", &sink);
    let request = arrived(
        &pipeline,
        &sink,
        "FulfilmentRequested",
        Shape::Full,
        "/api/fulfilments",
    )
    .await;
    let found: Value = serde_json::from_slice(&request.body).unwrap();
    let fulfilment = found["fulfilment"].as_str().unwrap();
    assert!(fulfilment.starts_with("FUL_"), "{found}");
    assert_eq!(
        found,
        json!({
            "fulfilment": fulfilment, "order": format!("HD_{fulfilment}"), "kind": "HD_PFDC",
            "retailer": "34", "customer": "Zoë Łukasiewicz 😀"
        })
    );
    assert!(request.header("authorization").starts_with("Basic "));
    let done = || pipeline.json(&["events", "show", fulfilment])[0]["outcomes"][0]["state"].clone();
    until("409 is done", || done() == "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_gets_bookings_labels_and_manifests() {
    let booking = body(
        "carrier.yml",
        "ConsignmentCreated",
        Shape::Full,
        "/v2/bookings",
    )
    .await;
    assert_eq!(booking["service"], "Star Track", "{booking}");
    assert_eq!(booking["account"], "ACME-34");
    let label = body(
        "carrier.yml",
        "ConsignmentBooked",
        Shape::List,
        "/v2/labels",
    )
    .await;
    assert!(
        label["tracking"].as_str().unwrap().starts_with("TRK"),
        "{label}"
    );
    let manifest = body(
        "carrier.yml",
        "ManifestClosed",
        Shape::Thin,
        "/v2/manifests",
    )
    .await;
    assert_eq!(manifest["retailer"], "34", "{manifest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erp_gets_sales_orders_by_its_login_and_no_cancelled_ones() {
    let sink = Sink::answering(|request, _| {
        let token = r#"{"access_token":"t-1","token_type":"bearer","expires_in":"3600"}"#;
        if request.path == "/oauth/token" {
            Response::new(token.into())
        } else {
            status(200)
        }
    })
    .await;
    let pipeline = pipeline("erp.yml", &sink);
    let cancelled =
        br#"{"id":"1","name":"OrderBooked","accountId":"ACME","retailerId":"34","entityStatus":"CANCELLED"}"#;
    pipeline
        .accept(&SANDBOX.sign(cancelled.to_vec()).unwrap())
        .await;
    let request = arrived(
        &pipeline,
        &sink,
        "OrderBooked",
        Shape::Thin,
        "/api/sales-orders",
    )
    .await;
    assert_eq!(
        (request.header("authorization"), request.header("x-company")),
        ("Bearer t-1", "ACME")
    );
    let order: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        (&order["type"], &order["source"]),
        (&json!("UNKNOWN"), &json!("sandbox")),
        "{order}"
    );
    until("the cancelled one is kept", || {
        pipeline
            .json(&["unrouted", "list"])
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .await;
    assert_eq!(
        sink.requests()
            .iter()
            .filter(|request| request.path == "/api/sales-orders")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_gets_signed_cloud_events() {
    let sink = Sink::open().await;
    let pipeline = pipeline("commerce.yml", &sink);
    let request = arrived(
        &pipeline,
        &sink,
        "OrderStatusChange",
        Shape::Full,
        "/hooks/fluent",
    )
    .await;
    let event: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        (&event["specversion"], &event["data"]["name"]),
        (&json!("1.0"), &json!("OrderStatusChange"))
    );
    assert!(request.header("webhook-signature").starts_with("v1,"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_provider_is_told_who_may_come_also_by_a_thin_webhook() {
    for (shape, name) in [
        (Shape::Full, json!("Zoë Łukasiewicz 😀")),
        (Shape::Thin, Value::Null),
    ] {
        let message = body("notification.yml", "OrderReadyForPickup", shape, "/v1/send").await;
        assert_eq!(
            (&message["template"], &message["name"], &message["phone"]),
            (&json!("ready-for-pickup"), &name, &Value::Null)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_written_to_from_a_thin_webhook_and_fluent_hears_of_it() {
    let sink = Sink::answering(|_, _| {
        let mut response = status(200);
        *response.body_mut() = axum::body::Body::from(r#"{"messageId": "M-9"}"#);
        response
    })
    .await;
    let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), LOGIN).unwrap();
    let file = format!("{{ file: {:?} }}", secret.path());
    let api = format!(
        ", api: {{ url: \"{}\", username: {LOGIN}, password: {file}, client-id: {LOGIN}, client-secret: {file} }}",
        fluent.url()
    );
    let pipeline = pipeline_with("pickup.yml", &sink, &api);
    let order = fluent.world().place_order();
    let webhook = fluent.world().webhook("OrderAwaitingCollection", &order);
    pipeline.accept(&SANDBOX.sign(webhook).unwrap()).await;
    until("Fluent hears of it", || fluent.world().posted().len() == 1).await;
    let mail: Value = serde_json::from_slice(&sink.requests()[0].body).unwrap();
    assert_eq!(
        (&mail["to"], &mail["name"]),
        (&json!(order.email), &json!(order.first_name))
    );
    assert_eq!(
        mail["items"][1],
        json!({"ref": "SKU_BLUE_L", "quantity": 2})
    );
    let told = &fluent.world().posted()[0];
    assert_eq!(
        (&told["name"], &told["attributes"]["messageId"]),
        (&json!("CustomerNotified"), &json!("M-9"))
    );
}
