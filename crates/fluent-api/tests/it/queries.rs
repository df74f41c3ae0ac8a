//! GraphQL: what is found, what is not, and the reasons.

use std::collections::BTreeSet;
use std::time::Duration;

use event_model::ExactJson;
use fluent_api::{ApiError, Query, QueryError};
use serde_json::{Map, Value, json};

use crate::{client, fluent};

const ORDER: &str = "query order($id: ID!) {
  orderById(id: $id) { ref status customer { firstName } items { edges { node { ref quantity } } } }
}";

fn variables(id: &str) -> Map<String, Value> {
    Map::from_iter([("id".to_owned(), json!(id))])
}

fn as_json(found: &ExactJson) -> Value {
    serde_json::from_str(found.as_str()).unwrap()
}

#[tokio::test]
async fn an_order_is_found_with_what_was_asked_for() {
    let fluent = fluent().await;
    let order = fluent.world().place_order();
    let query = Query::parse(ORDER).unwrap();
    let found = client(&fluent)
        .graphql(&query, &variables(&order.entity.id))
        .await
        .unwrap();
    let found = as_json(&found);
    assert_eq!(found["orderById"]["ref"], order.entity.reference);
    assert_eq!(
        found["orderById"]["customer"]["firstName"],
        order.first_name
    );
    assert_eq!(
        found["orderById"]["items"]["edges"][1]["node"]["quantity"],
        2
    );
}

#[tokio::test]
async fn older_entities_are_found_by_their_id() {
    let fluent = fluent().await;
    let world = fluent.world();
    let client = client(&fluent);
    let part = world.place_order().fulfilments.remove(0);
    for (field, made) in [
        ("fulfilmentById", part),
        ("articleById", world.make("ARTICLE", "CREATED")),
        ("consignmentById", world.make("CONSIGNMENT", "CREATED")),
        ("waveById", world.make("WAVE", "CREATED")),
        ("locationById", world.make("LOCATION", "ACTIVE")),
    ] {
        let text = format!("query ($id: ID!) {{ {field}(id: $id) {{ ref status }} }}");
        let found = client
            .graphql(&Query::parse(&text).unwrap(), &variables(&made.id))
            .await
            .unwrap();
        assert_eq!(
            as_json(&found)[field],
            json!({"ref": made.reference, "status": made.status})
        );
    }
}

#[tokio::test]
async fn newer_entities_are_found_by_their_ref() {
    let fluent = fluent().await;
    let client = client(&fluent);
    for (kind, field, more) in [
        ("RETURN_ORDER", "returnOrder", ", retailer: { id: 34 }"),
        ("BILLING_ACCOUNT", "billingAccount", ""),
        ("INVOICE", "invoice", ""),
        (
            "INVENTORY_POSITION",
            "inventoryPosition",
            r#", catalogue: { ref: "DEFAULT:34" }"#,
        ),
    ] {
        let made = fluent.world().make(kind, "CREATED");
        let text = format!("query ($ref: String!) {{ {field}(ref: $ref{more}) {{ id status }} }}");
        let variables = Map::from_iter([("ref".to_owned(), json!(made.reference))]);
        let found = client
            .graphql(&Query::parse(&text).unwrap(), &variables)
            .await
            .unwrap();
        assert_eq!(
            as_json(&found)[field],
            json!({"id": made.id, "status": "CREATED"})
        );
    }
}

#[tokio::test]
async fn what_is_too_complex_or_too_large_for_fluent_is_not_asked_again() {
    let fluent = fluent().await;
    let client = client(&fluent);
    let order = fluent.world().place_order();
    let refused = async |fields: u32| {
        let aliases: String = (0..fields)
            .map(|number| format!(" f{number}: ref"))
            .collect();
        let query = Query::parse(&format!(
            "query ($id: ID!) {{ orderById(id: $id) {{{aliases} }} }}"
        ));
        client
            .graphql(&query.unwrap(), &variables(&order.entity.id))
            .await
            .err()
    };
    assert!(
        refused(11_110).await.is_none(),
        "with the order itself, as much as there may be"
    );
    let error = refused(11_111).await.unwrap();
    assert!(
        matches!(error, ApiError::TooComplex) && !error.is_transient(),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "the query is too large or too complex for Fluent (C0001E)"
    );

    // A query is limited when it is parsed; with its variables it may still be larger than 2 MB.
    let large = format!("{{ a }} #{}", "x".repeat(1 << 20));
    assert!(matches!(Query::parse(&large), Err(QueryError::TooLong)));
    let query = Query::parse(ORDER).unwrap();
    let error = client
        .graphql(&query, &variables(&"1".repeat(2 << 20)))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ApiError::Refused { status: 413, .. }) && !error.is_transient(),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_there_or_not_yet_is_not_found() {
    let fluent = fluent().await;
    let client = client(&fluent);
    let query = Query::parse(ORDER).unwrap();
    let missing = client
        .graphql(&query, &variables("nobody"))
        .await
        .unwrap_err();
    assert!(
        matches!(missing, ApiError::NotFound) && missing.is_transient(),
        "{missing}"
    );
    fluent.behave(|behaviour| behaviour.invisible_for = Duration::from_hours(1));
    let order = fluent.world().place_order();
    let early = client
        .graphql(&query, &variables(&order.entity.id))
        .await
        .unwrap_err();
    assert!(matches!(early, ApiError::NotFound), "{early}");
    fluent.behave(|behaviour| behaviour.invisible_for = Duration::ZERO);
    client
        .graphql(&query, &variables(&order.entity.id))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_fluent_says_is_not_repeated() {
    let fluent = fluent().await;
    let query = Query::parse("{ orderById(id: 1) { secretOfSomebody } }").unwrap();
    let refused = client(&fluent)
        .graphql(&query, &Map::new())
        .await
        .unwrap_err();
    assert!(matches!(refused, ApiError::Refused { .. }) && !refused.is_transient());
    assert!(
        !refused.to_string().contains("secretOfSomebody"),
        "{refused}"
    );
    fluent.behave(|behaviour| behaviour.fail_next = 1);
    let failed = client(&fluent)
        .graphql(&query, &Map::new())
        .await
        .unwrap_err();
    assert_eq!(failed.to_string(), "Fluent failed: status 500, code S0001E");
    assert!(failed.is_transient());
}

#[tokio::test]
async fn what_a_proxy_says_is_not_fluents_last_word() {
    let fluent = fluent().await;
    let client = client(&fluent);
    let query = Query::parse("{ __typename }").unwrap();
    for (status, is_transient) in [
        (302, true),
        (403, true),
        (404, true),
        (408, true),
        (502, true),
        (400, false),
        (413, false),
    ] {
        fluent.behave(|behaviour| (behaviour.fail_next, behaviour.fail_with) = (1, status));
        let error = client.graphql(&query, &Map::new()).await.unwrap_err();
        assert_eq!(error.is_transient(), is_transient, "{status}: {error}");
    }
    client.graphql(&query, &Map::new()).await.unwrap();
}

#[test]
fn a_query_that_can_t_be_asked_is_refused_with_its_place() {
    let why = |text: &str| Query::parse(text).unwrap_err().to_string();
    assert!(
        why("query {\n  orderById(id: $id {\n}").starts_with("line 2, column"),
        "{}",
        why("query {\n  orderById(id: $id {\n}")
    );
    assert!(why("mutation { cancel(id: 1) { id } }").contains("expected one query"));
    assert!(why("query a { b } query c { d }").contains("expected one query"));
    let query = Query::parse(ORDER).unwrap();
    let check = |given: &[&str]| query.check(&given.iter().copied().collect::<BTreeSet<_>>());
    assert!(check(&["id"]).is_ok());
    assert!(matches!(check(&[]), Err(QueryError::Missing(name)) if name == "id"));
    assert!(matches!(check(&["id", "x"]), Err(QueryError::Unknown(name)) if name == "x"));
}

#[test]
fn a_variable_has_the_type_that_is_declared() {
    let query =
        Query::parse("query ($n: Int!, $id: ID!, $on: Boolean) { a(n: $n, id: $id, on: $on) }")
            .unwrap();
    let value = |name: &str, text: &str| query.value(name, text.to_owned());
    assert_eq!(value("n", "34"), json!(34));
    assert_eq!(value("id", "34"), json!("34"));
    assert_eq!(value("on", "true"), json!(true));
    assert_eq!(
        value("n", "no number"),
        json!("no number"),
        "Fluent will say so"
    );
}

#[test]
fn a_number_is_sent_with_the_digits_that_were_written() {
    let query = Query::parse("query ($f: Float, $i: Int!, $s: String) { a }").unwrap();
    let sent = |name: &str, text: &str| {
        serde_json::to_string(&query.value(name, text.to_owned())).unwrap()
    };
    for number in [
        "1.10",
        "1e2",
        "-0",
        "9007199254740993",
        "12345678901234567890123",
        "0.1000000000000000055",
        "1e400",
    ] {
        assert_eq!(sent("f", number), number);
        assert_eq!(sent("i", number), number);
        assert_eq!(sent("s", number), format!("\"{number}\""));
    }
    assert_eq!(sent("f", "1.10.1"), "\"1.10.1\"");
}
