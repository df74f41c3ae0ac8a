//! RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2), by two independent libraries.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY};
use event_model::Algorithm;
use md5::Md5;
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha2::{Digest, Sha512};

use crate::PublicKey;

/// The hash of a message, made once however many keys are tried.
#[derive(Clone, Debug)]
pub struct MessageDigest(Hashed);

#[derive(Clone, Debug)]
enum Hashed {
    Sha512(digest::Digest),
    Md5([u8; 16]),
}

impl MessageDigest {
    /// Hashes `message` as signatures of this kind require.
    pub fn of(algorithm: Algorithm, message: &[u8]) -> Self {
        Self(match algorithm {
            Algorithm::Sha512 => Hashed::Sha512(digest::digest(&digest::SHA512, message)),
            Algorithm::Md5 => Hashed::Md5(Md5::digest(message).into()),
        })
    }
}

/// A key that is ready to check signatures.
///
/// Implementations build the expected encoding and compare it. They never parse the block to
/// which a signature decrypts, which is how forgeries with a small exponent succeeded elsewhere.
pub trait Pkcs1: fmt::Debug + Send + Sync {
    /// Whether this key made `signature` over the message with this digest.
    fn accepts_digest(&self, digest: &MessageDigest, signature: &[u8]) -> bool;

    /// Whether this key made `signature` over `message`.
    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool;
}

const _: fn(&dyn Pkcs1) = |_| {};

/// Checks by AWS-LC, which is fast. SHA-512 only, since it has no MD5.
#[derive(Debug)]
pub struct AwsLc(ParsedPublicKey);

impl AwsLc {
    /// Parses the key once. `None` if the library does not accept it.
    pub fn sha512(key: &PublicKey) -> Option<Self> {
        let algorithm = &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY;
        ParsedPublicKey::new(algorithm, key.pkcs1_der())
            .ok()
            .map(Self)
    }
}

impl Pkcs1 for AwsLc {
    fn accepts_digest(&self, digest: &MessageDigest, signature: &[u8]) -> bool {
        match &digest.0 {
            Hashed::Sha512(digest) => self.0.verify_digest_sig(digest, signature).is_ok(),
            Hashed::Md5(_) => false,
        }
    }

    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        self.accepts_digest(&MessageDigest::of(Algorithm::Sha512, message), signature)
    }
}

/// Checks by the `rsa` crate: a second opinion, and the only one for MD5.
#[derive(Debug)]
pub struct RustCrypto {
    key: RsaPublicKey,
    algorithm: Algorithm,
}

impl RustCrypto {
    /// Makes a checker of a key for one algorithm.
    pub fn new(key: &PublicKey, algorithm: Algorithm) -> Self {
        Self {
            key: key.rsa.clone(),
            algorithm,
        }
    }
}

impl Pkcs1 for RustCrypto {
    fn accepts_digest(&self, digest: &MessageDigest, signature: &[u8]) -> bool {
        let (scheme, digest) = match (&digest.0, self.algorithm) {
            (Hashed::Sha512(digest), Algorithm::Sha512) => {
                (Pkcs1v15Sign::new::<Sha512>(), digest.as_ref())
            }
            (Hashed::Md5(digest), Algorithm::Md5) => (Pkcs1v15Sign::new::<Md5>(), &digest[..]),
            (Hashed::Sha512(_), Algorithm::Md5) | (Hashed::Md5(_), Algorithm::Sha512) => {
                return false;
            }
        };
        self.key.verify(scheme, digest, signature).is_ok()
    }

    /// Hashes by a library of its own too, as a second opinion on the whole.
    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        let (scheme, digest) = match self.algorithm {
            Algorithm::Sha512 => (
                Pkcs1v15Sign::new::<Sha512>(),
                Sha512::digest(message).to_vec(),
            ),
            Algorithm::Md5 => (Pkcs1v15Sign::new::<Md5>(), Md5::digest(message).to_vec()),
        };
        self.key.verify(scheme, &digest, signature).is_ok()
    }
}
