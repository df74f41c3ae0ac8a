//! Whether what a queue kept is what was verified when it came in.

use std::fmt;

use crate::{Event, EventId, FluentKey};

/// Verifies again what a queue kept: whoever writes into the queue's streams past the gateways
/// must not be believed.
///
/// ```
/// use event_model::{Event, EventId, FluentKey, StoredVerdict, StoredVerifier};
///
/// /// Believes the store, as a process does that alone can write to it.
/// #[derive(Debug)]
/// struct Trusting;
///
/// impl StoredVerifier for Trusting {
///     fn verify(&self, _: &Event) -> StoredVerdict {
///         StoredVerdict::Verified
///     }
///
///     fn has_reconciled(&self, _: FluentKey, _: EventId, _: &str) -> bool {
///         true
///     }
/// }
/// ```
pub trait StoredVerifier: fmt::Debug + Send + Sync {
    /// Whether this event is genuine. Costs about as much as at the door.
    fn verify(&self, event: &Event) -> StoredVerdict;

    /// Whether `seal` proves that a reconciler of ours found the event `id` for this key.
    fn has_reconciled(&self, key: FluentKey, id: EventId, seal: &str) -> bool;
}

const _: fn(&dyn StoredVerifier) = |_| {};

/// What came of verifying a stored event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredVerdict {
    /// It is what was admitted.
    Verified,
    /// The key that is named is known, and says no: somebody put it there. Never delivered.
    Forged(Forgery),
    /// The key that is named is not among ours, so nothing is known of it: it waits for the key.
    KeyUnknown,
}

/// What shows that a stored event is not genuine. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgery {
    /// It carries nothing that could prove it.
    #[error("it has no signature")]
    Unsigned,
    /// The key did not make this signature over these bytes.
    #[error("its signature is not by the key that it names")]
    WrongSignature,
    /// The key is that of another environment or region than it says.
    #[error("its key is listed under another name than it says")]
    WrongName,
    /// The account is listed for other keys alone.
    #[error("its account is not one of its key")]
    WrongAccount,
    /// It travels under another subject, id or route than its bytes have.
    #[error("it is stored under a subject that is not its own")]
    WrongSubject,
}
