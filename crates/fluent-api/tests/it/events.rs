//! Events: posted, and found in the log.

use std::collections::BTreeMap;

use fluent_api::{ApiError, EventQuery, Mode, NewEvent};
use serde_json::value::to_raw_value;

use crate::{client, fluent};

fn label(entity_ref: &str) -> NewEvent {
    NewEvent {
        name: "LabelCreated".to_owned(),
        retailer_id: "34".to_owned(),
        entity_type: "ORDER".to_owned(),
        entity_ref: Some(entity_ref.to_owned()),
        attributes: BTreeMap::from([("trackingNumber".to_owned(), to_raw_value("TRK1").unwrap())]),
        ..NewEvent::default()
    }
}

#[tokio::test]
async fn an_event_that_is_posted_reaches_the_order() {
    let fluent = fluent().await;
    let order = fluent.world().place_order();
    for mode in [Mode::Async, Mode::Sync] {
        client(&fluent)
            .post_event(&label(&order.entity.reference), mode)
            .await
            .unwrap();
    }
    assert_eq!(fluent.world().posted().len(), 2);
    assert_eq!(
        fluent.world().posted()[0]["attributes"]["trackingNumber"],
        "TRK1"
    );
    let now = fluent
        .world()
        .order(&order.entity.id, std::time::Duration::ZERO)
        .unwrap();
    assert_eq!(now.attributes["trackingNumber"], "TRK1");
}

#[test]
fn an_attribute_is_posted_digit_by_digit() {
    let written = r#"{"id":9405511899560000000001,"price":1.10}"#;
    let event = NewEvent {
        attributes: serde_json::from_str(written).unwrap(),
        ..NewEvent::default()
    };
    assert!(serde_json::to_string(&event).unwrap().contains(written));
}

#[tokio::test]
async fn an_event_that_fluent_will_never_take_is_refused() {
    let fluent = fluent().await;
    let nameless = NewEvent {
        name: String::new(),
        ..label("CC_1")
    };
    let refused = client(&fluent)
        .post_event(&nameless, Mode::Async)
        .await
        .unwrap_err();
    assert!(matches!(refused, ApiError::Refused { status: 400, .. }) && !refused.is_transient());
}

#[tokio::test]
async fn the_log_is_read_page_by_page() {
    let fluent = fluent().await;
    let mut refs = Vec::new();
    for _ in 0..5 {
        let order = fluent.world().place_order();
        fluent.world().webhook("OrderBooked", &order);
        refs.push(order.entity.reference);
    }
    let client = client(&fluent);
    let mut found = Vec::new();
    let mut query = EventQuery {
        name: Some("OrderBooked".to_owned()),
        count: 2,
        ..EventQuery::default()
    };
    loop {
        let page = client.events(&query).await.unwrap();
        query.start += u32::try_from(page.results.len()).unwrap();
        found.extend(page.results);
        if !page.has_more {
            break;
        }
    }
    refs.reverse();
    assert_eq!(
        found
            .iter()
            .map(|record| record.context.entity_ref.clone().unwrap())
            .collect::<Vec<_>>(),
        refs,
        "the newest first"
    );
    assert_eq!(found[0].account_id, "ACME");
    let one = EventQuery {
        category: Some("ACTION".to_owned()),
        root_entity_ref: Some(refs[3].clone()),
        count: 10,
        ..EventQuery::default()
    };
    let sent = client.events(&one).await.unwrap().results;
    assert_eq!((sent.len(), sent[0].name.as_str()), (1, "Send Webhook"));
    assert_eq!(sent[0].context.source_events, [found[3].id.clone()]);
}
