//! Posted events, and the log of all events.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::behaviour::failed;

/// Fields that an event needs for Fluent to accept it.
const NEEDED: [&str; 3] = ["name", "retailerId", "entityType"];

pub(crate) async fn take(State(shared): State<Arc<Shared>>, Json(event): Json<Value>) -> Response {
    let is_there = |name: &&str| event[*name].as_str().is_some_and(|text| !text.is_empty());
    let names_entity = ["entityId", "entityRef"].iter().any(&is_there);
    if !NEEDED.iter().all(is_there) || !names_entity {
        return failed(StatusCode::BAD_REQUEST, "C0003E");
    }
    shared.conduct.count(|calls| calls.posted += 1);
    let id = shared.world.take(event);
    Json(json!({"eventId": id, "eventStatus": "PENDING"})).into_response()
}

/// The log's field for each parameter of a search.
const PARAMETERS: [(&str, &str); 7] = [
    ("name", "/name"),
    ("category", "/category"),
    ("eventType", "/type"),
    ("eventStatus", "/eventStatus"),
    ("retailerId", "/retailerId"),
    ("context.entityRef", "/context/entityRef"),
    ("context.rootEntityRef", "/context/rootEntityRef"),
];

pub(crate) async fn search(
    State(shared): State<Arc<Shared>>,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    shared.conduct.count(|calls| calls.searches += 1);
    let number = |name: &str, usual: usize| {
        asked
            .get(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(usual)
    };
    let start = number("start", 0);
    let count = number("count", 100);
    let time = |text: &str| {
        // The offset may be in Fluent's spelling or in the usual one.
        let text = text
            .strip_suffix("+0000")
            .map_or_else(|| text.to_owned(), |text| format!("{text}Z"));
        text.parse::<jiff::Timestamp>().ok()
    };
    let bound = |name: &str| asked.get(name).and_then(|text| time(text));
    let from = bound("from");
    let to = bound("to");
    let fits = |record: &Value| {
        let at = record["generatedOn"].as_str().and_then(time);
        from.is_none_or(|from| at >= Some(from))
            && to.is_none_or(|to| at <= Some(to))
            && PARAMETERS.iter().all(|(name, field)| {
                asked.get(*name).is_none_or(|wanted| {
                    record.pointer(field).and_then(Value::as_str) == Some(wanted)
                })
            })
    };
    let answer = shared.world.with_log(|log| {
        let mut found: Vec<&Value> = log.iter().rev().filter(|record| fits(record)).collect();
        // Newest first, also within one millisecond.
        found.sort_by_cached_key(|record| {
            std::cmp::Reverse(record["generatedOn"].as_str().and_then(time))
        });
        let results: Vec<&Value> = found.iter().skip(start).take(count).copied().collect();
        let has_more = start + results.len() < found.len();
        json!({"start": start, "count": results.len(), "hasMore": has_more, "results": results})
    });
    Json(answer).into_response()
}
