//! Events: posting them to Fluent, and reading Fluent's log of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client::{Client, RequiredPart, under};
use crate::error::ApiError;
use crate::request::Request;

const EVENT: &str = "api/v4.1/event";

/// Most records of one page.
const MOST: u32 = 1000;

/// Ways of posting an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Fluent takes it, and works on it later.
    #[default]
    Async,
    /// Fluent answers when its workflow has run.
    Sync,
}

/// An event for a workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewEvent {
    /// Name of the event, which is that of the workflow's ruleset.
    pub name: String,
    /// Retailer of the event.
    pub retailer_id: String,
    /// Type of the entity, such as `ORDER`.
    pub entity_type: String,
    /// Id of the entity; `entity_ref` may name it instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_id: Option<String>,
    /// Ref of the entity; see `entity_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_ref: Option<String>,
    /// Type of the root entity, such as the order of a fulfilment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_entity_type: Option<String>,
    /// Id of the root entity; `root_entity_ref` may name it instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_entity_id: Option<String>,
    /// Ref of the root entity; see `root_entity_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_entity_ref: Option<String>,
    /// Attributes for the workflow, as they are written: numbers keep their digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Box<RawValue>>,
}

/// Query of the log.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Only records of this name.
    pub name: Option<String>,
    /// Only records of this category, such as `ACTION`.
    pub category: Option<String>,
    /// Only records about this entity.
    pub entity_ref: Option<String>,
    /// Only records about anything that belongs to this entity.
    pub root_entity_ref: Option<String>,
    /// Only records of this retailer.
    pub retailer_id: Option<String>,
    /// Only records of this time or later.
    pub from: Option<Timestamp>,
    /// Only records of this time or earlier.
    pub to: Option<Timestamp>,
    /// Number of records to skip.
    pub start: u32,
    /// Number of records to return, at most 1,000.
    pub count: u32,
}

/// A page of the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// Whether there are more records after these.
    pub has_more: bool,
    /// The records of this page.
    pub results: Vec<EventRecord>,
}

/// A record of the log. It does not have the entity's status.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// Its id, opaque.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Account of the event.
    #[serde(default)]
    pub account_id: String,
    /// Retailer of the event.
    #[serde(default)]
    pub retailer_id: Option<Box<RawValue>>,
    /// Type of the record, such as `ORCHESTRATION`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Category of the record, such as `ACTION`.
    #[serde(default)]
    pub category: Option<String>,
    /// Entities that the record is about.
    #[serde(default)]
    pub context: EventContext,
    /// Status of the event, such as `SUCCESS`.
    #[serde(default)]
    pub event_status: Option<String>,
    /// Attributes, as a list of name, type and value, with every number as it is written.
    #[serde(default)]
    pub attributes: Option<Box<RawValue>>,
    /// Time at which it was written, in Fluent's format.
    #[serde(default)]
    pub generated_on: Option<String>,
}

/// Entities that a record is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventContext {
    /// Ids of the events that led to it.
    pub source_events: Vec<String>,
    /// Type of the entity.
    pub entity_type: Option<String>,
    /// Id of the entity.
    pub entity_id: Option<Box<RawValue>>,
    /// Ref of the entity.
    pub entity_ref: Option<String>,
    /// Type of the root entity.
    pub root_entity_type: Option<String>,
    /// Id of the root entity.
    pub root_entity_id: Option<Box<RawValue>>,
    /// Ref of the root entity.
    pub root_entity_ref: Option<String>,
}

/// Formats a time as Fluent's log has it: to the millisecond, the rest cut off.
fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Parses a time as Fluent writes it, whose offset may lack its colon. `None` if it is not a
/// time.
pub fn time(text: &str) -> Option<Timestamp> {
    let plain = text.parse().ok();
    plain.or_else(|| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text).ok())
}

impl EventQuery {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("name", &self.name),
            ("category", &self.category),
            ("context.entityRef", &self.entity_ref),
            ("context.rootEntityRef", &self.root_entity_ref),
            ("retailerId", &self.retailer_id),
        ];
        let times = [("from", self.from), ("to", self.to)];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.clone()?)));
        let times = times
            .into_iter()
            .filter_map(|(name, at)| Some((name, written(at?))));
        let page = [
            ("start", self.start.to_string()),
            ("count", self.count.clamp(1, MOST).to_string()),
        ];
        texts.chain(times).chain(page).collect()
    }
}

impl Client {
    /// Posts an event to its workflow.
    pub async fn post_event(&self, event: &NewEvent, mode: Mode) -> Result<(), ApiError> {
        let path = match mode {
            Mode::Async => format!("{EVENT}/async"),
            Mode::Sync => format!("{EVENT}/sync"),
        };
        self.ask(RequiredPart::Status, |base| {
            Request::post_json(under(base, &path), event)
        })
        .await
        .map(drop)
    }

    /// Reads a page of Fluent's log of events.
    pub async fn events(&self, query: &EventQuery) -> Result<EventPage, ApiError> {
        let parameters = query.parameters();
        let answer = self
            .ask(RequiredPart::Body, |base| {
                Ok(Request::get(under(base, EVENT), &parameters))
            })
            .await?;
        serde_json::from_slice(&answer)
            .map_err(|_| ApiError::Unreadable("expected a page of events"))
    }
}
