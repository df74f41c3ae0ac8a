use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::KeyName;

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
    /// How it was signed.
    pub algorithm: Algorithm,
    /// The name under which the matching key is listed.
    pub key: Arc<KeyName>,
    /// The signature in standard base64, as it was sent.
    pub signature: String,
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
