//! Tests with a real server.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DirectGetError};
use dispatch::{
    Context, DispatchError, Dispatcher, Done, Event, OpenContext, TraceParent, TraceState,
};
use fluent_dispatch_nats::NatsDispatcher;
use futures::StreamExt;
use nats_server::{Cluster, Options};
use serde_json::json;
use settings::SettingsTree;

async fn open(servers: &Cluster) -> NatsDispatcher {
    let settings = json!({ "servers": servers.urls(), "subject": "shop.{account}.{event}" });
    let settings = serde_json::from_value(settings).unwrap();
    NatsDispatcher::open(settings, &OpenContext::new("r", "."))
        .await
        .unwrap()
}

/// Dispatches again until there is a connection.
async fn patiently(dispatcher: &NatsDispatcher, event: &Event) -> Result<Done, DispatchError> {
    for _ in 0..1200 {
        match dispatch(dispatcher, event).await {
            Err(error)
                if std::error::Error::source(&error).unwrap().to_string() == "no connection" =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answer => return answer,
        }
    }
    dispatch(dispatcher, event).await
}

async fn dispatch(dispatcher: &NatsDispatcher, event: &Event) -> Result<Done, DispatchError> {
    let cx = Context::new("r", event.id().to_string(), Duration::from_secs(10));
    dispatcher.dispatch(event, &cx).await
}

fn stream(servers: &Cluster) -> impl Future<Output = jetstream::Context> {
    let urls = servers.urls();
    async { jetstream::new(async_nats::connect(urls).await.unwrap()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_stored_once_as_a_cloud_event() {
    let servers = Cluster::start(1, &Options::default()).unwrap();
    let dispatcher = open(&servers).await;
    let event = dispatch::testing::event("OrderStatusChange", "HD_1");
    let nobody = patiently(&dispatcher, &event).await;
    assert!(
        matches!(nobody, Err(DispatchError::Transient { .. })),
        "no stream has stored it: {nobody:?}"
    );

    let shop = Config {
        name: "SHOP".to_owned(),
        subjects: vec!["shop.>".to_owned()],
        allow_direct: true,
        ..Config::default()
    };
    let stream = stream(&servers).await.create_stream(shop).await.unwrap();
    for _ in 0..2 {
        dispatch(&dispatcher, &event).await.unwrap();
    }
    let stored = stream.direct_get(1).await.unwrap();
    assert_eq!(stored.subject.as_str(), "shop.ACME.OrderStatusChange");
    assert_eq!(stored.payload, *event.body(), "the signed bytes, unchanged");
    let header = |name: &str| stored.headers.get(name).unwrap().to_string();
    assert_eq!(
        (header("ce-id"), header("ce-type")),
        (event.id().to_string(), "OrderStatusChange".to_owned())
    );
    assert!(
        stored.headers.get("fluent-signature").is_none(),
        "whoever holds it could replay it"
    );
    let second: Result<_, DirectGetError> = stream.direct_get(2).await;
    assert!(second.is_err(), "the same event is stored once");
    let mut cx = Context::new("another", event.id().to_string(), Duration::from_secs(10));
    cx.trace = TraceParent::new(1, 2, true);
    cx.trace_state = TraceState::read([&b"rojo=1"[..]]);
    dispatcher.dispatch(&event, &cx).await.unwrap();
    let besides = stream.direct_get(2).await.expect("another route's besides");
    let header = |name: &str| besides.headers.get(name).unwrap().to_string();
    assert_eq!(
        (header("traceparent"), header("tracestate")),
        (cx.trace.unwrap().to_string(), "rojo=1".to_owned())
    );
    dispatcher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_it_has_it_whatever_else_it_answers() {
    let servers = Cluster::start(1, &Options::default()).unwrap();
    let dispatcher = open(&servers).await;
    let event = dispatch::testing::event("E", "HD_1");
    let answers = async_nats::connect(servers.urls()).await.unwrap();
    let mut published = answers.subscribe("shop.>").await.unwrap();
    answers.flush().await.unwrap();
    let mut answer = async |bytes: Vec<u8>| {
        let dispatching = patiently(&dispatcher, &event);
        let answering = async {
            let reply = published.next().await.unwrap().reply.unwrap();
            answers.publish(reply, bytes.into()).await.unwrap();
            answers.flush().await.unwrap();
        };
        futures::join!(dispatching, answering).0
    };
    let large = format!(
        r#"{{"more":"{}","stream":"SHOP","seq":7}}"#,
        "x".repeat(500_000)
    );
    assert_eq!(answer(large.into()).await.unwrap().remark, None);
    let odd = answer(br#"{"stream":"SHOP","seq":7,"duplicate":"yes","dom"#.to_vec())
        .await
        .unwrap();
    assert!(odd.remark.is_some(), "{odd:?}");
    for bad in [
        r#"{"error":{"code":503},"stream":"SHOP","seq":0}"#,
        "",
        "+OK",
    ] {
        let error = answer(bad.into()).await;
        assert!(
            matches!(error, Err(DispatchError::Transient { .. })),
            "{bad}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_waited_for() {
    let mut servers = Cluster::start(1, &Options::default()).unwrap();
    let shop = Config {
        name: "SHOP".to_owned(),
        subjects: vec!["shop.>".to_owned()],
        ..Config::default()
    };
    stream(&servers).await.create_stream(shop).await.unwrap();
    servers.kill_all();
    let dispatcher = open(&servers).await;
    let event = dispatch::testing::event("E", "HD_1");
    let away = dispatch(&dispatcher, &event).await;
    assert!(
        matches!(away, Err(DispatchError::Transient { .. })),
        "{away:?}"
    );
    servers.start_all().unwrap();
    while dispatch(&dispatcher, &event).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn the_sample_route_is_right() {
    let registry = dispatcher::registry().with::<NatsDispatcher>();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("route.yml");
    let routes = SettingsTree::load(&sample, std::iter::empty())
        .unwrap()
        .routes(Some(&registry))
        .unwrap();
    assert_eq!(routes.0[0].dispatcher, "nats");
}
