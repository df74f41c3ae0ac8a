//! Environments, key names, and the allow-list of accounts.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fields::Read;

/// One of Fluent's two environments, which is part of an event's identity, since the same account
/// name may exist in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// The environment for trying things out.
    Sandbox,
    /// The environment of real customers.
    Production,
}

impl Environment {
    /// The name: `sandbox` or `production`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for an environment that Fluent does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `sandbox` or `production`")]
pub struct UnknownEnvironment;

impl FromStr for Environment {
    type Err = UnknownEnvironment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Sandbox, Self::Production]
            .into_iter()
            .find(|e| e.as_str() == text)
            .ok_or(UnknownEnvironment)
    }
}

/// The name of a key pair, `<region>_<environment>`, as Fluent gives it: `sydney_sandbox`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    region: String,
    environment: Environment,
}

impl KeyName {
    /// Makes the name for a region and environment.
    pub fn new(region: impl Into<String>, environment: Environment) -> Self {
        Self {
            region: region.into(),
            environment,
        }
    }

    /// The environment whose events this key signs.
    pub fn environment(&self) -> Environment {
        self.environment
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.region, self.environment)
    }
}

impl FromStr for KeyName {
    type Err = UnknownEnvironment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (region, environment) = text.rsplit_once('_').ok_or(UnknownEnvironment)?;
        if region.is_empty() {
            return Err(UnknownEnvironment);
        }
        Ok(Self::new(region, environment.parse()?))
    }
}

/// One account that may send, and the key that its webhooks must be signed with.
#[derive(Clone, Debug)]
pub struct Account {
    /// Fluent's `accountId`.
    pub name: String,
    /// The key whose signature admits its webhooks.
    pub key: KeyName,
    /// The retailers that may send; `None` stands for all of them.
    pub retailers: Option<Vec<String>>,
}

/// The allow-list. A signature proves Fluent's platform, not an account, so no account is
/// admitted that is not listed here with the key that matched.
#[derive(Clone, Debug, Default)]
pub struct Accounts(HashMap<String, Vec<Account>>);

impl Accounts {
    /// Makes the list of all accounts that may send.
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        let mut by_name: HashMap<String, Vec<Account>> = HashMap::new();
        for account in accounts {
            by_name
                .entry(account.name.clone())
                .or_default()
                .push(account);
        }
        Self(by_name)
    }

    /// Every entry with this name: one for each region and environment.
    pub fn named(&self, name: &str) -> &[Account] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The listed account that a body names, if it names no unlisted one. It proves nothing:
    /// anybody can write a name.
    pub fn claimed_by(&self, body: &[u8]) -> Option<String> {
        let claimed = Read::body(body).accounts;
        let is_listed = |name: &String| self.0.contains_key(name);
        claimed
            .iter()
            .all(is_listed)
            .then(|| claimed.into_iter().next())?
    }

    /// Compares the account that a body names with the list. Only for genuine bodies, since
    /// anybody can name an account in others.
    pub fn claim(&self, body: &[u8]) -> AccountClaim {
        let mut claimed = Read::body(body).accounts.into_iter();
        let first = claimed.next();
        let more = claimed.next();
        match (first, more) {
            (Some(name), None) if self.0.contains_key(&name) => AccountClaim::Listed(name),
            (Some(name), None) => match self.alike(&name) {
                Some(listed) => AccountClaim::Alike { name, listed },
                None => AccountClaim::Unlisted(Some(name)),
            },
            (first, _) => AccountClaim::Unlisted(first),
        }
    }

    /// The names of all accounts, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The listed account whose name differs by case or spaces alone.
    fn alike(&self, name: &str) -> Option<String> {
        let folded = folded(name);
        self.names()
            .filter(|listed| self::folded(listed) == folded)
            .min()
            .map(str::to_owned)
    }
}

fn folded(name: &str) -> String {
    name.chars()
        .filter(|letter| !letter.is_whitespace())
        .flat_map(char::to_lowercase)
        .collect()
}

/// The account that a genuine body names, compared with the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountClaim {
    /// The account is listed.
    Listed(String),
    /// The account is not listed, but differs from a listed one only by case and spaces.
    Alike {
        /// The name in the body.
        name: String,
        /// The name in the list.
        listed: String,
    },
    /// The body names another account, or none, or several.
    Unlisted(Option<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_listed_alike_or_a_strangers() {
        let key = KeyName::new("sydney", Environment::Sandbox);
        let account = |name: &str| Account {
            name: name.to_owned(),
            key: key.clone(),
            retailers: None,
        };
        let accounts = Accounts::new([account("ACME"), account("Big Shop")]);
        let claim = |body: &str| accounts.claim(body.as_bytes());
        let alike = |name: &str, listed: &str| AccountClaim::Alike {
            name: name.to_owned(),
            listed: listed.to_owned(),
        };
        assert_eq!(
            claim(r#"{"accountId":"ACME"}"#),
            AccountClaim::Listed("ACME".to_owned())
        );
        assert_eq!(claim(r#"{"accountId":"acme "}"#), alike("acme ", "ACME"));
        assert_eq!(
            claim(r#"{"accountId":"bigshop"}"#),
            alike("bigshop", "Big Shop")
        );
        assert_eq!(
            claim(r#"{"accountId":"ACMEE"}"#),
            AccountClaim::Unlisted(Some("ACMEE".to_owned()))
        );
        assert_eq!(claim("{}"), AccountClaim::Unlisted(None));
        let two = r#"{"accountId":"ACME","accountId":"ACME"}"#;
        assert!(!matches!(claim(two), AccountClaim::Alike { .. }));
    }
}
