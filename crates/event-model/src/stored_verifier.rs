//! The port by which a stored event is verified again.

use std::fmt;

use crate::{Event, EventId, FluentKey};

/// Verifies stored events again: a process that writes into the queue's streams past the gateways
/// must not be believed.
///
/// ```
/// use fluent_event_model::{Event, EventId, FluentKey, StoredVerdict, StoredVerifier};
///
/// /// Trusts the store, as a process may that alone can write to it.
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
    /// Verifies an event. Costs about as much as on arrival.
    fn verify(&self, event: &Event) -> StoredVerdict;

    /// Whether `seal` proves that a reconciler of ours found the event `id` for this key.
    fn has_reconciled(&self, key: FluentKey, id: EventId, seal: &str) -> bool;
}

const _: fn(&dyn StoredVerifier) = |_| {};

/// Result of verifying a stored event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredVerdict {
    /// The event is what was admitted.
    Verified,
    /// The named key is known, and did not sign the event: somebody put it there. It is never
    /// delivered.
    Forged(Forgery),
    /// The named key is not among ours, so nothing is known of the event: it waits for the key.
    KeyUnknown,
    /// The named key is ours and signed the event, and is listed here under another region's name
    /// in the same environment: it waits until the names agree.
    KeyMisnamed,
    /// The signature is good, and of an algorithm that is not enabled here: it waits until that is.
    AlgorithmDisabled,
}

impl StoredVerdict {
    /// The reason why the event waits for other settings; `None` if it does not wait.
    pub fn waits_because(self) -> Option<&'static str> {
        match self {
            Self::Verified | Self::Forged(_) => None,
            Self::KeyUnknown => Some("it names a key that is not among ours"),
            Self::KeyMisnamed => {
                Some("its key is listed here under another region's name than the gateway's")
            }
            Self::AlgorithmDisabled => {
                Some("its signature is of an algorithm that webhook.signatures does not have here")
            }
        }
    }
}

/// Evidence that a stored event is not genuine. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgery {
    /// The event has nothing that could prove it.
    #[error("it has no signature")]
    Unsigned,
    /// The key did not make this signature over these bytes.
    #[error("its signature is not by the key that it names")]
    WrongSignature,
    /// The key signs for the other environment than the event says.
    #[error("its key is listed for another environment than it says")]
    WrongEnvironment,
    /// The event is stored under another subject, id or route than its bytes have.
    #[error("it is stored under a subject that is not its own")]
    WrongSubject,
}
