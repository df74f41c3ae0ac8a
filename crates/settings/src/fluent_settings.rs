//! Fluent's own API: the login of each account, and a route's questions before it delivers.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use event_model::Environment;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::message::shortened;
use crate::plaintext::is_this_machine;
use crate::telemetry_settings::SecretFile;
use crate::tree::SettingsTree;
use crate::values::DurationText;

const ACCOUNTS: [&str; 2] = ["fluent-connect", "accounts"];

/// Most requests at once to one account.
const MOST_AT_ONCE: u32 = 64;

/// The range of a request's timeout: a shorter one always fails, a longer one outlasts a lease.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60);

/// Longest `max-wait`: an entity that can't be read for longer does not exist.
const MAX_WAIT: Duration = Duration::from_hours(1);

/// `api:` of an account: how its API is asked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApiSettings {
    /// The API's base URL; left out, Fluent's for the account and its environment.
    pub url: Option<String>,
    /// The user's name for the login.
    pub username: String,
    /// The user's password.
    pub password: SecretFile,
    /// The OAuth client's id.
    pub client_id: String,
    /// The OAuth client's secret.
    pub client_secret: SecretFile,
    /// Most requests at the same time, in each process; at most 64.
    #[serde(default = "concurrency")]
    pub concurrency: NonZeroU32,
    /// Most requests in a second, in each process.
    #[serde(default = "requests_per_second")]
    pub requests_per_second: NonZeroU32,
    /// How long a request may take; 1s to 60s.
    #[serde(default = "timeout")]
    #[schemars(with = "DurationText")]
    #[serde(with = "crate::values::duration")]
    pub timeout: Duration,
}

fn concurrency() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(7)
}

fn requests_per_second() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(19)
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

/// An account whose API may be called.
#[derive(Clone, Debug)]
pub struct ApiAccount {
    /// Fluent's accountId.
    pub name: String,
    /// Its environment.
    pub environment: Environment,
    /// The API's base URL.
    pub url: url::Url,
    /// Its login, and the limits of its use.
    pub api: ApiSettings,
}

/// `enrich:` of a route: what it asks Fluent about an event before it delivers it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EnrichSettings {
    /// A GraphQL query's file, relative to the settings.
    pub query: PathBuf,
    /// Its variables: templates over `event`.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// How long after the first attempt to wait for Fluent's API to have the entity, as new as
    /// the event; at most 1h. Later, an entity that is missing makes a dead letter.
    #[serde(default = "max_wait")]
    #[schemars(with = "DurationText")]
    #[serde(with = "crate::values::duration")]
    pub max_wait: Duration,
    /// Whether to compare the entity's present state with the event.
    pub freshness: Option<FreshnessSettings>,
}

/// The usual time that a route waits for an entity.
pub(crate) fn max_wait() -> Duration {
    Duration::from_mins(2)
}

/// `freshness:` of `enrich`: where in the answer the entity's state is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FreshnessSettings {
    /// Path of the status in the answer, such as `orderById.status`: compared with the event's.
    pub status: String,
    /// Path of the time of the last change, such as `orderById.updatedOn`.
    pub updated: String,
    /// What to do with an event whose entity has changed since.
    #[serde(default)]
    pub outdated: OutdatedPolicy,
}

/// What becomes of an event whose entity has moved on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutdatedPolicy {
    /// It is delivered, with the entity as it is now.
    #[default]
    Deliver,
    /// It is done, and nobody gets it.
    Skip,
}

/// `entity-check:` of a route: who must confirm an event before it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EntityCheckSource {
    /// Fluent's API: it must know the entity, by the same ref.
    Fluent,
}

impl EntityCheckSource {
    /// Types of entities that Fluent can be asked about with the fields that an event has.
    pub const ENTITY_TYPES: [&str; 9] = [
        "ORDER",
        "FULFILMENT",
        "ARTICLE",
        "CONSIGNMENT",
        "WAVE",
        "LOCATION",
        "RETURN_ORDER",
        "BILLING_ACCOUNT",
        "INVOICE",
    ];

    /// Refuses a type of which every event would become a dead letter.
    pub(crate) fn check(self, entity_types: &[String]) -> Result<(), String> {
        let is_known = |kind: &&String| Self::ENTITY_TYPES.contains(&kind.as_str());
        let Some(unknown) = entity_types.iter().find(|kind| !is_known(kind)) else {
            return Ok(());
        };
        let why = match unknown.as_str() {
            "INVENTORY_POSITION" => {
                "Fluent is asked for an INVENTORY_POSITION by its catalogue too, which is in no event"
                    .to_owned()
            }
            other => format!("Fluent can't be asked for a {}", shortened(other)),
        };
        let known = Self::ENTITY_TYPES.join(", ");
        Err(format!(
            "{why}, and every such event would be a dead letter: give it a route without `entity-check`; it knows {known}"
        ))
    }
}

/// An entry of `fluent-connect.accounts`, as far as its API is concerned.
#[derive(Debug, Deserialize, JsonSchema)]
struct RawFluentAccount {
    name: String,
    #[schemars(with = "String")]
    environment: Environment,
    api: Option<ApiSettings>,
}

impl SettingsTree {
    /// The accounts that have an `api`.
    ///
    /// # Errors
    /// If an entry is not valid.
    pub fn apis(&self) -> Result<Vec<ApiAccount>, SettingsError> {
        if self.at(&ACCOUNTS).is_none() {
            return Ok(Vec::new());
        }
        let listed: Vec<RawFluentAccount> = self.read(&ACCOUNTS, &self.value_at(&ACCOUNTS))?;
        let mut accounts = Vec::new();
        for (
            index,
            RawFluentAccount {
                name,
                environment,
                api,
            },
        ) in listed.into_iter().enumerate()
        {
            let Some(api) = api else { continue };
            let index = index.to_string();
            let at = |key| [ACCOUNTS[0], ACCOUNTS[1], &index, "api", key];
            if api.concurrency.get() > MOST_AT_ONCE {
                return Err(
                    self.invalid(&at("concurrency"), &format!("expected 1 to {MOST_AT_ONCE}"))
                );
            }
            if !TIMEOUTS.contains(&api.timeout) {
                return Err(self.invalid(&at("timeout"), "expected 1s to 60s"));
            }
            let is_known =
                |known: &ApiAccount| known.name == name && known.environment == environment;
            if accounts.iter().any(is_known) {
                let why = "two accounts of this name and environment have an `api`: expected one";
                return Err(self.invalid(&at("url"), why));
            }
            let url = api.url.clone().unwrap_or_else(|| usual(&name, environment));
            let url = url::Url::parse(&url).ok().filter(is_safe);
            let url = url.ok_or_else(|| {
                self.invalid(
                    &at("url"),
                    "expected https:// and a host, such as https://ACME.api.fluentretail.com",
                )
            })?;
            accounts.push(ApiAccount {
                name,
                environment,
                url,
                api,
            });
        }
        Ok(accounts)
    }

    pub(crate) fn check_enrich(
        &self,
        path: &[&str],
        enrich: &EnrichSettings,
    ) -> Result<(), SettingsError> {
        if enrich.max_wait > MAX_WAIT {
            return Err(self.invalid(&[path, &["max-wait"]].concat(), "expected up to 1h"));
        }
        let is_path = |text: &str| !text.is_empty() && text.split('.').all(|part| !part.is_empty());
        match &enrich.freshness {
            Some(freshness) if !is_path(&freshness.status) || !is_path(&freshness.updated) => {
                let why = "expected the places of status and updated in the answer, such as orderById.status";
                Err(self.invalid(&[path, &["freshness"]].concat(), why))
            }
            _ => Ok(()),
        }
    }
}

/// True if a password may be sent there: by TLS, or on this machine.
fn is_safe(url: &url::Url) -> bool {
    let is_here = || url.host_str().is_some_and(is_this_machine);
    url.scheme() == "https" || (url.scheme() == "http" && is_here())
}

/// The base URL of Fluent's API for an account.
fn usual(account: &str, environment: Environment) -> String {
    let middle = match environment {
        Environment::Sandbox => ".sandbox",
        Environment::Production => "",
    };
    format!("https://{account}{middle}.api.fluentretail.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accounts_api_is_where_fluent_has_it() {
        assert_eq!(
            usual("ACME", Environment::Production),
            "https://ACME.api.fluentretail.com"
        );
        assert_eq!(
            usual("ACME", Environment::Sandbox),
            "https://ACME.sandbox.api.fluentretail.com"
        );
    }

    fn confirmed(matching: &str) -> Result<(), String> {
        let text = format!(
            "fluent-connect:\n  routes:\n  - {{ name: r, match: {matching}, dispatcher: log, entity-check: fluent }}\n"
        );
        let tree = SettingsTree::parse(std::path::Path::new("application.yml"), &text, []).unwrap();
        tree.routes(None)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_fluent_can_not_be_asked_for_is_not_confirmed() {
        for matching in [
            "{}",
            "{ entity-type: ORDER }",
            "{ entity-type: [ORDER, INVOICE] }",
        ] {
            assert_eq!(confirmed(matching), Ok(()), "{matching}");
        }
        let position = confirmed("{ entity-type: [ORDER, INVENTORY_POSITION] }").unwrap_err();
        for words in [
            "application.yml:3: fluent-connect.routes[0] (r).entity-check: ",
            "its catalogue",
            "a route without",
        ] {
            assert!(position.contains(words), "{position}");
        }
        let other = confirmed("{ entity-type: PAYMENT }").unwrap_err();
        assert!(
            other.contains("can't be asked for a PAYMENT") && other.contains("RETURN_ORDER"),
            "{other}"
        );
    }
}
