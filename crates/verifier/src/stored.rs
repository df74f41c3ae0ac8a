//! Verifies stored events again, as they were verified on arrival.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{
    Accounts, Algorithm, Event, EventId, FluentKey, Forgery, Proof, StoredVerdict, StoredVerifier,
};

use crate::{KeyRing, SealKeys};

/// Verifies signatures by the ring, retired keys included, and our own seals.
///
/// An event whose key is not in the ring is not a forgery: a gateway may have got a new key
/// before this process did. A process without any key can't tell anything about events.
#[derive(Debug)]
pub struct Reverifier {
    ring: Arc<KeyRing>,
    accounts: Accounts,
    seals: SealKeys,
}

impl Reverifier {
    /// Makes a verifier with these keys. Of `accounts` only the binding to keys counts: an
    /// account that is no longer listed was listed when the event came.
    pub fn new(ring: Arc<KeyRing>, accounts: Accounts, seals: SealKeys) -> Self {
        Self {
            ring,
            accounts,
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
            let signer =
                self.ring
                    .signer_named(stored.key.name(), algorithm, &stored.body, &signature);
            return signer.map_or(StoredVerdict::KeyUnknown, |_| self.bound(event));
        };
        let Some(key) = self.ring.with_digest(digest) else {
            return StoredVerdict::KeyUnknown;
        };
        if key.id.name() != stored.key.name() {
            return StoredVerdict::Forged(Forgery::WrongName);
        }
        match key.pkcs1(algorithm).accepts(&stored.body, &signature) {
            true => self.bound(event),
            false => StoredVerdict::Forged(Forgery::WrongSignature),
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
            Some(true) => self.bound(event),
            Some(false) => StoredVerdict::Forged(Forgery::WrongSignature),
        }
    }

    fn bound(&self, event: &Event) -> StoredVerdict {
        let listed = self.accounts.named(event.account());
        let is_bound = listed.is_empty()
            || listed
                .iter()
                .any(|account| account.key == *event.stored().key.name());
        if is_bound {
            StoredVerdict::Verified
        } else {
            StoredVerdict::Forged(Forgery::WrongAccount)
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
