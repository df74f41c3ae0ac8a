//! The settings of a gateway: its port, its accounts, and the verification of signatures.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_model::{Account, Accounts, Algorithm, Environment, KeyName};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use verifier::{KeyRing, Signatures};

use crate::error::SettingsError;
use crate::fluent_settings::ApiSettings;
use crate::message::shortened;
use crate::section::nearest;
use crate::tree::SettingsTree;
use crate::trusted_proxies::{AddressFrom, Network, TrustedProxies, trusted_proxies};
use crate::values::{ByteSize, DurationText};

/// Largest body limit that can be set: bodies are held in memory.
const MAX_BODY_LIMIT: u64 = 16 << 20;

/// Longest `drain-after`: a process has half a minute to stop, and this is a part of it.
const MAX_NOTICE: Duration = Duration::from_secs(15);

/// The regions that Fluent has.
pub const REGIONS: [&str; 4] = ["sydney", "dublin", "singapore", "north_america"];

/// The settings that a gateway reads.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Address and port for webhooks.
    pub listen: SocketAddr,
    /// The endpoint's path.
    pub path: String,
    /// Largest body in bytes.
    pub body_limit: usize,
    /// The treatment of genuine bodies that are not events.
    pub malformed: OnMalformed,
    /// The certificate to show, if TLS does not end before us.
    pub tls: Option<ServerTls>,
    /// The proxies that are believed about the client's address.
    pub proxies: TrustedProxies,
    /// The algorithms and headers of signatures.
    pub signatures: Signatures,
    /// The accounts that may send.
    pub accounts: Accounts,
    /// The number and names of the accounts, for people.
    pub account_names: Vec<String>,
    /// The keys whose signatures are valid.
    pub keys: Arc<KeyRing>,
}

/// What to do with a genuine body that is not an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnMalformed {
    /// Keep it, and answer 200.
    #[default]
    Quarantine,
    /// Answer 400.
    Refuse,
}

/// `fluent-connect.webhook`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct WebhookSettings {
    /// Address and port for webhooks.
    listen: SocketAddr,
    /// Path of the webhook endpoint.
    path: String,
    /// Algorithms of signatures that are accepted: `sha512`, and `md5` only if a proxy removes the
    /// other header. The same for gateways and dispatchers: what is stored is verified again.
    #[schemars(with = "Vec<String>")]
    signatures: Vec<Algorithm>,
    /// Names of the signature headers, if a proxy renames them.
    signature_headers: SignatureHeaders,
    /// Largest body of a webhook; at most 16MiB.
    body_limit: ByteSize,
    /// What to do with a body whose signature is valid and that is no event.
    malformed: OnMalformed,
    /// The server certificate, if no proxy ends TLS before this port.
    tls: Option<ServerTls>,
    /// Addresses and networks of the proxies before this port, which are believed about the
    /// client's address.
    trusted_proxies: Vec<Network>,
    /// How those proxies tell the client's address: `x-forwarded-for` (the default), `forwarded` or
    /// `proxy-protocol`.
    client_address: Option<AddressFrom>,
}

/// `fluent-connect.webhook.tls`. Both files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM: the certificate, then the intermediate ones.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SignatureHeaders {
    /// Headers of SHA512withRSA.
    sha512: Vec<String>,
    /// Headers of MD5withRSA.
    md5: Vec<String>,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            path: "/api/v1/fluent-connect/webhook".to_owned(),
            signatures: Signatures::default().enabled,
            signature_headers: SignatureHeaders::default(),
            body_limit: ByteSize(2 << 20),
            malformed: OnMalformed::default(),
            tls: None,
            trusted_proxies: Vec::new(),
            client_address: None,
        }
    }
}

impl Default for SignatureHeaders {
    fn default() -> Self {
        let Signatures { sha512, md5, .. } = Signatures::default();
        Self { sha512, md5 }
    }
}

/// One of `fluent-connect.accounts`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountSettings {
    /// The account's `accountId` at Fluent.
    name: String,
    /// The account's region: sydney, dublin, singapore or north_america.
    region: String,
    /// `sandbox` or `production`.
    #[schemars(with = "String")]
    pub(crate) environment: Environment,
    /// Ids of the retailers that may send; left out, all of the account.
    #[serde(default, deserialize_with = "listed")]
    #[schemars(with = "Option<Vec<Retailer>>")]
    retailers: Option<Vec<Retailer>>,
    /// The login at Fluent's API, for routes that ask it.
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "read by SettingsTree::apis; named here for the schema and for typos"
    )]
    api: Option<ApiSettings>,
}

/// Reads a list of retailers. An empty value is a mistake, and must not mean all retailers.
fn listed<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<Retailer>>, D::Error> {
    Vec::deserialize(from).map(Some)
}

/// A retailer's id, with or without quotes, as it is written.
#[derive(Debug, JsonSchema)]
#[schemars(with = "NumberOrText")]
struct Retailer(String);

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes Retailer in the schema")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Retailer {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::String(id) if !id.is_empty() => Ok(Self(id)),
            Value::Number(number) if number.is_u64() => Ok(Self(number.to_string())),
            _ => Err(serde::de::Error::custom(
                "expected a retailer's id, such as 34",
            )),
        }
    }
}

impl SettingsTree {
    /// Reads the settings of a gateway.
    pub fn gateway(&self) -> Result<Gateway, SettingsError> {
        let keys = self.keys()?;
        let (accounts, account_names) = self.accounts(&self.key_names())?;
        let (webhook, proxies) = self.webhook()?;
        let WebhookSettings {
            listen,
            path,
            signatures,
            signature_headers,
            body_limit,
            malformed,
            tls,
            ..
        } = webhook;
        let SignatureHeaders { sha512, md5 } = signature_headers;
        Ok(Gateway {
            listen,
            path,
            body_limit: usize::try_from(body_limit.0).unwrap_or(usize::MAX),
            malformed,
            tls: tls.map(|tls| self.resolved(tls)),
            proxies,
            signatures: Signatures {
                enabled: signatures,
                sha512,
                md5,
            },
            accounts,
            account_names,
            keys: Arc::new(keys),
        })
    }

    /// The algorithms of signatures that are accepted, on arrival and of what is stored.
    pub(crate) fn signature_algorithms(&self) -> Result<Vec<Algorithm>, SettingsError> {
        Ok(self.webhook()?.0.signatures)
    }

    /// The section of the port for webhooks, checked.
    pub(crate) fn webhook(&self) -> Result<(WebhookSettings, TrustedProxies), SettingsError> {
        const NAME: [&str; 2] = ["fluent-connect", "connector-name"];
        let _: Option<String> = self.read(&NAME, &self.value_at(&NAME))?;
        let mut webhook: WebhookSettings = self.section(&["fluent-connect", "webhook"])?;
        self.check_webhook(&webhook)?;
        let networks = std::mem::take(&mut webhook.trusted_proxies);
        let proxies = trusted_proxies(networks, webhook.client_address)
            .map_err(|(key, why)| self.invalid(&["fluent-connect", "webhook", key], why))?;
        Ok((webhook, proxies))
    }

    /// The address that answers health questions, if there is one.
    pub fn health(&self) -> Result<Option<SocketAddr>, SettingsError> {
        self.read(
            &["fluent-connect", "health"],
            &self.value_at(&["fluent-connect", "health"]),
        )
    }

    /// Time for which a stopping process says that it is not ready and still takes work, so that
    /// a load balancer notices. 0 if it is not set.
    pub fn drain_after(&self) -> Result<Duration, SettingsError> {
        let path = ["fluent-connect", "drain-after"];
        let written: Option<DurationText> = self.read(&path, &self.value_at(&path))?;
        let notice = written.map_or(Duration::ZERO, |time| time.0);
        match notice <= MAX_NOTICE {
            true => Ok(notice),
            false => Err(self.invalid(&path, "expected at most 15s: a process has 30 s to stop")),
        }
    }

    pub(crate) fn value_at(&self, path: &[&str]) -> Value {
        self.at(path).map(|node| node.value()).unwrap_or_default()
    }

    fn resolved(&self, tls: ServerTls) -> ServerTls {
        let folder = self.folder();
        ServerTls {
            certificate: folder.join(tls.certificate),
            key: folder.join(tls.key),
        }
    }

    fn check_webhook(&self, webhook: &WebhookSettings) -> Result<(), SettingsError> {
        let at = |key: &'static str| ["fluent-connect", "webhook", key];
        if let Err(why) = check_path(&webhook.path) {
            return Err(self.invalid(&at("path"), why));
        }
        if webhook.signatures.is_empty() {
            return Err(self.invalid(
                &at("signatures"),
                "expected sha512, md5, or both: without one nobody is admitted",
            ));
        }
        let SignatureHeaders { sha512, md5 } = &webhook.signature_headers;
        let names: Vec<String> = sha512
            .iter()
            .chain(md5)
            .map(|name| name.to_lowercase())
            .collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        if sha512.is_empty()
            || md5.is_empty()
            || names.iter().any(String::is_empty)
            || distinct.len() < names.len()
        {
            let why = "expected at least one header for each kind, and none of them twice";
            return Err(self.invalid(&at("signature-headers"), why));
        }
        if webhook.body_limit.0 == 0 || webhook.body_limit.0 > MAX_BODY_LIMIT {
            return Err(self.invalid(&at("body-limit"), "expected a size up to 16MiB"));
        }
        Ok(())
    }

    pub(crate) fn accounts(
        &self,
        keys: &[KeyName],
    ) -> Result<(Accounts, Vec<String>), SettingsError> {
        const PATH: [&str; 2] = ["fluent-connect", "accounts"];
        let listed: Vec<AccountSettings> =
            self.read(&PATH, &self.value_at(&PATH)).or_else(|error| {
                if self.at(&PATH).is_none() {
                    Ok(Vec::new())
                } else {
                    Err(error)
                }
            })?;
        if listed.is_empty() {
            return Err(self.invalid(
                &PATH,
                "nobody may send: expected a list of accounts, each with name, region and environment",
            ));
        }
        let mut accounts: Vec<Account> = Vec::new();
        for (index, listed) in listed.into_iter().enumerate() {
            let region = listed.region.replace('-', "_");
            let account = account(listed);
            let index = index.to_string();
            if let Some(region) = misspelt_region(&region) {
                let why = format!(
                    "expected one of {}; did you mean `{region}`?",
                    REGIONS.join(", ")
                );
                return Err(self.invalid(&[PATH[0], PATH[1], &index, "region"], &why));
            }
            if let Some(problem) = problem(&account, &accounts, keys) {
                return Err(self.invalid(&[PATH[0], PATH[1], &index], &problem));
            }
            accounts.push(account);
        }
        let names = accounts
            .iter()
            .map(|account| format!("{} ({})", account.name, account.key))
            .collect();
        Ok((Accounts::new(accounts), names))
    }
}

/// The region that was meant. One that is like none may be of somebody's own keys.
fn misspelt_region(region: &str) -> Option<&'static str> {
    nearest(region, REGIONS.into_iter()).filter(|known| *known != region)
}

fn account(listed: AccountSettings) -> Account {
    let AccountSettings {
        name,
        region,
        environment,
        retailers,
        ..
    } = listed;
    Account {
        name,
        key: KeyName::new(region.replace('-', "_"), environment),
        retailers: retailers
            .map(|retailers| retailers.into_iter().map(|Retailer(id)| id).collect()),
    }
}

fn problem(account: &Account, before: &[Account], keys: &[KeyName]) -> Option<String> {
    let name = &account.name;
    let key = &account.key;
    if before
        .iter()
        .any(|other| other.name == *name && other.key == *key)
    {
        return Some(format!("account {name} is listed twice for {key}"));
    }
    if !keys.contains(key) {
        let key = shortened(&key.to_string());
        return Some(format!(
            "account {name} has no key: its webhooks are verified with the key named {key}; put it under fluentcommerce.fluent-webhook-keys"
        ));
    }
    None
}

/// Checks that requests can have this path, as it is written or percent-encoded.
fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err("expected a path that begins with / and has no query");
    }
    if path.contains(|letter: char| letter.is_control() || letter.is_whitespace() || letter == '\\')
    {
        return Err("expected a path without spaces: write %20 for one");
    }
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("expected a path without `.` and `..`: who sends leaves them out");
    }
    let mut parts = path.split('%').skip(1);
    let is_escape =
        |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !parts.all(is_escape) {
        return Err("expected two hexadecimal digits after each %: write %25 for a percent sign");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_that_requests_can_have() {
        for good in [
            "/",
            "/api/v1/fluent-connect/webhook",
            "/hooks/größe",
            "/hooks/gr%c3%b6",
            "/a..b/.well-known",
        ] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in [
            "hooks", "", "/a?b", "/a#b", "/a b", "/a\tb", "/a/../b", "/./a", "/50%", "/a%zz",
            "/a%2", "/a\\b",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn webhooks_come_where_fluents_documentation_has_them() {
        let settings = WebhookSettings::default();
        assert_eq!(settings.listen.port(), 8080);
        assert_eq!(settings.path, "/api/v1/fluent-connect/webhook");
    }
}
