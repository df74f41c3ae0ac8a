//! The JSON Schema of the settings.

use dispatch::Registry;
use schemars::JsonSchema;
use serde_json::{Value, json};

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
    let mut route = of::<RawRoute>();
    for (kind, table) in registry.schemas() {
        route["properties"][kind] = without_meta(table.to_value());
    }
    let retired = json!({"type": "boolean", "description": "it admits nothing any more, and still proves what is stored"});
    let key = json!({"oneOf": [
        {"type": "string", "description": "base64 SPKI or PEM"},
        {"type": "object", "properties": {"file": {"type": "string"}, "retired": retired.clone()}, "required": ["file"], "additionalProperties": false},
        {"type": "object", "properties": {"key": {"type": "string"}, "retired": retired}, "required": ["key"], "additionalProperties": false},
    ]});
    json!({
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
                    "accounts": {"type": "array", "minItems": 1, "items": of::<AccountSettings>()},
                    "webhook": of::<WebhookSettings>(),
                    "queue": {"anyOf": [of::<EmbeddedSettings>(), of::<JetStreamSettings>()]},
                    "spool": of::<SpoolSettings>(),
                    "acknowledge": of::<Acknowledge>(),
                    "health": {"type": "string", "description": "Address and port for `/livez` and `/readyz`."},
                    "drain-after": {"type": "string", "description": "Time after a stop signal during which a process reports that it is not ready and still takes work, so that a load balancer notices; at most 15s."},
                    "files": of::<FilesSettings>(),
                    "operator": of::<operator_settings::RawOperatorSettings>(),
                    "telemetry": of::<TelemetrySettings>(),
                    "reconcile": of::<reconcile_settings::RawReconcileSettings>(),
                    "seal": of::<SealSettings>(),
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
    })
}

/// The schema of one section, with everything it refers to inside it.
fn of<T: JsonSchema>() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    without_meta(schema.to_value())
}

fn without_meta(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("title");
    }
    schema
}
