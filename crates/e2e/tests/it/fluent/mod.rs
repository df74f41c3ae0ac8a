//! Fluent's own API, answered by a Fluent of our own: what a route asks before it
//! delivers, and what it posts back.

mod asking;
mod enriching;
mod logins;
mod reconciled_late;
mod reconciling;
mod telling;

use std::fs;

use simulator::api::{Fluent, LOGIN, Order, World};

use crate::pipeline::{Pipeline, SANDBOX};
use crate::sink::Sink;

pub(crate) const QUERY: &str = "query ($id: ID!) { orderById(id: $id) { ref status updatedOn customer { firstName primaryEmail } } }";

pub(crate) const ENRICH: &str =
    "enrich: { query: order.graphql, variables: { id: \"{{ event.entityId }}\" }";

pub(crate) async fn fluent() -> Fluent {
    Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap()
}

/// A pipeline whose first account has an API, with these files beside its settings.
pub(crate) fn pipeline(fluent: &Fluent, routes: &str, files: &[(&str, &str)]) -> Pipeline {
    pipeline_with(fluent, routes, files, String::new())
}

/// The same with more of `fluent-connect`.
pub(crate) fn pipeline_with(
    fluent: &Fluent,
    routes: &str,
    files: &[(&str, &str)],
    more: String,
) -> Pipeline {
    let mut pipeline = Pipeline::prepare("    []\n");
    for (name, text) in [("secret", LOGIN), ("order.graphql", QUERY)]
        .iter()
        .chain(files)
    {
        fs::write(pipeline.folder.path().join(name), text).unwrap();
    }
    pipeline.api = format!(
        ", api: {{ url: \"{}\", username: {LOGIN}, password: {{ file: secret }}, client-id: {LOGIN}, client-secret: {{ file: secret }}, requests-per-second: 1000 }}",
        fluent.url()
    );
    pipeline.more = more;
    pipeline.write_settings(routes);
    pipeline.run();
    pipeline
}

pub(crate) async fn happens(pipeline: &Pipeline, fluent: &Fluent, name: &str, order: &Order) {
    pipeline
        .accept(&SANDBOX.sign(fluent.world().webhook(name, order)).unwrap())
        .await;
}

pub(crate) fn template_route(sink: &Sink, more: &str) -> String {
    let http = format!(
        "http: {{ url: \"http://{}/\", template: {{ file: pickup.json, content-type: application/json }} }}",
        sink.address
    );
    format!("    - {{ name: pickup, match: {{}}, dispatcher: http, {http}, {more} }}\n")
}

pub(crate) const PICKUP: &str = r#"{"to": {{ enriched.orderById.customer.primaryEmail }}, "dear": {{ enriched.orderById.customer.firstName }}, "order": {{ event.entityRef }}}"#;

pub(crate) fn dead(pipeline: &Pipeline) -> usize {
    pipeline
        .json(&["dead-letters", "list"])
        .as_array()
        .unwrap()
        .len()
}
