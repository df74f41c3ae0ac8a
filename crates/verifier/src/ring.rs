//! The ring of keys whose signatures are accepted, and the search for the key that made one.

use std::collections::HashMap;
use std::sync::Arc;

use event_model::{Algorithm, KeyDigest, KeyId, KeyName};

use crate::{AwsLc, MessageDigest, Pkcs1, PublicKey, RustCrypto};

/// Largest number of keys that may be tried for a webhook. All may be tried, also for a
/// stranger's webhook, so this bounds the cost of a forged request.
pub const MAX_KEYS: usize = 32;

/// Largest number of retired keys, which are only used for stored events. Each is found by its
/// digest, so they cost only memory: enough for two exchanges a year of a full ring.
pub const MAX_RETIRED_KEYS: usize = 64;

/// Every key that may have signed a webhook, of all regions and environments.
#[derive(Debug)]
pub struct KeyRing {
    /// All keys, those in use first.
    keys: Vec<RingKey>,
    in_use: usize,
    by_digest: HashMap<KeyDigest, usize>,
}

/// One key with its name, ready to check signatures.
#[derive(Debug)]
pub(crate) struct RingKey {
    pub(crate) id: Arc<KeyId>,
    pub(crate) key: PublicKey,
    sha512: Box<dyn Pkcs1>,
    md5: RustCrypto,
}

/// Reason why a list of keys does not make a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRing {
    /// There are more than [`MAX_KEYS`] keys in use.
    #[error("{0} keys: a ring holds {MAX_KEYS} at most")]
    TooMany(usize),
    /// There are more than [`MAX_RETIRED_KEYS`] retired keys.
    #[error("{0} retired keys: a ring holds {MAX_RETIRED_KEYS} at most")]
    TooManyRetired(usize),
    /// One key has two names, which would admit one environment's events as another's.
    #[error(
        "the same key is listed as `{0}` and as `{1}`: list it once, and give the accounts that use it that region"
    )]
    Shared(KeyName, KeyName),
    /// A key is listed as retired and as in use, so it is unclear which is meant.
    #[error("the same key of `{0}` is listed as one in use and as a retired one: list it once")]
    InUse(KeyName),
}

impl KeyRing {
    /// Makes a ring of named keys; several may have one name while they are exchanged.
    pub fn new(keys: impl IntoIterator<Item = (KeyName, PublicKey)>) -> Result<Self, InvalidRing> {
        Self::with_retired(keys, [])
    }

    /// Makes a ring that also has retired keys: they admit nothing any more, but still prove what
    /// was admitted by them.
    pub fn with_retired(
        keys: impl IntoIterator<Item = (KeyName, PublicKey)>,
        retired: impl IntoIterator<Item = (KeyName, PublicKey)>,
    ) -> Result<Self, InvalidRing> {
        let mut ring = Self {
            keys: Vec::new(),
            in_use: 0,
            by_digest: HashMap::new(),
        };
        for (name, key) in keys {
            ring.add(name, key)?;
        }
        ring.in_use = ring.keys.len();
        if ring.in_use > MAX_KEYS {
            return Err(InvalidRing::TooMany(ring.in_use));
        }
        for (name, key) in retired {
            let index = ring.add(name.clone(), key)?;
            if index < ring.in_use {
                return Err(InvalidRing::InUse(name));
            }
        }
        match ring.keys.len() - ring.in_use {
            0..=MAX_RETIRED_KEYS => Ok(ring),
            retired => Err(InvalidRing::TooManyRetired(retired)),
        }
    }

    fn add(&mut self, name: KeyName, key: PublicKey) -> Result<usize, InvalidRing> {
        let digest = key.digest();
        if let Some(index) = self.by_digest.get(&digest).copied() {
            let known = self.keys[index].id.name();
            return if *known == name {
                Ok(index)
            } else {
                Err(InvalidRing::Shared(known.clone(), name))
            };
        }
        self.keys.push(RingKey::new(name, key, digest));
        self.by_digest.insert(digest, self.keys.len() - 1);
        Ok(self.keys.len() - 1)
    }

    /// The key in use that made `signature` over `body`.
    pub(crate) fn signer(
        &self,
        algorithm: Algorithm,
        body: &[u8],
        signature: &[u8],
    ) -> Option<&Arc<KeyId>> {
        Self::made_by(self.keys[..self.in_use].iter(), algorithm, body, signature)
    }

    /// The key, in use or retired, that made `signature` over `body`.
    pub(crate) fn signer_once(
        &self,
        algorithm: Algorithm,
        body: &[u8],
        signature: &[u8],
    ) -> Option<&Arc<KeyId>> {
        Self::made_by(self.keys.iter(), algorithm, body, signature)
    }

    /// The key with this name, in use or retired, that made `signature` over `body`.
    pub(crate) fn signer_named(
        &self,
        name: &KeyName,
        algorithm: Algorithm,
        body: &[u8],
        signature: &[u8],
    ) -> Option<&Arc<KeyId>> {
        let named = self.keys.iter().filter(|key| key.id.name() == name);
        Self::made_by(named, algorithm, body, signature)
    }

    fn made_by<'k>(
        keys: impl Iterator<Item = &'k RingKey>,
        algorithm: Algorithm,
        body: &[u8],
        signature: &[u8],
    ) -> Option<&'k Arc<KeyId>> {
        let mut fitting = keys
            .filter(|key| key.key.modulus_len() == signature.len())
            .peekable();
        // A body is hashed once, and not at all for a signature that no key could have made.
        fitting.peek()?;
        let digest = MessageDigest::of(algorithm, body);
        fitting
            .find(|key| key.pkcs1(algorithm).accepts_digest(&digest, signature))
            .map(|key| &key.id)
    }

    /// The key with this digest, in use or retired.
    pub(crate) fn with_digest(&self, digest: KeyDigest) -> Option<&RingKey> {
        self.by_digest.get(&digest).map(|index| &self.keys[*index])
    }

    /// Every key in use with its name, in the order listed.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyName, &PublicKey)> {
        self.keys[..self.in_use]
            .iter()
            .map(|key| (key.id.name(), &key.key))
    }

    /// Every retired key with its name, in the order listed.
    pub fn retired(&self) -> impl Iterator<Item = (&KeyName, &PublicKey)> {
        self.keys[self.in_use..]
            .iter()
            .map(|key| (key.id.name(), &key.key))
    }
}

impl RingKey {
    fn new(name: KeyName, key: PublicKey, digest: KeyDigest) -> Self {
        let sha512: Box<dyn Pkcs1> = match AwsLc::sha512(&key) {
            Some(fast) => Box::new(fast),
            None => Box::new(RustCrypto::new(&key, Algorithm::Sha512)),
        };
        let md5 = RustCrypto::new(&key, Algorithm::Md5);
        Self {
            id: Arc::new(KeyId::new(name, digest)),
            key,
            sha512,
            md5,
        }
    }

    pub(crate) fn pkcs1(&self, algorithm: Algorithm) -> &dyn Pkcs1 {
        match algorithm {
            Algorithm::Sha512 => &*self.sha512,
            Algorithm::Md5 => &self.md5,
        }
    }
}
