//! RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2), by two independent libraries.

use std::fmt;

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY};
use event_model::Algorithm;
use md5::Md5;
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha2::{Digest, Sha512};

use crate::PublicKey;

/// One key, ready to check signatures of one algorithm.
///
/// Implementations build the expected encoding and compare it; they never
/// parse what the signature decrypts to, which is how forgeries with a small
/// exponent got in elsewhere.
pub trait Pkcs1: fmt::Debug + Send + Sync {
    /// Whether `signature` is this key's over `message`.
    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool;
}

const _: fn(&dyn Pkcs1) = |_| {};

/// AWS-LC: the fast one. SHA-512 only; it has no MD5.
#[derive(Debug)]
pub struct AwsLc(ParsedPublicKey);

impl AwsLc {
    /// Parses the key once. `None` where the library does not take it.
    pub fn sha512(key: &PublicKey) -> Option<Self> {
        let algorithm = &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY;
        ParsedPublicKey::new(algorithm, key.pkcs1_der()).ok().map(Self)
    }
}

impl Pkcs1 for AwsLc {
    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

/// The `rsa` crate: the second opinion, and the only one for MD5.
#[derive(Debug)]
pub struct RustCrypto {
    key: RsaPublicKey,
    algorithm: Algorithm,
}

impl RustCrypto {
    /// A key for one algorithm.
    pub fn new(key: &PublicKey, algorithm: Algorithm) -> Self {
        Self { key: key.rsa.clone(), algorithm }
    }
}

impl Pkcs1 for RustCrypto {
    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        let (scheme, digest) = match self.algorithm {
            Algorithm::Sha512 => (Pkcs1v15Sign::new::<Sha512>(), Sha512::digest(message).to_vec()),
            Algorithm::Md5 => (Pkcs1v15Sign::new::<Md5>(), Md5::digest(message).to_vec()),
        };
        self.key.verify(scheme, &digest, signature).is_ok()
    }
}
