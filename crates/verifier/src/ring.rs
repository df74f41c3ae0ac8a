use std::sync::Arc;

use event_model::{Algorithm, KeyName};

use crate::{AwsLc, Pkcs1, PublicKey, RustCrypto};

/// Most keys in a ring. Every key may be tried for every request, also for a
/// stranger's: this bounds what a forged request costs.
pub const MAX_KEYS: usize = 32;

/// Every key that may have signed a webhook, of all regions and environments.
#[derive(Debug)]
pub struct KeyRing(Vec<RingKey>);

/// One key and its name.
#[derive(Debug)]
pub(crate) struct RingKey {
    pub(crate) name: Arc<KeyName>,
    pub(crate) key: PublicKey,
    sha512: Box<dyn Pkcs1>,
    md5: RustCrypto,
}

/// Why these keys do not make a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRing {
    /// More than [`MAX_KEYS`].
    #[error("{0} keys: a ring holds {MAX_KEYS} at most")]
    TooMany(usize),
    /// One key under two names would admit one environment's events as the other's.
    #[error(
        "the same key is listed as `{0}` and as `{1}`: list it once, and give the accounts that use it that region"
    )]
    Shared(KeyName, KeyName),
}

impl KeyRing {
    /// A ring of named keys; several may have one name while they are rotated.
    pub fn new(keys: impl IntoIterator<Item = (KeyName, PublicKey)>) -> Result<Self, InvalidRing> {
        let mut ring: Vec<RingKey> = Vec::new();
        for (name, key) in keys {
            match ring.iter().find(|known| known.key == key) {
                Some(known) if *known.name == name => {}
                Some(known) => return Err(InvalidRing::Shared((*known.name).clone(), name)),
                None => ring.push(RingKey::new(name, key)),
            }
        }
        if ring.len() > MAX_KEYS {
            return Err(InvalidRing::TooMany(ring.len()));
        }
        Ok(Self(ring))
    }

    /// The name of the key that made `signature` over `body`.
    pub(crate) fn signer(
        &self,
        algorithm: Algorithm,
        body: &[u8],
        signature: &[u8],
    ) -> Option<&Arc<KeyName>> {
        self.0
            .iter()
            .filter(|key| key.key.modulus_len() == signature.len())
            .find(|key| key.pkcs1(algorithm).accepts(body, signature))
            .map(|key| &key.name)
    }

    /// Every key and its name, in the order listed.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyName, &PublicKey)> {
        self.0.iter().map(|key| (&*key.name, &key.key))
    }
}

impl RingKey {
    fn new(name: KeyName, key: PublicKey) -> Self {
        let sha512: Box<dyn Pkcs1> = match AwsLc::sha512(&key) {
            Some(fast) => Box::new(fast),
            None => Box::new(RustCrypto::new(&key, Algorithm::Sha512)),
        };
        let md5 = RustCrypto::new(&key, Algorithm::Md5);
        Self { name: Arc::new(name), key, sha512, md5 }
    }

    fn pkcs1(&self, algorithm: Algorithm) -> &dyn Pkcs1 {
        match algorithm {
            Algorithm::Sha512 => &*self.sha512,
            Algorithm::Md5 => &self.md5,
        }
    }
}
