//! Verified values, their evidence, and the origin of events.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::KeyId;

/// A `T` whose origin has been established.
///
/// Only a verifier should make one. The constructor is public, since verifiers may be in other
/// crates, and has a name by which every origin of trust in the workspace can be found:
/// `Verified::assert`.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    evidence: Evidence,
}

impl<T> Verified<T> {
    /// Declares that `value` has been verified. A comment must say how.
    pub fn assert(value: T, evidence: Evidence) -> Self {
        Self { value, evidence }
    }

    /// The evidence by which the value was verified.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The verified value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The verified value and its evidence.
    pub fn into_parts(self) -> (T, Evidence) {
        (self.value, self.evidence)
    }
}

/// The evidence by which a webhook was verified: enough for a later stage to verify it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The proof that the webhook is Fluent's.
    pub proof: Proof,
    /// The matching key. For a record from Fluent's API: the name of the key of the account that
    /// was asked, with the digest of the key that made our seal.
    pub key: Arc<KeyId>,
    /// The signature in standard base64, as it was sent; for a record from Fluent's API our seal;
    /// empty if there is none.
    pub signature: String,
}

/// The proof that an event is Fluent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Fluent signed it.
    Signed(Algorithm),
    /// Fluent's authenticated API returned it, from its log of events.
    Api,
}

impl Proof {
    const API: &str = "api";

    /// The name in stores and on the wire: `sha512`, `md5` or `api`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signed(algorithm) => algorithm.as_str(),
            Self::Api => Self::API,
        }
    }

    /// Reads a name of [`Proof::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            Self::API => Some(Self::Api),
            name => Algorithm::from_name(name).map(Self::Signed),
        }
    }

    /// The origin that this proof implies.
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

/// The origin of an event: how it came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Fluent sent it as a webhook.
    Webhook,
    /// No webhook came, and the event was found in Fluent's log. It has the fields of the log,
    /// which are fewer than a webhook's: no status, for one.
    Reconciled,
    /// A person tests a destination with it. No queue has such an event, and no settings name it.
    #[serde(skip)]
    Test,
}

impl Origin {
    /// The name in settings, headers and commands: `webhook`, `reconciled` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Reconciled => "reconciled",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two ways in which Fluent signs, with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA512withRSA, in `fluent-signature`.
    Sha512,
    /// MD5withRSA, in `flex.signature`.
    Md5,
}

impl Algorithm {
    /// The name in settings, logs and stores: `sha512` or `md5`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha512 => "sha512",
            Self::Md5 => "md5",
        }
    }

    /// Reads a name of [`Algorithm::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha512, Self::Md5]
            .into_iter()
            .find(|a| a.as_str() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
