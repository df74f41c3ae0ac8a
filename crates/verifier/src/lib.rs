//! Verification of webhooks: decides whose bytes these are.
//!
//! Verification is a pure function of the webhook and the keys: it reads no clock, uses no
//! network, and hashes the body as raw bytes before anything parses it.
//!
//! ```text
//! headers ─policy─▶ one signature ─strict base64─▶ every key of the ring ─▶ Evidence
//! ```
//!
//! Start reading at [`WebhookVerifier`]; [`Reverifier`] verifies stored events again. The
//! arithmetic is behind [`Pkcs1`], which has two implementations: [`AwsLc`] and [`RustCrypto`].

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

/// Verifies that a webhook is Fluent's.
///
/// ```
/// use std::sync::Arc;
///
/// use event_model::{Headers, Inbound};
/// use fluent_verifier::{KeyRing, PublicKey, SignatureError, Signatures, Verifier, WebhookVerifier};
/// # use event_model::Timestamp;
/// # const KEY: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCeP6oV5Lf0nAbG5ZxbgPoINdaG2dA3mJiWf7derYskfMNw2Qkv/iXGK/rWouzuQcQGhekKMPPbrQiqG3VqKQERyYUmcYckROys44uVIKRcKCjnfhC22PKYEmyXixlTTq9HqLRMNuGVVrddQap5vRuPNv8TxwAJLPdQZ2V/UzNdfQIDAQAB";
///
/// let key = PublicKey::parse(KEY)?;
/// let ring = KeyRing::new([("sydney_sandbox".parse()?, key)])?;
/// let verifier = WebhookVerifier::new(Arc::new(ring), Signatures::default());
///
/// let mut webhook = Inbound {
///     body: "{}".into(),
///     headers: Headers::default(),
///     received_at: Timestamp::UNIX_EPOCH,
/// };
/// assert_eq!(verifier.verify(webhook.clone()).unwrap_err(), SignatureError::Missing);
///
/// webhook.headers.push("fluent-signature", "bm90IG1pbmU=");
/// assert!(matches!(verifier.verify(webhook).unwrap_err(), SignatureError::Mismatch(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Another scheme is another implementation. This one believes one peer's secret header, and is as
/// good as the secret:
///
/// ```
/// use std::sync::Arc;
///
/// use event_model::{Algorithm, Evidence, Inbound, KeyId, Proof};
/// use fluent_verifier::{SignatureError, Verifier};
///
/// #[derive(Debug)]
/// struct SharedSecret {
///     secret: Vec<u8>,
///     key: Arc<KeyId>,
/// }
///
/// impl Verifier for SharedSecret {
///     fn check(&self, inbound: &Inbound) -> Result<Evidence, SignatureError> {
///         let mut values = inbound.headers.all("x-shared-secret");
///         let value = values.next().ok_or(SignatureError::Missing)?;
///         if value != self.secret {
///             return Err(SignatureError::Mismatch(Algorithm::Sha512));
///         }
///         Ok(Evidence {
///             proof: Proof::Signed(Algorithm::Sha512),
///             key: Arc::clone(&self.key),
///             signature: String::new(),
///         })
///     }
/// }
/// ```
pub trait Verifier: fmt::Debug + Send + Sync {
    /// Returns the evidence that `inbound` is genuine, over its exact body.
    fn check(&self, inbound: &Inbound) -> Result<Evidence, SignatureError>;

    /// Verifies a webhook, and returns it as verified, or the reason against it.
    fn verify(&self, inbound: Inbound) -> Result<Verified<Inbound>, SignatureError> {
        let evidence = self.check(&inbound)?;
        // Verified: `check` has just proved this very value.
        Ok(Verified::assert(inbound, evidence))
    }
}

// Chosen by settings, and so used as `Arc<dyn Verifier>`.
const _: fn(&dyn Verifier) = |_| {};

/// Reason why a webhook was refused. Says nothing of the signature itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is no header that could have a signature.
    #[error("no signature header")]
    Missing,
    /// The header occurs more than once, so it is unclear which one is meant.
    #[error("the {0} signature header occurs more than once")]
    Repeated(Algorithm),
    /// The signature is not standard base64 of a signature's size.
    #[error("the {0} signature is not standard base64")]
    Malformed(Algorithm),
    /// The signature is of a kind that the settings do not enable.
    #[error("{0} signatures are not enabled")]
    NotEnabled(Algorithm),
    /// No key of the ring made this signature over these bytes.
    #[error("the {0} signature matches no key")]
    Mismatch(Algorithm),
}

impl SignatureError {
    /// A short code of the reason, for logs and metrics.
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
