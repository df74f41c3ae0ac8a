//! Examples of texts for keys whose type has none, by the end of their path.

use serde_json::{Value, json};

use crate::expectation::kind;

/// The last keys of a path, and a value for it. Longer ones come first.
const EXAMPLES: [(&str, &str); 57] = [
    ("accounts.name", "ACME"),
    ("reconcile.accounts", "ACME"),
    ("reconcile.event-names", "OrderReadyForPickup"),
    ("trusted-proxies", "10.0.0.0/8"),
    ("tokens.name", "ops"),
    ("certificates.name", "ops.example.com"),
    ("tls.name", "handlers.example.com"),
    ("routes.name", "orders"),
    ("console.hosts", "webhooks.example.com"),
    (
        "console.trace-url",
        "https://traces.example.com/trace/{trace-id}",
    ),
    ("tokens.file", "secrets/ops.token"),
    ("private-key.file", "secrets/seal.key"),
    ("public-keys.file", "keys/seal.pub"),
    ("credentials.file", "secrets/nats.creds"),
    ("nkey.file", "secrets/nats.nk"),
    ("spool.path", "data/spool.db"),
    ("queue.path", "data/queue.db"),
    ("template.file", "templates/order.json"),
    ("otlp.endpoint", "http://127.0.0.1:4317"),
    ("grpc.endpoints", "https://handlers:50061"),
    ("queue.servers", "nats://127.0.0.1:4222"),
    ("nats.servers", "nats://127.0.0.1:4222"),
    ("accounts.region", "sydney"),
    ("accounts.environment", "sandbox"),
    ("api.url", "https://ACME.api.fluentretail.com"),
    ("http.url", "https://example.com/events"),
    ("oauth2.token-url", "https://example.com/oauth/token"),
    ("oauth2.scope", "orders.write"),
    ("fluent.event", "LabelPrinted"),
    ("fluent.entity-type", "ORDER"),
    ("fluent.entity-ref", "{{ event.entityRef }}"),
    ("fluent.attributes", "templates/attributes.json"),
    ("enrich.query", "queries/order.graphql"),
    ("freshness.status", "orderById.status"),
    ("freshness.updated", "orderById.updatedOn"),
    ("enrich.variables", "{{ event.entityId }}"),
    ("match.when", "has(event.attributes.store)"),
    ("signature-headers.sha512", "fluent-signature"),
    ("signature-headers.md5", "flex.signature"),
    ("webhook.signatures", "sha512"),
    ("roles", "read"),
    ("content-type", "application/json"),
    ("client-ca", "certs/clients.pem"),
    ("ca", "certs/ca.pem"),
    ("certificate", "certs/server.pem"),
    ("key", "certs/server.key"),
    ("file", "secrets/token"),
    ("username", "integration"),
    ("user", "integration"),
    ("client-id", "ACME"),
    ("index", "data/index.db"),
    ("audit", "data/audit.jsonl"),
    ("inbox-prefix", "_INBOX"),
    ("connector-name", "shop"),
    ("dispatcher", "http"),
    ("headers", "{{ event.entityRef }}"),
    ("origins", "webhook"),
];

/// Keys of an address with a port.
const ADDRESSES: [&str; 5] = [
    "webhook.listen",
    "health",
    "operator.grpc",
    "operator.http",
    "console.listen",
];

/// Adds an example to each text of this schema that has none.
pub(crate) fn add(schema: &mut Value, path: &mut Vec<String>) {
    if ADDRESSES.iter().any(|end| ends_with(path, end)) {
        schema["title"] = json!("an address and a port");
        schema["examples"] = json!(["127.0.0.1:8080"]);
    }
    if is_plain_text(schema)
        && let Some(example) = known(path)
    {
        schema["examples"] = json!([example]);
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    if let Some(properties) = properties {
        for (key, below) in properties {
            path.push(key.clone());
            add(below, path);
            path.pop();
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get_mut(key).filter(|below| below.is_object()) {
            add(below, path);
        }
    }
    for key in ["anyOf", "oneOf"] {
        let branches = schema.get_mut(key).and_then(Value::as_array_mut);
        for one in branches.into_iter().flatten() {
            add(one, path);
        }
    }
}

/// Whether this is a text of which nothing more is said.
fn is_plain_text(schema: &Value) -> bool {
    let is_said = ["examples", "enum", "const", "title"]
        .iter()
        .any(|key| schema.get(key).is_some());
    let has_default = schema["default"].is_string();
    kind(schema) == Some("string") && !is_said && !has_default
}

fn known(path: &[String]) -> Option<&'static str> {
    EXAMPLES
        .iter()
        .find(|(end, _)| ends_with(path, end))
        .map(|(_, example)| *example)
}

fn ends_with(path: &[String], end: &str) -> bool {
    let end: Vec<&str> = end.split('.').collect();
    let length = path.len();
    length >= end.len() && path[length - end.len()..].iter().eq(end.iter())
}
