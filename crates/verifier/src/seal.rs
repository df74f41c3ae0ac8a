//! Our seal over events that Fluent did not sign: an Ed25519 signature (RFC 8032).
//!
//! The process that asks Fluent's API vouches for the answer. The reconciler and the operator
//! have the private key, and every dispatcher has the public one, so that a message that says
//! "reconciled" is believed because of its seal, and not because of what it says.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{
    Environment, EventId, Evidence, FluentKey, KeyDigest, KeyId, KeyName, Origin, Proof,
};
use rsa::pkcs8::spki::SubjectPublicKeyInfoRef;
use sha2::{Digest, Sha256};

use crate::key::pem;

/// `id-Ed25519`, RFC 8410, section 3.
const ED25519_OID: &str = "1.3.101.112";

/// The bytes before the 32 bytes of a public key in SPKI DER, RFC 8410, section 4.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Largest number of public keys whose seals are accepted: one in use, and those that sealed what
/// is still stored.
pub const MAX_SEAL_KEYS: usize = 16;

/// Reason why a text is not a key for seals. Never contains any of that text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSealKey {
    /// The text is not a private Ed25519 key.
    #[error(
        "not a private key for seals: expected PEM of an Ed25519 key (openssl genpkey -algorithm ed25519)"
    )]
    NotPrivate,
    /// The text is not a public Ed25519 key.
    #[error(
        "not a public key for seals: expected PEM of an Ed25519 key (openssl pkey -in seal.key -pubout), or that in one line without its first and last"
    )]
    NotPublic,
    /// The key is the private one, which must stay with the reconciler and the operator.
    #[error("this is a PRIVATE key: expected the public one (openssl pkey -in seal.key -pubout)")]
    Private,
    /// There are more than [`MAX_SEAL_KEYS`] public keys.
    #[error("{0} public keys for seals: expected {MAX_SEAL_KEYS} at most")]
    TooMany(usize),
}

/// The private key that seals events which Fluent did not sign.
pub struct SealingKey {
    pair: Ed25519KeyPair,
    digest: KeyDigest,
}

/// Shows the digest, never the key.
impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.digest)
    }
}

impl SealingKey {
    /// Reads a private key: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    pub fn parse(text: &str) -> Result<Self, InvalidSealKey> {
        let rest = text
            .trim()
            .strip_prefix("-----BEGIN ")
            .ok_or(InvalidSealKey::NotPrivate)?;
        let Ok(("PRIVATE KEY", base64)) = pem(rest) else {
            return Err(InvalidSealKey::NotPrivate);
        };
        let compact: String = base64.split_whitespace().collect();
        let der = STANDARD
            .decode(compact)
            .map_err(|_| InvalidSealKey::NotPrivate)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| InvalidSealKey::NotPrivate)?;
        let digest = digest_of(pair.public_key().as_ref());
        Ok(Self { pair, digest })
    }

    /// Digest of the public half, by which the key is known.
    pub fn digest(&self) -> KeyDigest {
        self.digest
    }

    /// Evidence for dispatchers that we found an event in Fluent's log. `key` is the name of the
    /// key of the account that was asked.
    pub fn evidence(&self, key: KeyName, body: &[u8]) -> Evidence {
        let id = EventId::of(key.environment(), body);
        let statement = event_statement(Origin::Reconciled, key.environment(), id);
        Evidence {
            proof: Proof::Api,
            key: Arc::new(KeyId::new(key, self.digest)),
            signature: self.seal(&statement),
        }
    }

    /// The seal that proves that the event `id` was found for this key.
    pub fn reconciled(&self, key: FluentKey, id: EventId) -> String {
        format!(
            "{}:{}",
            self.digest,
            self.seal(&reconciled_statement(key, id))
        )
    }

    fn seal(&self, statement: &str) -> String {
        STANDARD.encode(self.pair.sign(statement.as_bytes()))
    }
}

/// A new pair of keys for seals, as PEM.
pub struct SealPair {
    /// The private key, PKCS#8: for the reconciler and the operator, and nobody else.
    pub private: String,
    /// The public key, SPKI: for dispatchers.
    pub public: String,
}

/// Shows nothing of the private key.
impl fmt::Debug for SealPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealPair(..)")
    }
}

impl SealPair {
    /// Generates a pair from the system's randomness; `None` if that is not available.
    ///
    /// ```
    /// use fluent_verifier::{SealKeys, SealPair, SealingKey};
    ///
    /// let pair = SealPair::generate().unwrap();
    /// assert!(SealingKey::parse(&pair.private).is_ok());
    /// assert!(SealKeys::parse([&*pair.public]).is_ok());
    /// ```
    pub fn generate() -> Option<Self> {
        let pair = Ed25519KeyPair::generate().ok()?;
        let private = pair.to_pkcs8v1().ok()?;
        let public = [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
        Some(Self {
            private: armoured("PRIVATE KEY", private.as_ref()),
            public: armoured("PUBLIC KEY", &public),
        })
    }
}

/// Encodes a key as PEM, if it is short enough for one line of base64.
fn armoured(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}

/// The public keys whose seals are accepted.
#[derive(Debug, Default)]
pub struct SealKeys(Vec<(KeyDigest, ParsedPublicKey)>);

impl SealKeys {
    /// Reads public keys, each as PEM or as its base64 in one line.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, InvalidSealKey> {
        let keys: Vec<_> = texts
            .into_iter()
            .map(public_key)
            .collect::<Result<_, _>>()?;
        if keys.len() > MAX_SEAL_KEYS {
            return Err(InvalidSealKey::TooMany(keys.len()));
        }
        Ok(Self(keys))
    }

    /// Adds the public half of `key`, since a process that seals accepts its own seals.
    #[must_use]
    pub fn with_own(mut self, key: &SealingKey) -> Self {
        if let Ok(public) = ParsedPublicKey::new(&ED25519, key.pair.public_key().as_ref()) {
            self.0.push((key.digest, public));
        }
        self
    }

    /// Whether this seal of an event is good; `None` if its key is not known.
    pub(crate) fn event_is_sealed(
        &self,
        digest: KeyDigest,
        environment: Environment,
        id: EventId,
        seal: &str,
    ) -> Option<bool> {
        self.is_sealed(
            digest,
            &event_statement(Origin::Reconciled, environment, id),
            seal,
        )
    }

    /// Whether this seal of the fact about a reconciled event is good.
    pub(crate) fn has_reconciled(&self, key: FluentKey, id: EventId, seal: &str) -> bool {
        let Some((digest, seal)) = seal.split_once(':') else {
            return false;
        };
        let Ok(digest) = digest.parse() else {
            return false;
        };
        self.is_sealed(digest, &reconciled_statement(key, id), seal)
            .unwrap_or(false)
    }

    fn is_sealed(&self, digest: KeyDigest, statement: &str, seal: &str) -> Option<bool> {
        let (_, key) = self.0.iter().find(|(known, _)| *known == digest)?;
        let seal = STANDARD.decode(seal).unwrap_or_default();
        Some(key.verify_sig(statement.as_bytes(), &seal).is_ok())
    }
}

fn public_key(text: &str) -> Result<(KeyDigest, ParsedPublicKey), InvalidSealKey> {
    let text = text.trim().trim_start_matches('\u{feff}');
    let base64 = match text.strip_prefix("-----BEGIN ").map(pem) {
        None => text,
        Some(Ok(("PUBLIC KEY", base64))) => base64,
        Some(Ok((label, _))) if label.contains("PRIVATE") => return Err(InvalidSealKey::Private),
        Some(_) => return Err(InvalidSealKey::NotPublic),
    };
    let compact: String = base64.split_whitespace().collect();
    let der = STANDARD
        .decode(compact)
        .map_err(|_| InvalidSealKey::NotPublic)?;
    let info =
        SubjectPublicKeyInfoRef::try_from(&der[..]).map_err(|_| InvalidSealKey::NotPublic)?;
    if info.algorithm.oid.to_string() != ED25519_OID {
        return Err(InvalidSealKey::NotPublic);
    }
    let raw = info
        .subject_public_key
        .as_bytes()
        .ok_or(InvalidSealKey::NotPublic)?;
    let key = ParsedPublicKey::new(&ED25519, raw).map_err(|_| InvalidSealKey::NotPublic)?;
    Ok((digest_of(raw), key))
}

fn digest_of(raw: &[u8]) -> KeyDigest {
    let hash = Sha256::new().chain_update(SPKI_PREFIX).chain_update(raw);
    KeyDigest::from_bytes(hash.finalize().into())
}

/// The statement that a seal of an event signs. The id is a digest of environment and body, so it
/// changes with either.
fn event_statement(origin: Origin, environment: Environment, id: EventId) -> String {
    format!("fluent-webhooks event 1\0{origin}\0{environment}\0{id}")
}

fn reconciled_statement(key: FluentKey, id: EventId) -> String {
    format!("fluent-webhooks reconciled 1\0{key}\0{id}")
}
