//! Events: posted back, and looked for in Fluent's log of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::{Client, Needed, under};
use crate::error::ApiError;

const EVENT: &str = "api/v4.1/event";

/// Most records that are asked for at once.
const MOST: u32 = 1000;

/// How an event is posted.
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
    /// What the workflow's ruleset is called.
    pub name: String,
    /// Whose it is.
    pub retailer_id: String,
    /// `ORDER`, for one.
    pub entity_type: String,
    /// The entity, by id or by ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_id: Option<String>,
    /// See `entity_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_ref: Option<String>,
    /// What the entity belongs to: an order, for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_entity_type: Option<String>,
    /// See `root_entity_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_entity_id: Option<String>,
    /// See `root_entity_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_entity_ref: Option<String>,
    /// Whatever the workflow needs to know, as it is written: its numbers have their digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Box<RawValue>>,
}

/// What to look for in the log.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Records of this name.
    pub name: Option<String>,
    /// Of this category: `ACTION`, for one.
    pub category: Option<String>,
    /// About this entity.
    pub entity_ref: Option<String>,
    /// About whatever belongs to this entity.
    pub root_entity_ref: Option<String>,
    /// Of this retailer.
    pub retailer_id: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Not after.
    pub to: Option<Timestamp>,
    /// How many records to leave out.
    pub start: u32,
    /// How many to give, to 1,000.
    pub count: u32,
}

/// A page of the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// Whether there are more behind these.
    pub has_more: bool,
    /// They.
    pub results: Vec<EventRecord>,
}

/// One record of the log. It has no entity's status.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// Its id, opaque.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Whose tenant.
    #[serde(default)]
    pub account_id: String,
    /// Whose retailer.
    #[serde(default)]
    pub retailer_id: Option<Value>,
    /// `ORCHESTRATION`, for one.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// `ACTION`, for one.
    #[serde(default)]
    pub category: Option<String>,
    /// What it is about.
    #[serde(default)]
    pub context: EventContext,
    /// `SUCCESS`, for one.
    #[serde(default)]
    pub event_status: Option<String>,
    /// As a list of name, type and value.
    #[serde(default)]
    pub attributes: Option<Value>,
    /// When it was written, as Fluent writes times.
    #[serde(default)]
    pub generated_on: Option<String>,
}

/// What a record is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventContext {
    /// Events that led to it.
    pub source_events: Vec<String>,
    /// The entity.
    pub entity_type: Option<String>,
    /// See `entity_type`.
    pub entity_id: Option<Value>,
    /// See `entity_type`.
    pub entity_ref: Option<String>,
    /// What it belongs to.
    pub root_entity_type: Option<String>,
    /// See `root_entity_type`.
    pub root_entity_id: Option<Value>,
    /// See `root_entity_type`.
    pub root_entity_ref: Option<String>,
}

/// A time as Fluent's log has them: to the millisecond, which it is cut to.
fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A time as Fluent writes it, whose offset may lack its colon. Nothing where it is none.
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
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
        let times = times.into_iter().filter_map(|(name, at)| Some((name, written(at?))));
        let page = [("start", self.start.to_string()), ("count", self.count.clamp(1, MOST).to_string())];
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
        self.ask(Needed::Status, |http, base| http.post(under(base, &path)).json(event)).await.map(drop)
    }

    /// A page of Fluent's log of events.
    pub async fn events(&self, query: &EventQuery) -> Result<EventPage, ApiError> {
        let parameters = query.parameters();
        let answer =
            self.ask(Needed::Body, |http, base| http.get(under(base, EVENT)).query(&parameters)).await?;
        serde_json::from_slice(&answer).map_err(|_| ApiError::Unreadable("expected a page of events"))
    }
}
