//! Watching attempts as they end.

use std::net::SocketAddr;

use event_model::Timestamp;
use proto::v1;
use proto::v1::operator_client::OperatorClient;
use tonic::transport::Endpoint;

use super::operating::api;
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_sees_attempts_as_they_end() {
    let sink = Sink::answering(|_, before| status(if before == 0 { 503 } else { 200 })).await;
    let (mut pipeline, grpc) =
        Pipeline::prepare_with_grpc(&sink.route("all", "match: {}, retry: { initial: 300ms }"));
    pipeline.run();
    let mut api = api(grpc).await;
    let filter = Some(v1::AttemptFilter {
        event: "SEEN".to_owned(),
        ..Default::default()
    });
    // What ended before is for a list, and a time from which on is no question here.
    pipeline.accept(&signed("SEEN", "BEFORE")).await;
    let is_done = || {
        let attempts = pipeline.json(&["deliveries"]);
        attempts
            .as_array()
            .unwrap()
            .iter()
            .any(|attempt| attempt["outcome"] == "done")
    };
    until("it is done", is_done).await;
    let since = Some(v1::AttemptFilter {
        since: Some(grpc::timestamp(Timestamp::UNIX_EPOCH)),
        ..Default::default()
    });
    let refused = api
        .watch_deliveries(v1::WatchDeliveriesRequest { filter: since })
        .await
        .unwrap_err();
    assert!(refused.message().contains("filter.since"), "{refused}");
    let mut watching = api
        .watch_deliveries(v1::WatchDeliveriesRequest { filter })
        .await
        .unwrap()
        .into_inner();
    pipeline.accept(&signed("UNSEEN", "U")).await;
    pipeline.accept(&signed("SEEN", "S")).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let told = tokio::time::timeout(crate::pipeline::PATIENCE, watching.message()).await;
        let told = told.expect("a word in time").unwrap().unwrap();
        seen.extend(
            told.attempts
                .into_iter()
                .map(|it| (it.event, it.entity, it.attempt, it.outcome)),
        );
    }
    let attempt = |number, outcome: &str| {
        (
            "SEEN".to_owned(),
            "ORDER/S".to_owned(),
            number,
            outcome.to_owned(),
        )
    };
    assert_eq!(seen, [attempt(1, "transient"), attempt(2, "done")]);
    let quiet =
        tokio::time::timeout(std::time::Duration::from_millis(1500), watching.message()).await;
    assert!(quiet.is_err(), "each is told once: {quiet:?}");
}

/// Watches, and takes nothing that it is told: there is no room for a byte.
async fn deaf(
    grpc: SocketAddr,
) -> Result<tonic::Streaming<v1::WatchDeliveriesResponse>, tonic::Status> {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}"))
        .unwrap()
        .initial_stream_window_size(0);
    let mut api = OperatorClient::new(endpoint.connect().await.unwrap());
    Ok(api
        .watch_deliveries(v1::WatchDeliveriesRequest::default())
        .await?
        .into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_and_does_not_read_gives_its_place_to_others() {
    const PLACES: usize = 64;
    let sink = Sink::open().await;
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&sink.route("all", "match: {}"));
    pipeline.run();
    let mut deaf_ones = Vec::new();
    for _ in 0..PLACES {
        deaf_ones.push(deaf(grpc).await.unwrap());
    }
    let refused = deaf(grpc).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    let mut api = api(grpc).await;
    let mut numbers = 0..;
    let began = std::time::Instant::now();
    let mut watching = loop {
        match api
            .watch_deliveries(v1::WatchDeliveriesRequest::default())
            .await
        {
            Ok(watching) => break watching.into_inner(),
            Err(status) => assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}"),
        }
        assert!(
            began.elapsed() < 2 * crate::pipeline::PATIENCE,
            "nobody gave its place"
        );
        // Something to be told, again and again: one message is on its way to nobody at once.
        pipeline
            .accept(&signed("E", &format!("R{}", numbers.next().unwrap())))
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    pipeline.accept(&signed("E", "SEEN")).await;
    let mut is_seen = false;
    while !is_seen {
        let told = tokio::time::timeout(crate::pipeline::PATIENCE, watching.message()).await;
        let told = told.expect("a word in time").unwrap().unwrap();
        is_seen = told
            .attempts
            .iter()
            .any(|attempt| attempt.entity == "ORDER/SEEN");
    }
    drop(deaf_ones);
}
