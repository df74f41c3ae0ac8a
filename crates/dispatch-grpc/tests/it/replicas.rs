//! The choice among replicas of a handler.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dispatch::{DispatchError, Dispatcher};
use serde_json::json;
use tokio::net::TcpListener;

use crate::handler::{Handler, anybody, cx, event, remote, serve};

const WAIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn load_is_shared_and_one_that_is_away_costs_nobody_an_attempt() {
    let handlers = [Handler::default(), Handler::default()];
    let one = serve(&handlers[0], &anybody()).await;
    let two = serve(&handlers[1], &anybody()).await;
    // A port that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoints = [one.address, two.address, closed].map(|address| format!("http://{address}"));
    let remote = remote(json!({ "endpoints": endpoints })).await.unwrap();
    let slow = event("Slow");
    let all = (0..10).map(|_| async {
        for _ in 0..4 {
            remote.dispatch(&slow, &cx(WAIT)).await.unwrap();
        }
    });
    futures::future::join_all(all).await;
    let asked = handlers.map(|handler| handler.asked.load(Ordering::SeqCst));
    assert_eq!(asked.iter().sum::<usize>(), 40);
    assert!(
        asked.iter().all(|asked| (12..=28).contains(asked)),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_stands_for_all_its_addresses() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let endpoint = format!("http://localhost:{}", process.address.port());
    // Perhaps also ::1, where nobody listens.
    let remote = remote(json!({ "endpoints": [endpoint] })).await.unwrap();
    for _ in 0..3 {
        remote.dispatch(&event("Done"), &cx(WAIT)).await.unwrap();
    }
    assert_eq!(handler.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_tried_again() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for endpoint in [
        format!("http://{closed}"),
        "http://no-such-host.invalid:1".to_owned(),
    ] {
        let remote = remote(json!({ "endpoints": [endpoint] })).await.unwrap();
        let answer = remote.dispatch(&event("Done"), &cx(WAIT)).await;
        assert!(
            matches!(answer, Err(DispatchError::Transient { .. })),
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_ends_what_it_has_and_takes_no_more() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let remote = remote(json!({ "endpoints": [format!("http://{}", process.address)] }))
        .await
        .unwrap();
    remote.dispatch(&event("Done"), &cx(WAIT)).await.unwrap();
    let slow = event("Slow");
    let wait = cx(WAIT);
    let stopping = async {
        while handler.asked.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        process.shutdown.finish().await;
    };
    let (ended, ()) = tokio::join!(remote.dispatch(&slow, &wait), stopping);
    assert!(ended.is_ok(), "{ended:?}");
    let refused = remote.dispatch(&slow, &cx(WAIT)).await;
    assert!(
        matches!(refused, Err(DispatchError::Transient { .. })),
        "{refused:?}"
    );
}
