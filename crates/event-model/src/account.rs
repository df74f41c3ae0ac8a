use std::{collections::HashMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fields::Read;

/// Which of Fluent's two worlds an account lives in. Part of an event's
/// identity: the same account name may exist in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// For trying things.
    Sandbox,
    /// Real customers.
    Production,
}

impl Environment {
    /// `sandbox` or `production`.
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

/// An environment that Fluent does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `sandbox` or `production`")]
pub struct UnknownEnvironment;

impl FromStr for Environment {
    type Err = UnknownEnvironment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Sandbox, Self::Production].into_iter().find(|e| e.as_str() == text).ok_or(UnknownEnvironment)
    }
}

/// `<region>_<environment>`: how Fluent names the key pair of one region and
/// environment, `sydney_sandbox`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    region: String,
    environment: Environment,
}

impl KeyName {
    /// The name for a region and environment.
    pub fn new(region: impl Into<String>, environment: Environment) -> Self {
        Self { region: region.into(), environment }
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

/// One tenant that may send, and the key its webhooks must be signed with.
#[derive(Clone, Debug)]
pub struct Account {
    /// Fluent's `accountId`.
    pub name: String,
    /// Whose signature admits it.
    pub key: KeyName,
    /// The retailers that may send; `None` is all of them.
    pub retailers: Option<Vec<String>>,
}

/// The allow-list. A signature proves Fluent's platform, not a tenant, so
/// nobody is admitted who is not listed here for the key that matched.
#[derive(Clone, Debug, Default)]
pub struct Accounts(HashMap<String, Vec<Account>>);

impl Accounts {
    /// The list of everybody who may send.
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        let mut by_name: HashMap<String, Vec<Account>> = HashMap::new();
        for account in accounts {
            by_name.entry(account.name.clone()).or_default().push(account);
        }
        Self(by_name)
    }

    /// Every entry of this name, one per region and environment.
    pub fn named(&self, name: &str) -> &[Account] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The listed account that a body names, and no other. Nothing is proven by it:
    /// anybody can write a name.
    pub fn claimed_by(&self, body: &[u8]) -> Option<String> {
        let claimed = Read::body(body).accounts;
        let is_listed = |name: &String| self.0.contains_key(name);
        claimed.iter().all(is_listed).then(|| claimed.into_iter().next())?
    }

    /// Which account a body names, and how that compares with the list. For genuine bodies:
    /// what else names an account may be anybody's.
    pub fn claim(&self, body: &[u8]) -> AccountClaim {
        let mut claimed = Read::body(body).accounts.into_iter();
        let (first, more) = (claimed.next(), claimed.next());
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
        self.names().filter(|listed| self::folded(listed) == folded).min().map(str::to_owned)
    }
}

fn folded(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_whitespace()).flat_map(char::to_lowercase).collect()
}

/// Whose a genuine body says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountClaim {
    /// An account of the list.
    Listed(String),
    /// Not of the list, and like one of it but for case and spaces.
    Alike {
        /// As the body has it.
        name: String,
        /// As the list has it.
        listed: String,
    },
    /// Somebody else, or nobody, or several.
    Unlisted(Option<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_listed_alike_or_a_strangers() {
        let key = KeyName::new("sydney", Environment::Sandbox);
        let account = |name: &str| Account { name: name.to_owned(), key: key.clone(), retailers: None };
        let accounts = Accounts::new([account("ACME"), account("Big Shop")]);
        let claim = |body: &str| accounts.claim(body.as_bytes());
        let alike = |name: &str, listed: &str| AccountClaim::Alike {
            name: name.to_owned(),
            listed: listed.to_owned(),
        };
        assert_eq!(claim(r#"{"accountId":"ACME"}"#), AccountClaim::Listed("ACME".to_owned()));
        assert_eq!(claim(r#"{"accountId":"acme "}"#), alike("acme ", "ACME"));
        assert_eq!(claim(r#"{"accountId":"bigshop"}"#), alike("bigshop", "Big Shop"));
        assert_eq!(claim(r#"{"accountId":"ACMEE"}"#), AccountClaim::Unlisted(Some("ACMEE".to_owned())));
        assert_eq!(claim("{}"), AccountClaim::Unlisted(None));
        let two = r#"{"accountId":"ACME","accountId":"ACME"}"#;
        assert!(!matches!(claim(two), AccountClaim::Alike { .. }));
    }
}
