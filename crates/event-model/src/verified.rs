use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::KeyId;

/// A `T` whose origin has been established.
///
/// Only a verifier should make one. The constructor is public so that
/// verifiers can live in other crates, and named so that every origin of trust
/// in the workspace is found by searching for `Verified::assert`.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    evidence: Evidence,
}

impl<T> Verified<T> {
    /// States that `value` has been verified. Say how in a comment.
    pub fn assert(value: T, evidence: Evidence) -> Self {
        Self { value, evidence }
    }

    /// What the value was verified with.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The verified value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The verified value and what it was verified with.
    pub fn into_parts(self) -> (T, Evidence) {
        (self.value, self.evidence)
    }
}

/// What a webhook was verified with: enough for a later stage to do it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// How it is known to be Fluent's.
    pub proof: Proof,
    /// The matching key; of what Fluent's API told, the name of the key of the account that
    /// was asked, and the digest of the key that made our seal.
    pub key: Arc<KeyId>,
    /// The signature in standard base64, as it was sent; of what Fluent's API told, our seal;
    /// empty where there is none.
    pub signature: String,
}

/// How an event is known to be Fluent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Fluent signed it.
    Signed(Algorithm),
    /// Fluent's authenticated API told it, from its log of events.
    Api,
}

impl Proof {
    const API: &str = "api";

    /// `sha512`, `md5` or `api`: the name in stores and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signed(algorithm) => algorithm.as_str(),
            Self::Api => Self::API,
        }
    }

    /// The inverse of [`Proof::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            Self::API => Some(Self::Api),
            name => Algorithm::from_name(name).map(Self::Signed),
        }
    }

    /// How it came to us.
    pub fn origin(self) -> Origin {
        match self {
            Self::Signed(_) => Origin::Webhook,
            Self::Api => Origin::Reconciled,
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an event came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Fluent sent it.
    Webhook,
    /// It never came, and was found in Fluent's log. It has what that has, which is less
    /// than a webhook: no status, for one.
    Reconciled,
}

impl Origin {
    /// `webhook` or `reconciled`: the name in settings, headers and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Reconciled => "reconciled",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two ways in which Fluent signs; one key makes both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA512withRSA, in `fluent-signature`.
    Sha512,
    /// MD5withRSA, in `flex.signature`.
    Md5,
}

impl Algorithm {
    /// `sha512` or `md5`: the name in settings, logs and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha512 => "sha512",
            Self::Md5 => "md5",
        }
    }

    /// The inverse of [`Algorithm::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha512, Self::Md5].into_iter().find(|a| a.as_str() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
