//! Verifies stored events again, as they were verified on arrival.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{
    Algorithm, Event, EventId, FluentKey, Forgery, KeyName, Proof, StoredVerdict, StoredVerifier,
};

use crate::{KeyRing, SealKeys};

/// Verifies signatures by the ring, retired keys included, and our own seals.
///
/// A forgery is only what the known key did not sign, or what it signed in the other environment.
/// What depends on this process's settings waits: a gateway may have got a new key before this
/// process did, and a ring may have the right key under another region's name. The list of accounts
/// is not asked: it was, when the event came.
#[derive(Debug)]
pub struct Reverifier {
    ring: Arc<KeyRing>,
    enabled: Vec<Algorithm>,
    seals: SealKeys,
}

impl Reverifier {
    /// Makes a verifier with these keys. Signatures of an algorithm that is not among `enabled`
    /// wait until it is: it may have been taken out of use while events were stored.
    pub fn new(
        ring: Arc<KeyRing>,
        enabled: impl IntoIterator<Item = Algorithm>,
        seals: SealKeys,
    ) -> Self {
        Self {
            ring,
            enabled: enabled.into_iter().collect(),
            seals,
        }
    }

    fn signed(&self, event: &Event, algorithm: Algorithm) -> StoredVerdict {
        let stored = event.stored();
        let signature = STANDARD.decode(&stored.signature).unwrap_or_default();
        if signature.is_empty() {
            return StoredVerdict::Forged(Forgery::Unsigned);
        }
        let Some(digest) = stored.key.digest() else {
            let name = stored.key.name();
            let signer = self
                .ring
                .signer_named(name, algorithm, &stored.body, &signature);
            return match signer {
                Some(_) => self.signed_by(name, event, algorithm),
                None => StoredVerdict::KeyUnknown,
            };
        };
        let Some(key) = self.ring.with_digest(digest) else {
            return StoredVerdict::KeyUnknown;
        };
        match key.pkcs1(algorithm).accepts(&stored.body, &signature) {
            true => self.signed_by(key.id.name(), event, algorithm),
            false => StoredVerdict::Forged(Forgery::WrongSignature),
        }
    }

    /// The verdict on a good signature by a key that is listed under `name`.
    fn signed_by(&self, name: &KeyName, event: &Event, algorithm: Algorithm) -> StoredVerdict {
        let claimed = event.stored().key.name();
        if name.environment() != claimed.environment() {
            return StoredVerdict::Forged(Forgery::WrongEnvironment);
        }
        if name != claimed {
            return StoredVerdict::KeyMisnamed;
        }
        match self.enabled.contains(&algorithm) {
            true => StoredVerdict::Verified,
            false => StoredVerdict::AlgorithmDisabled,
        }
    }

    fn sealed(&self, event: &Event) -> StoredVerdict {
        let stored = event.stored();
        let Some(digest) = stored.key.digest().filter(|_| !stored.signature.is_empty()) else {
            return StoredVerdict::Forged(Forgery::Unsigned);
        };
        match self
            .seals
            .event_is_sealed(digest, event.environment(), event.id(), &stored.signature)
        {
            None => StoredVerdict::KeyUnknown,
            Some(true) => StoredVerdict::Verified,
            Some(false) => StoredVerdict::Forged(Forgery::WrongSignature),
        }
    }
}

impl StoredVerifier for Reverifier {
    fn verify(&self, event: &Event) -> StoredVerdict {
        match event.stored().proof {
            Proof::Signed(algorithm) => self.signed(event, algorithm),
            Proof::Api => self.sealed(event),
        }
    }

    fn has_reconciled(&self, key: FluentKey, id: EventId, seal: &str) -> bool {
        self.seals.has_reconciled(key, id, seal)
    }
}
