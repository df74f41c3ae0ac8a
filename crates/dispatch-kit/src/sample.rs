//! Checks of templates with sample events: whether a template makes what its content type says,
//! before an event comes.
//!
//! The fields of future events are not known here. So a template is filled in with a value that
//! has every field, at every depth, and is a text where it is written. A template that can't be
//! filled in with that is not judged; one that can, and makes no JSON, will make none of events
//! either.

use std::fmt;
use std::sync::Arc;

use dispatch::{BoxError, ExactValue};
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde::de::IgnoredAny;

use crate::numbers::Values;
use crate::template::{Template, View};

/// Fields that every event has, as Fluent sends them.
const EVENT: &str = r#"{"id":"8f4b2a10-6f5e-4f0c-9a52-1b7f6c1d2e3f","name":"OrderStatusChange","accountId":"ACME",
"retailerId":"34","type":"NORMAL","entityType":"ORDER","entityId":"123","entityRef":"HD_1","entitySubtype":"HD",
"entityStatus":"BOOKED","rootEntityType":"ORDER","rootEntityId":"123","rootEntityRef":"HD_1","attributes":{},
"environment":"sandbox","origin":"webhook"}"#;

/// Text of a sample where it is written: valid JSON without quotes too, as some templates write
/// texts that they know to be numbers.
const TEXT: &str = "1";

/// Depth to which a sample has fields: below, it is a text.
const DEPTH: usize = 12;

/// A value that has every field, and each of them too; as a list, it has one element.
#[derive(Debug)]
pub(crate) struct Sample(usize);

impl Sample {
    fn below(&self) -> Value {
        if self.0 == 0 {
            TEXT.into()
        } else {
            Value::from_object(Self(self.0 - 1))
        }
    }

    /// Returns the text of a value, if it is a sample.
    pub(crate) fn text(value: &Value) -> Option<&'static str> {
        value.downcast_object_ref::<Self>().map(|_| TEXT)
    }
}

impl Object for Sample {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(self.below())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(vec![self.below()])
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TEXT)
    }
}

/// Returns values to try a template with.
fn samples() -> [View; 2] {
    let sample = || Value::from_object(Sample(DEPTH));
    let mut values = Values::of_samples();
    let event = values.value(ExactValue::parse(EVENT.as_bytes()).unwrap_or_default());
    let values = Value::from_object(values);
    let view = |event| View {
        event,
        enriched: sample(),
        outcome: sample(),
        values: values.clone(),
    };
    [view(event), view(sample())]
}

/// Returns the texts that `template` makes of samples, if it can be filled in with them.
pub(crate) fn texts(template: &Template) -> Vec<String> {
    samples()
        .iter()
        .filter_map(|view| template.fill(view).ok())
        .collect()
}

/// Ends of the content types that have a JSON in each line.
const LINES: [&str; 4] = ["ndjson", "jsonl", "jsonlines", "json-lines"];

/// Fails if a template for JSON makes none.
pub(crate) fn check(template: &Template, content_type: &str) -> Result<(), BoxError> {
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let parted_by = match &*kind {
        _ if kind.ends_with("json-seq") => Some('\u{1e}'),
        _ if LINES.iter().any(|end| kind.ends_with(end)) => Some('\n'),
        _ if kind.ends_with("json") => None,
        _ => return Ok(()),
    };
    for text in texts(template) {
        let parts: Vec<&str> = match parted_by {
            Some(end) => text
                .split(end)
                .filter(|part| !part.trim().is_empty())
                .collect(),
            None => vec![&text],
        };
        for part in parts {
            if let Err(error) = serde_json::from_str::<IgnoredAny>(part) {
                return Err(format!(
                    "of a sample event it makes no JSON, at line {} of what it makes: values are written as JSON, \
                     with their quotes, so expected {{{{ event.entityRef }}}} and not \"{{{{ event.entityRef }}}}\", \
                     and no comma after the last",
                    error.line()
                )
                .into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn checked(source: &str, content_type: &str, is_good: bool) {
        let template = Template::parse(source.to_owned(), content_type).unwrap();
        assert_eq!(check(&template, content_type).is_ok(), is_good, "{source}");
    }

    #[test]
    fn a_template_that_makes_no_json_is_refused() {
        for bad in [
            r#"{"ref": "{{ event.entityRef }}"}"#,
            r#"{"ref": "{{ event.attributes.anything.at.all }}"}"#,
            r#"{"ref": {{ event.entityRef }},}"#,
            r#"{"ref": {{ event.entityRef }}"#,
            "{{ event.entityRef }} {{ event.name }}",
            "ref={{ event.entityRef }}",
            r#"[{% for line in event.attributes.lines %}{{ line.sku }},{% endfor %}]"#,
            r#"{"a": {% if event.entityStatus == "BOOKED" %}yes{% else %}"no"{% endif %}}"#,
            r#"{"label": "{{ outcome.answer.label }}"}"#,
            r#"{"label": "{{ enriched.order.ref }}"}"#,
            "",
        ] {
            checked(bad, "application/json", false);
            checked(bad, "application/vnd.acme+json; charset=utf-8", false);
            checked(bad, "text/plain", true);
        }
    }

    #[test]
    fn a_template_that_may_make_json_is_not() {
        for good in [
            r#"{"ref": {{ event.entityRef }}, "x": {{ event.attributes.anything.at.all }}}"#,
            r#"{"ref": "{{ event.entityRef | safe }}", "n": {{ event.attributes.n | safe }}}"#,
            r#"{"n": {{ event.attributes.price * 2 }}, "m": {{ event.attributes.n | int }}}"#,
            r#"[{% for line in event.attributes.lines %}{{ line.sku }}{% if not loop.last %},{% endif %}{% endfor %}]"#,
            r#"{"t": {{ "a" ~ event.entityRef }}, "u": {{ event.entityRef | upper }}}"#,
            "{{ event.attributes }}",
            "{{ event | tojson }}",
            "{{ [event.attributes.a, {'b': event.attributes.b}] }}",
            r#"{"d": {{ event.attributes.d | default("x") }}, "k": {{ event.attributes["x y"][3] }}}"#,
            r#"{% set lines = event.attributes.lines %}{"n": {{ lines | length }}}"#,
            r#"{"status": {{ outcome.status }}, "label": {{ outcome.answer.label }}}"#,
        ] {
            checked(good, "application/json", true);
        }
        for lines in [
            "x-ndjson",
            "jsonl",
            "x-jsonlines",
            "json-lines; charset=utf-8",
        ] {
            let lines = format!("application/{lines}");
            checked("{{ event.entityRef }}\n{{ event.name }}\n", &lines, true);
            checked(r#"{"ref": {{ event.entityRef }}}"#, &lines, true);
            checked(r#"{"ref": "{{ event.entityRef }}"}"#, &lines, false);
            checked("{{ event.entityRef }}\nx\n", &lines, false);
        }
        checked("\u{1e}{{ event.name }}\n", "application/json-seq", true);
    }

    #[test]
    fn templates_to_copy_make_json() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/integrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.retain(|file| {
            file.extension()
                .is_some_and(|extension| extension == "json")
        });
        assert!(files.len() >= 7, "{files:?}");
        for file in files {
            crate::read_template(&file, "application/json").unwrap();
        }
    }
}
