//! What `check` and `routes test` print.

use dispatch::Preview;
use schemars::JsonSchema;
use serde::Serialize;

/// Settings that are valid. Invalid ones are an error with exit code 78, and no JSON.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckedSettings {
    /// The settings' file.
    pub(crate) config: String,
    /// Always true.
    pub(crate) valid: bool,
    /// The address of the webhook port.
    pub(crate) listen: String,
    /// The path to which webhooks are sent.
    pub(crate) path: String,
    /// The accounts whose webhooks are accepted.
    pub(crate) accounts: Vec<String>,
    /// The keys that are out of use.
    pub(crate) retired_keys: Vec<RetiredKey>,
    /// The routes' names.
    pub(crate) routes: Vec<String>,
    /// The names of events that are compared with Fluent's log; `null` if none is compared.
    pub(crate) reconciled: Option<Vec<String>>,
    /// What is valid and probably not meant.
    pub(crate) warnings: Vec<String>,
    /// For `--online`: what Fluent answered to each login.
    pub(crate) logins: Option<Vec<TriedLogin>>,
}

/// A key that is out of use.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetiredKey {
    pub(crate) name: String,
    /// What it still does, in words.
    pub(crate) detail: String,
}

/// One login at Fluent, tried once.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TriedLogin {
    pub(crate) account: String,
    pub(crate) environment: String,
    pub(crate) accepted: bool,
    /// Why it was not accepted, or not tried.
    pub(crate) error: Option<String>,
}

/// Whether one route takes an event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestedRoute {
    /// Its name; `unrouted` if no route takes the event.
    pub(crate) route: String,
    /// Whether it takes the event; `null` if its `when` gives no answer.
    pub(crate) matches: Option<bool>,
    /// Why it does not.
    pub(crate) why: Vec<String>,
    /// What it would send; `null` if it does not take the event.
    pub(crate) sends: Option<SentPreview>,
}

/// What a route would send, or why that can't be said.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SentPreview {
    /// The place to which it would go.
    pub(crate) target: Option<String>,
    /// Headers or fields, in the order in which they would be sent; secrets are masked.
    pub(crate) headers: Vec<PreviewHeader>,
    pub(crate) body: Option<String>,
    /// Why it can't be said what would be sent.
    pub(crate) error: Option<String>,
}

/// A header or field of what would be sent.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PreviewHeader {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl From<Result<Preview, String>> for SentPreview {
    fn from(rendered: Result<Preview, String>) -> Self {
        let preview = match rendered {
            Ok(preview) => preview,
            Err(why) => {
                return Self {
                    error: Some(why),
                    ..Self::default()
                };
            }
        };
        let headers = preview.headers.into_iter();
        Self {
            target: Some(preview.target),
            headers: headers
                .map(|(name, value)| PreviewHeader { name, value })
                .collect(),
            body: Some(preview.body),
            error: None,
        }
    }
}
