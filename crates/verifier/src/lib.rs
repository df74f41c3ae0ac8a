//! Decides whose bytes these are.
//!
//! Verification is a pure function of the webhook and the keys: no clock is
//! read, no network touched, and the body is hashed as raw bytes before
//! anything parses it.
//!
//! ```text
//! headers ─policy─▶ one signature ─strict base64─▶ every key of the ring ─▶ Evidence
//! ```
//!
//! Start reading at [`WebhookVerifier`]; [`Reverifier`] asks the same of what a queue kept. The arithmetic is behind [`Pkcs1`],
//! which has two implementations: [`AwsLc`] and [`RustCrypto`].

mod webhook;

mod key;
mod pkcs1;
mod ring;

mod seal;
mod stored;

mod diagnosis;

use std::fmt;

use event_model::{Algorithm, Evidence, Inbound, Verified};

pub use crate::diagnosis::{Alteration, Diagnosis, diagnose};
pub use crate::key::{InvalidKey, MAX_BITS, MIN_BITS, PublicKey, WEAK_BELOW};
pub use crate::pkcs1::{AwsLc, MessageDigest, Pkcs1, RustCrypto};
pub use crate::ring::{InvalidRing, KeyRing, MAX_KEYS, MAX_RETIRED_KEYS};
pub use crate::seal::{InvalidSealKey, MAX_SEAL_KEYS, SealKeys, SealPair, SealingKey};
pub use crate::stored::Reverifier;
pub use crate::webhook::{Signatures, WebhookVerifier};

/// Checks where a webhook comes from.
pub trait Verifier: fmt::Debug + Send + Sync {
    /// What proves `inbound` genuine, over its exact body.
    fn check(&self, inbound: &Inbound) -> Result<Evidence, Rejection>;

    /// Turns a webhook into evidence, or says why not.
    fn verify(&self, inbound: Inbound) -> Result<Verified<Inbound>, Rejection> {
        let evidence = self.check(&inbound)?;
        // `check` just proved this very value.
        Ok(Verified::assert(inbound, evidence))
    }
}

// Chosen from settings, so held as `Arc<dyn Verifier>`.
const _: fn(&dyn Verifier) = |_| {};

/// Why a webhook was turned away. Says nothing of the signature itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// No header that could carry a signature.
    #[error("no signature header")]
    Missing,
    /// The header occurs more than once: which one would be meant?
    #[error("the {0} signature header occurs more than once")]
    Repeated(Algorithm),
    /// Not standard base64 of a signature's size.
    #[error("the {0} signature is not standard base64")]
    Malformed(Algorithm),
    /// Signed in a way that the settings do not enable.
    #[error("{0} signatures are not enabled")]
    NotEnabled(Algorithm),
    /// No key of the ring made this signature over these bytes.
    #[error("the {0} signature matches no key")]
    Mismatch(Algorithm),
}

impl Rejection {
    /// A short code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "signature-missing",
            Self::Repeated(_) => "signature-repeated",
            Self::Malformed(_) => "signature-malformed",
            Self::NotEnabled(_) => "signature-not-enabled",
            Self::Mismatch(_) => "signature-mismatch",
        }
    }
}
