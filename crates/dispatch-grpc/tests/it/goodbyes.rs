//! A server that says goodbye to every connection soon, as one with a largest age of them
//! does: nobody loses an attempt by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dispatch::{AnyDispatcher, Dispatcher};
use fluent_dispatch_grpc::Server;
use process::Shutdown;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::transport;

use crate::handler::{Handler, cx, event, remote};

/// How old a connection grows: as long as a call takes, so that calls are under way at each
/// goodbye, and others begin.
const AGE: Duration = Duration::from_millis(100);

/// Calls at a time, and how often each is made.
const CALLERS: usize = 16;
const CALLS: usize = 25;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the server ends with the test")]
async fn goodbyes_again_and_again_cost_no_attempt_and_ask_nothing_twice() {
    let handler = Handler::default();
    let connections = Arc::<AtomicUsize>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::new(
        AnyDispatcher::of(handler.clone()),
        Shutdown::manual(Duration::from_secs(1)),
    )
    .service();
    let accepted = futures::stream::unfold(
        (listener, Arc::clone(&connections)),
        |(listener, count)| async {
            let stream = listener.accept().await.map(|(stream, _)| stream);
            count.fetch_add(1, Ordering::SeqCst);
            Some((stream, (listener, count)))
        },
    );
    tokio::spawn(
        transport::Server::builder()
            .max_connection_age(AGE)
            .add_service(server)
            .serve_with_incoming(accepted),
    );
    let remote = remote(json!({ "endpoints": [endpoint] })).await.unwrap();
    let slow = event("Slow");
    let callers = (0..CALLERS).map(|_| async {
        for _ in 0..CALLS {
            remote
                .dispatch(&slow, &cx(Duration::from_secs(30)))
                .await
                .unwrap();
        }
    });
    futures::future::join_all(callers).await;
    assert_eq!(handler.asked.load(Ordering::SeqCst), CALLERS * CALLS);
    let connections = connections.load(Ordering::SeqCst);
    assert!(
        connections > 5,
        "only {connections}: nothing was said goodbye to"
    );
}
