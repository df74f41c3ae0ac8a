//! RSA public keys: the forms in which they are read, and their bounds.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::KeyDigest;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPublicKey};
use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey, spki::SubjectPublicKeyInfoRef};
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, RsaPrivateKey, RsaPublicKey};
use sha2::{Digest, Sha256};

/// Smallest size of a key, in bits. Fluent's real keys have 1024 bits; smaller ones are not
/// Fluent's.
pub const MIN_BITS: usize = 1024;
/// Largest size of a key, in bits. Beyond this, a forged signature costs us more than an
/// attacker.
pub const MAX_BITS: usize = 8192;
/// Size, in bits, below which keys are accepted but named in a warning.
pub const WEAK_BELOW: usize = 2048;

/// `rsaEncryption`, RFC 8017 appendix C.
const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";

/// An RSA public key within our bounds, which may be trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(crate) rsa: RsaPublicKey,
    pkcs1: Vec<u8>,
    spki: Vec<u8>,
}

/// Reason why a text is not a usable key. Never contains any of that text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The text is neither PEM nor base64 of a key.
    #[error(
        "not a public key: expected PEM, or one line of base64 as Fluent shows it (it begins with MIG, MIIB or MIIC)"
    )]
    Malformed,
    /// The key is a private one, which must stay with its owner.
    #[error(
        "this is a PRIVATE key: expected the public one; treat the private key as leaked and replace it"
    )]
    Private,
    /// The text is a certificate, which contains a key and more.
    #[error("this is a certificate: expected its public key (openssl x509 -pubkey -noout)")]
    Certificate,
    /// The text has more than one key, of which only the first would count.
    #[error("more than one key in one place: expected one, or a list with a key in each place")]
    Several,
    /// The key is an elliptic-curve key or of another kind.
    #[error("not an RSA key: Fluent signs with RSA")]
    NotRsa,
    /// The key's size is outside [`MIN_BITS`]..=[`MAX_BITS`].
    #[error("the RSA key has {0} bits: expected {MIN_BITS} to {MAX_BITS}")]
    Size(usize),
    /// The exponent is even, or outside 65537..2^33.
    #[error("the RSA key has an unsafe exponent: expected an odd one from 65537")]
    Exponent,
}

impl PublicKey {
    /// Reads a key from PEM or base64, with any whitespace: SPKI, or PKCS#1 in PEM.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim().trim_start_matches('\u{feff}');
        let (label, base64) = match text.strip_prefix("-----BEGIN ") {
            Some(rest) => pem(rest)?,
            None => ("PUBLIC KEY", text),
        };
        let compact: String = base64.split_whitespace().collect();
        let der = STANDARD
            .decode(compact)
            .map_err(|_| InvalidKey::Malformed)?;
        match label {
            "PUBLIC KEY" => Self::from_der(&der),
            "RSA PUBLIC KEY" => Self::from_pkcs1(&der),
            "CERTIFICATE" => Err(InvalidKey::Certificate),
            label if label.contains("PRIVATE") => Err(InvalidKey::Private),
            _ => Err(InvalidKey::Malformed),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, InvalidKey> {
        let Ok(info) = SubjectPublicKeyInfoRef::try_from(der) else {
            return Err(what_else(der));
        };
        if info.algorithm.oid.to_string() != RSA_ENCRYPTION {
            return Err(InvalidKey::NotRsa);
        }
        let pkcs1 = info
            .subject_public_key
            .as_bytes()
            .ok_or(InvalidKey::Malformed)?;
        Self::from_pkcs1(pkcs1)
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, InvalidKey> {
        let parts = rsa::pkcs1::RsaPublicKey::try_from(der).map_err(|_| InvalidKey::Malformed)?;
        let n = BigUint::from_bytes_be(parts.modulus.as_bytes());
        let e = BigUint::from_bytes_be(parts.public_exponent.as_bytes());
        Self::from_numbers(n, e)
    }

    fn from_numbers(n: BigUint, e: BigUint) -> Result<Self, InvalidKey> {
        let bits = n.bits();
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return Err(InvalidKey::Size(bits));
        }
        let even = e.to_bytes_le().first().is_none_or(|byte| byte % 2 == 0);
        if even || e < BigUint::from(65537_u32) || e.bits() > 33 {
            return Err(InvalidKey::Exponent);
        }
        let rsa =
            RsaPublicKey::new_with_max_size(n, e, MAX_BITS).map_err(|_| InvalidKey::Malformed)?;
        let pkcs1 = rsa
            .to_pkcs1_der()
            .map_err(|_| InvalidKey::Malformed)?
            .into_vec();
        let spki = rsa
            .to_public_key_der()
            .map_err(|_| InvalidKey::Malformed)?
            .into_vec();
        Ok(Self { rsa, pkcs1, spki })
    }

    /// Size of the modulus in bits.
    pub fn bits(&self) -> usize {
        self.rsa.n().bits()
    }

    /// Size in bytes of the modulus, and of every signature by this key.
    pub fn modulus_len(&self) -> usize {
        self.rsa.size()
    }

    /// Whether the key is shorter than is advised today. Fluent's keys are.
    pub fn is_weak(&self) -> bool {
        self.bits() < WEAK_BELOW
    }

    /// SHA-256 of the key's SPKI DER, in hex, as `openssl pkey -pubin -outform DER | sha256sum`
    /// prints it.
    pub fn fingerprint(&self) -> String {
        self.digest().to_string()
    }

    /// The digest of [`PublicKey::fingerprint`] as a value.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::from_bytes(Sha256::digest(&self.spki).into())
    }

    pub(crate) fn pkcs1_der(&self) -> &[u8] {
        &self.pkcs1
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PublicKey({} bits, sha256 {})",
            self.bits(),
            self.fingerprint()
        )
    }
}

/// Returns label and content of the first PEM block. `rest` is the text after `-----BEGIN `.
pub(crate) fn pem(rest: &str) -> Result<(&str, &str), InvalidKey> {
    let (label, rest) = rest.split_once("-----").ok_or(InvalidKey::Malformed)?;
    let (content, rest) = rest.split_once("-----END ").ok_or(InvalidKey::Malformed)?;
    if rest.contains("-----BEGIN ") {
        return Err(InvalidKey::Several);
    }
    Ok((label, content))
}

/// Returns a better error than "malformed" for what people paste by mistake.
fn what_else(der: &[u8]) -> InvalidKey {
    let private = RsaPrivateKey::from_pkcs8_der(der).is_ok()
        || RsaPrivateKey::from_pkcs1_der(der).is_ok()
        || rsa::pkcs8::PrivateKeyInfo::try_from(der).is_ok();
    if private {
        return InvalidKey::Private;
    }
    InvalidKey::Malformed
}
