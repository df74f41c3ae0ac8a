//! Posts an event back to Fluent, about the entity of the event that it got or another:
//! the answer to a workflow that waits for one.
//!
//! ```text
//! POST <api>/api/v4.1/event/async
//! name retailerId entityType entityRef entityId rootEntity… attributes
//! ```
//!
//! The account is that of the event, and needs `api` in the settings. Fluent knows no
//! idempotency key: what is posted again after a crash is there twice, so a workflow must
//! take an answer that it has.
//!
//! Start reading at [`FluentDispatcher`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch::{
    BoxError, Context, DispatchError, Dispatcher, Done, Event, InvalidSetting, MASKED, OpenContext,
    OpenErrors, Preview, Role,
};
use dispatch_kit::{Template, View, read_template};
use fluent_api::{Accounts, ApiError, Mode, NewEvent};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

const ACTION: &str = "posting an event to Fluent";

/// The route's `fluent:` table. Its texts are templates over `event` and `enriched`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FluentSettings {
    /// The new event's name: what the workflow's ruleset is called.
    event: String,
    /// The entity's type; left out, that of the event.
    entity_type: Option<String>,
    /// Its ref; left out with the type, that of the event.
    entity_ref: Option<String>,
    /// The file of a JSON template that makes the attributes: one object.
    attributes: Option<PathBuf>,
    /// `async`: Fluent works on it later. `sync`: it answers when it has.
    #[serde(default)]
    mode: ModeSettings,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ModeSettings {
    #[default]
    Async,
    Sync,
}

/// Posts events to the workflows of the accounts that they came from.
#[derive(Debug)]
pub struct FluentDispatcher {
    accounts: Accounts,
    name: Template,
    /// What the history has of a post: the name as the settings have it, since a filled template
    /// may hold an attribute's value.
    remark: String,
    entity: Option<(Template, Template)>,
    attributes: Option<Template>,
    mode: Mode,
}

#[derive(Debug, thiserror::Error)]
enum NotPosted {
    #[error("the settings have no `api` for the event's account and environment")]
    WithoutApi,
    #[error("its template for attributes did not make a JSON object")]
    NotAnObject,
    #[error("neither the event nor the settings name the entity")]
    WithoutEntity,
}

impl Dispatcher for FluentDispatcher {
    const KIND: &'static str = "fluent";
    type Settings = FluentSettings;

    async fn open(settings: FluentSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let accounts = cx
            .extension::<Accounts>()
            .filter(|accounts| !accounts.is_empty())
            .cloned();
        let plain = |key: &str, text: String| {
            let template = Template::parse(text.clone(), "text/plain");
            template.map_err(|error| InvalidSetting::new(text, format!("{key}: {error}")))
        };
        let mut errors = OpenErrors::default();
        let accounts = errors.check(
            accounts.ok_or("it posts to Fluent's API: expected `api` in one of the accounts"),
        );
        let remark = format!("posted `{}` back to Fluent", settings.event);
        let name = errors.check(plain("event", settings.event));
        let entity = match (settings.entity_type, settings.entity_ref) {
            (None, None) => Some(None),
            (Some(kind), Some(name)) => {
                let kind = errors.check(plain("entity-type", kind));
                let name = errors.check(plain("entity-ref", name));
                kind.zip(name).map(Some)
            }
            _ => errors.check(Err(
                "expected entity-type and entity-ref together, or neither",
            )),
        };
        let file = settings
            .attributes
            .map(|file| attributes(&cx.resolve(&file)));
        let attributes = errors.check(file.transpose());
        match (accounts, name, entity, attributes) {
            (Some(accounts), Some(name), Some(entity), Some(attributes)) => Ok(Self {
                accounts,
                name,
                remark,
                entity,
                attributes,
                mode: match settings.mode {
                    ModeSettings::Async => Mode::Async,
                    ModeSettings::Sync => Mode::Sync,
                },
            }),
            _ => Err(errors.into_error()),
        }
    }

    /// Long enough that Fluent's own limits apply: cut off before, an event would be posted
    /// again.
    fn timeout(&self) -> Duration {
        self.accounts.longest() + Duration::from_secs(1)
    }

    fn preview(&self, event: &Event, cx: &Context) -> Result<Option<Preview>, DispatchError> {
        let mode = match self.mode {
            Mode::Async => "async",
            Mode::Sync => "sync",
        };
        let body = serde_json::to_string(&self.make(event, cx)?);
        let body = body.map_err(|error| DispatchError::permanent(ACTION, error))?;
        let account = event.account();
        let target = format!("POST /api/v4.1/event/{mode} at the API of account {account}");
        let preview = Preview::new(target, body)
            .with("content-type", "application/json")
            .with("authorization", format!("Bearer {MASKED}"));
        Ok(Some(preview))
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let client = self
            .accounts
            .of(event.account(), event.environment().as_str());
        let client =
            client.ok_or_else(|| DispatchError::permanent(ACTION, NotPosted::WithoutApi))?;
        let answer = self.make(event, cx)?;
        let call = cx.call(Role::Client, "POST");
        match client.post_event(&answer, self.mode).await {
            Ok(()) => {
                call.answered(Vec::new);
                Ok(Done::default().remarking(&self.remark))
            }
            Err(error) => {
                call.failed(error.kind(), Vec::new);
                Err(failed(error))
            }
        }
    }
}

impl FluentDispatcher {
    fn make(&self, event: &Event, cx: &Context) -> Result<NewEvent, DispatchError> {
        let view = View::of_attempt(event, cx)?;
        let fields = event.fields();
        let new = NewEvent {
            name: self.name.fill(&view)?,
            retailer_id: event.retailer().to_owned(),
            attributes: self.attributes(&view)?,
            root_entity_type: fields.root_entity_type.clone(),
            root_entity_id: fields.root_entity_id.clone(),
            root_entity_ref: fields.root_entity_ref.clone(),
            ..NewEvent::default()
        };
        let new = match &self.entity {
            Some((kind, name)) => NewEvent {
                entity_type: kind.fill(&view)?,
                entity_ref: Some(name.fill(&view)?),
                ..new
            },
            None => NewEvent {
                entity_type: fields.entity_type.clone().unwrap_or_default(),
                entity_id: fields.entity_id.clone(),
                entity_ref: fields.entity_ref.clone(),
                ..new
            },
        };
        let has_entity =
            !new.entity_type.is_empty() && (new.entity_id.is_some() || new.entity_ref.is_some());
        if has_entity {
            Ok(new)
        } else {
            Err(DispatchError::permanent(ACTION, NotPosted::WithoutEntity))
        }
    }

    fn attributes(&self, view: &View) -> Result<BTreeMap<String, Box<RawValue>>, DispatchError> {
        let Some(template) = &self.attributes else {
            return Ok(BTreeMap::new());
        };
        let made = serde_json::from_str(&template.fill(view)?);
        made.map_err(|_| DispatchError::permanent(ACTION, NotPosted::NotAnObject))
    }
}

/// Reads the template of the attributes, and refuses one that makes anything but an object of
/// sample events.
fn attributes(path: &Path) -> Result<Template, BoxError> {
    let template = read_template(path, "application/json")?;
    let is_object =
        |text: &String| serde_json::from_str::<BTreeMap<String, &RawValue>>(text).is_ok();
    let texts: Vec<String> = template.sample_texts().collect();
    match texts.is_empty() || texts.iter().any(is_object) {
        true => Ok(template),
        false => Err(format!(
            "template {}: of a sample event it makes no JSON object",
            path.display()
        )
        .into()),
    }
}

fn failed(error: ApiError) -> DispatchError {
    let status = match &error {
        ApiError::Refused { status, .. }
        | ApiError::Server { status, .. }
        | ApiError::Login { status } => Some(*status),
        _ => None,
    };
    if !error.is_sent() {
        return DispatchError::not_asked(ACTION, error.wait(), error);
    }
    match error.is_transient() {
        true => DispatchError::Transient {
            action: ACTION,
            retry_after: error.wait(),
            status,
            source: error.into(),
        },
        false => DispatchError::Permanent {
            action: ACTION,
            status,
            source: error.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_sent_says_nothing_of_fluent() {
        let wait = Duration::from_secs(7);
        for (error, expected) in [
            (ApiError::Paused { wait }, Some(wait)),
            (ApiError::LoginPaused { wait }, Some(wait)),
            (ApiError::LoginRests { wait }, Some(wait)),
            (ApiError::Busy, None),
            (ApiError::LoginBusy, None),
            (ApiError::LoginLedger("x".into()), None),
            (ApiError::Secret("x".into()), None),
        ] {
            let said = failed(error);
            assert!(matches!(said, DispatchError::NotAsked { .. }), "{said:?}");
            assert_eq!(said.retry_after(), expected, "{said:?}");
        }
        for error in [
            ApiError::RateLimited { wait },
            ApiError::Login { status: 400 },
            ApiError::TimedOut,
            ApiError::NotConnected("x".into()),
        ] {
            let said = failed(error);
            assert!(matches!(said, DispatchError::Transient { .. }), "{said:?}");
        }
    }

    #[test]
    fn attributes_are_one_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attributes.json");
        for (text, is_good) in [
            (r#"{"label": {{ outcome.answer.label }}}"#, true),
            (r#"{{ event.attributes }}"#, true),
            (r#"[{{ event.entityRef }}]"#, false),
            (r#"{{ event.entityRef }}"#, false),
            (r#"{"label": "{{ outcome.answer.label }}"}"#, false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(attributes(&path).is_ok(), is_good, "{text}");
        }
    }
}
