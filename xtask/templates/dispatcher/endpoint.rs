//! Against an endpoint of our own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use dispatch::{Context, DispatchError, Dispatcher, Done, OpenContext};
use fluent_dispatch___snake__::__Name__Dispatcher;
use serde_json::json;
use settings::SettingsTree;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// Answers one connection with this, and returns what it read.
async fn dispatch(answer: &'static str) -> (Result<Done, DispatchError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "it is awaited")]
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        line
    });
    let settings = serde_json::from_value(json!({ "server": server })).unwrap();
    let dispatcher = __Name__Dispatcher::open(settings, &OpenContext::new("r", ".")).await.unwrap();
    let event = dispatch::testing::event("OrderStatusChange", "HD_1");
    let cx = Context::new("r", event.id().to_string(), Duration::from_secs(5));
    (dispatcher.dispatch(&event, &cx).await, endpoint.await.unwrap())
}

#[tokio::test]
async fn the_endpoint_decides() {
    let id = dispatch::testing::event("OrderStatusChange", "HD_1").id();
    let (answer, line) = dispatch("ok\n").await;
    assert_eq!(answer.unwrap(), Done::default());
    assert_eq!(line, format!("{id} OrderStatusChange ORDER/HD_1\n"));
    assert!(matches!(dispatch("no\n").await.0, Err(DispatchError::Permanent { .. })));
    assert!(matches!(dispatch("").await.0, Err(DispatchError::Transient { .. })));
}

#[test]
fn the_sample_route_is_right() {
    let registry = dispatcher::registry().with::<__Name__Dispatcher>();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("route.yml");
    let routes = SettingsTree::load(&sample, std::iter::empty()).unwrap().routes(Some(&registry)).unwrap();
    assert_eq!(routes.0[0].dispatcher, "__name__");
}
