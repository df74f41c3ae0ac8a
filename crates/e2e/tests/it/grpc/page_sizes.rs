//! Every list of the operator's API in pages of several sizes: each entry once, in order, and
//! never more on a page than was asked for.

use proto::v1;
use proto::v1::operator_client::OperatorClient;
use simulator::{Events, KeyPair, Retry, Shape};
use tonic::transport::{Channel, Endpoint};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

/// Entries of each list: a last page that is full, and one that is not.
const ENTRIES: usize = 6;

/// The sizes asked for: one entry, a part that divides them all, one that does not, and more than
/// there are.
const SIZES: [u32; 4] = [1, 3, 4, 10];

/// The contract, in which a list that is not below would be found.
const CONTRACT: &str = include_str!("../../../../../proto/fluent/webhooks/v1/operator.proto");

type Api = OperatorClient<Channel>;

/// One page: what tells its entries apart, and the token for the next.
type Page = (Vec<String>, String);

/// The lists that have pages.
const LISTS: [&str; 5] = [
    "ListDeadLetters",
    "ListDeliveries",
    "ListEvents",
    "ListQuarantined",
    "ListRefused",
];

async fn page(api: &mut Api, list: &str, page_size: u32, page_token: String) -> Page {
    match list {
        "ListDeadLetters" => {
            let request = v1::ListDeadLettersRequest {
                page_size,
                page_token,
                ..Default::default()
            };
            let page = api.list_dead_letters(request).await.unwrap().into_inner();
            let ids = page.dead_letters.iter().map(|letter| letter.id.to_string());
            (ids.collect(), page.next_page_token)
        }
        "ListDeliveries" => {
            let request = v1::ListDeliveriesRequest {
                page_size,
                page_token,
                ..Default::default()
            };
            let page = api.list_deliveries(request).await.unwrap().into_inner();
            let ids = page.attempts.into_iter().map(|attempt| attempt.event_id);
            (ids.collect(), page.next_page_token)
        }
        "ListEvents" => {
            let request = v1::ListEventsRequest {
                page_size,
                page_token,
                ..Default::default()
            };
            let page = api.list_events(request).await.unwrap().into_inner();
            let ids = page.events.into_iter().map(|event| event.id);
            (ids.collect(), page.next_page_token)
        }
        "ListQuarantined" => {
            let request = v1::ListQuarantinedRequest {
                page_size,
                page_token,
                reference: String::new(),
            };
            let page = api.list_quarantined(request).await.unwrap().into_inner();
            let ids = page.webhooks.iter().map(|webhook| webhook.id.to_string());
            (ids.collect(), page.next_page_token)
        }
        "ListRefused" => {
            let request = v1::ListRefusedRequest {
                page_size,
                page_token,
                reference: String::new(),
            };
            let page = api.list_refused(request).await.unwrap().into_inner();
            let ids = page.webhooks.iter().map(|webhook| webhook.id.to_string());
            (ids.collect(), page.next_page_token)
        }
        _ => panic!("{list} is not asked here"),
    }
}

/// All entries, page by page. A page may be short, or empty, with more behind it.
async fn all_pages(api: &mut Api, list: &str, page_size: u32) -> Vec<String> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    for _ in 0..10 * ENTRIES {
        let (entries, next) = page(api, list, page_size, page_token).await;
        assert!(
            entries.len() <= page_size as usize,
            "{list}: {} on a page of {page_size}",
            entries.len()
        );
        all.extend(entries);
        if next.is_empty() {
            return all;
        }
        page_token = next;
    }
    panic!("{list}: pages of {page_size} do not end");
}

/// A service with as many letters, attempts, quarantined and refused webhooks.
async fn full() -> (Pipeline, Api) {
    let sink = Sink::answering(|_, _| status(422)).await;
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&sink.route("all", "match: {}"));
    pipeline.run();
    let sender = pipeline.sender(Retry::Never);
    let unknown_key = KeyPair::generate(1024).unwrap();
    for number in 0..ENTRIES {
        pipeline.accept(&signed("E", &format!("P_{number}"))).await;
        let malformed = format!(r#"{{"id":"{number}","accountId":"ACME","retailerId":"34"}}"#);
        let quarantined = sender.send(&SANDBOX.sign(malformed).unwrap()).await;
        assert_eq!(quarantined.answer.unwrap().status, 200);
        let event = Events::new("ACME", 34, number as u64).of("E", Shape::Full);
        let refused = sender.send(&unknown_key.sign(event.body).unwrap()).await;
        assert_eq!(refused.answer.unwrap().status, 401);
    }
    let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap();
    let api = OperatorClient::new(channel.connect().await.unwrap());
    for command in [
        &["dead-letters", "list"][..],
        &["deliveries"],
        &["quarantine", "list"],
        &["refused", "list"],
    ] {
        let listed = || pipeline.json(command).as_array().map_or(0, Vec::len);
        until(&format!("{command:?} has all"), || listed() == ENTRIES).await;
    }
    (pipeline, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_has_each_entry_once_in_pages_of_any_size() {
    let (pipeline, mut api) = full().await;
    for list in LISTS {
        let (expected, _) = page(&mut api, list, 0, String::new()).await;
        let mut different = expected.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), ENTRIES, "{list}: {expected:?}");
        for size in SIZES {
            let found = all_pages(&mut api, list, size).await;
            assert_eq!(found, expected, "{list} in pages of {size}");
        }
    }
    drop(pipeline);
}

/// The audit log has no further pages: its page is the newest entries.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_shows_as_many_of_its_newest_entries() {
    let (mut pipeline, grpc) =
        Pipeline::prepare_with_grpc("    - { name: all, match: {}, dispatcher: log }\n");
    pipeline.run();
    let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap();
    let mut api = OperatorClient::new(channel.connect().await.unwrap());
    for number in 0..ENTRIES {
        let request = v1::PauseRouteRequest {
            route: "all".to_owned(),
            reason: number.to_string(),
            ..Default::default()
        };
        api.pause_route(request).await.unwrap();
    }
    let mut newest = async |page_size| {
        let request = v1::ListAuditRequest { page_size };
        let page = api.list_audit(request).await.unwrap().into_inner();
        let entries = page.entries.into_iter();
        entries
            .map(|entry| format!("{} {}", entry.request, entry.outcome))
            .collect::<Vec<_>>()
    };
    // Each change is written before and after.
    let all = newest(0).await;
    assert_eq!(all.len(), 2 * ENTRIES, "{all:?}");
    for size in SIZES {
        let expected = &all[..all.len().min(size as usize)];
        assert_eq!(newest(size).await, expected, "a page of {size}");
    }
}

#[test]
fn no_list_of_the_contract_is_missing_here() {
    let requests = CONTRACT.split("message ").filter(|message| {
        let fields = message.split("\n}").next().unwrap_or_default();
        fields.contains("uint32 page_size")
    });
    let mut with_pages: Vec<&str> = requests
        .filter_map(|message| message.split_once("Request {"))
        .map(|(name, _)| name)
        .collect();
    with_pages.sort_unstable();
    let mut tested = LISTS.to_vec();
    tested.push("ListAudit");
    tested.sort_unstable();
    assert_eq!(with_pages, tested);
}
