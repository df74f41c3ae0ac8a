//! The JSON Schema of the settings.

use dispatch::Registry;
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::examples;
use crate::files_settings::FilesSettings;
use crate::jet_stream_settings::JetStreamSettings;
use crate::operator_settings;
use crate::queue_settings::EmbeddedSettings;
use crate::reconcile_settings;
use crate::routes::RawRoute;
use crate::seal_settings::SealSettings;
use crate::spool_settings::{Acknowledge, SpoolSettings};
use crate::telemetry_settings::TelemetrySettings;
use crate::webhook::{AccountSettings, WebhookSettings};

/// The JSON Schema of `application.yml` for a binary with these dispatchers,
/// for editors.
pub fn schema(registry: &Registry) -> Value {
    let mut route = schema_of::<RawRoute>();
    for (kind, table) in registry.schemas() {
        route["properties"][kind] = without_meta(table.to_value());
    }
    let retired = json!({"type": "boolean", "description": "it admits nothing any more, and still proves what is stored"});
    let key = json!({"oneOf": [
        {"type": "string", "description": "base64 SPKI or PEM"},
        {"type": "object", "properties": {"file": {"type": "string"}, "retired": retired.clone()}, "required": ["file"], "additionalProperties": false},
        {"type": "object", "properties": {"key": {"type": "string"}, "retired": retired}, "required": ["key"], "additionalProperties": false},
    ]});
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fluent-webhooks settings",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "fluent-connect": {
                "type": "object",
                "additionalProperties": false,
                "required": ["accounts"],
                "properties": {
                    "connector-name": {"type": "string", "description": "A name of this installation, as in the Java SDK's settings; it changes nothing."},
                    "accounts": {"type": "array", "minItems": 1, "items": schema_of::<AccountSettings>()},
                    "webhook": schema_of::<WebhookSettings>(),
                    "queue": {"anyOf": [schema_of::<EmbeddedSettings>(), schema_of::<JetStreamSettings>()]},
                    "spool": schema_of::<SpoolSettings>(),
                    "acknowledge": schema_of::<Acknowledge>(),
                    "health": {"type": "string", "description": "Address and port for `/livez` and `/readyz`."},
                    "drain-after": {"type": "string", "description": "Time after a stop signal during which a process reports that it is not ready and still takes work, so that a load balancer notices; at most 15s."},
                    "files": schema_of::<FilesSettings>(),
                    "operator": schema_of::<operator_settings::RawOperatorSettings>(),
                    "telemetry": schema_of::<TelemetrySettings>(),
                    "reconcile": schema_of::<reconcile_settings::RawReconcileSettings>(),
                    "seal": schema_of::<SealSettings>(),
                    "routes": {"type": "array", "items": route},
                },
            },
            "fluentcommerce": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "fluent-webhook-keys": {
                        "type": "object",
                        "additionalProperties": {"oneOf": [key, {"type": "array", "items": key}]},
                    },
                },
            },
        },
    });
    examples::add(&mut schema, &mut Vec::new());
    schema
}

/// The schema of the table of a kind of dispatcher, which is at `path`.
pub(crate) fn table_schema(registry: &Registry, kind: &str, path: &[&str]) -> Value {
    let found = registry.schemas().find(|(known, _)| *known == kind);
    let table = found.map_or(Value::Null, |(_, table)| without_meta(table.to_value()));
    with_examples(table, path)
}

/// The schema of what is at `path`.
pub(crate) fn schema_at<T: JsonSchema>(path: &[&str]) -> Value {
    with_examples(schema_of::<T>(), path)
}

fn with_examples(mut schema: Value, path: &[&str]) -> Value {
    let is_key = |key: &&&str| key.parse::<usize>().is_err();
    let mut path = path
        .iter()
        .filter(is_key)
        .map(|key| (*key).to_owned())
        .collect();
    examples::add(&mut schema, &mut path);
    schema
}

/// The schema of one section, with everything it refers to inside it.
fn schema_of<T: JsonSchema>() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    without_meta(schema.to_value())
}

fn without_meta(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        // The name of a type in Rust; a title of ours is a noun with its article.
        if !object.get("title").is_some_and(is_phrase) {
            object.remove("title");
        }
    }
    schema
}

fn is_phrase(title: &Value) -> bool {
    title
        .as_str()
        .is_some_and(|title| title.starts_with("a ") || title.starts_with("an "))
}
