//! Lists of what has refs of nearly a body's size: a page is a message that any client takes.

use std::fs;

use proto::v1;
use proto::v1::operator_client::OperatorClient;
use tonic::transport::Endpoint;

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

/// Letters, whose refs together are more than gRPC sends.
const LETTERS: usize = 12;
const REF_BYTES: usize = 900_000;

/// What a list has of a ref.
const LISTED_BYTES: usize = 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_refs_is_cut_in_bytes_and_the_next_goes_on_where_it_ended() {
    let sink = Sink::answering(|_, _| status(422)).await;
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&sink.route("all", "match: {}"));
    let settings = fs::read_to_string(pipeline.config()).unwrap();
    fs::write(
        pipeline.config(),
        settings.replace("body-limit: 64KiB", "body-limit: 4MiB"),
    )
    .unwrap();
    pipeline.run();
    let reference = |number: usize| format!("R_{number}_{}", "x".repeat(REF_BYTES));
    for number in 0..LETTERS {
        pipeline.accept(&signed("LARGE", &reference(number))).await;
    }
    let dead = || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .map_or(0, Vec::len)
    };
    until("all are dead", || dead() == LETTERS).await;

    // A client with nothing but the defaults, of which one is a largest message of 4 MiB.
    let channel = Endpoint::from_shared(format!("http://{grpc}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut api = OperatorClient::new(channel);
    let mut ids = Vec::new();
    let mut page_token = String::new();
    let mut pages = 0;
    loop {
        let request = v1::ListDeadLettersRequest {
            page_size: 1000,
            page_token,
            ..Default::default()
        };
        let page = api.list_dead_letters(request).await.unwrap().into_inner();
        for letter in &page.dead_letters {
            let listed = &letter
                .event
                .as_ref()
                .unwrap()
                .entity
                .as_ref()
                .unwrap()
                .r#ref;
            assert!(
                listed.starts_with("R_") && listed.len() <= LISTED_BYTES,
                "{} bytes",
                listed.len()
            );
        }
        ids.extend(page.dead_letters.iter().map(|letter| letter.id));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    // So much is read at once: what is left is on the next page.
    assert!(pages > 1, "all of them in one");
    assert!(ids.len() == LETTERS && ids.is_sorted(), "{ids:?}");
    let request = v1::ListDeliveriesRequest {
        page_size: 1000,
        ..Default::default()
    };
    let page = api.list_deliveries(request).await.unwrap().into_inner();
    assert_eq!((page.attempts.len(), &*page.next_page_token), (LETTERS, ""));
    assert!(
        page.attempts
            .iter()
            .all(|attempt| attempt.entity.len() <= "ORDER/".len() + LISTED_BYTES)
    );
    // One is found by all of its ref.
    let filter = Some(v1::DeadLetterFilter {
        reference: reference(3),
        ..Default::default()
    });
    let counted = api
        .count_dead_letters(v1::CountDeadLettersRequest {
            filter,
            max_examined: 0,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(counted.count, 1);
}
