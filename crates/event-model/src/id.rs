//! Identities of an event: its own id, and the key by which Fluent knows it.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::Environment;

/// The identity of an event: SHA-256 of its environment, NUL, and its body.
///
/// In lowercase hex it is also `ce-id`, the queue's message id and the idempotency key. Fluent's
/// own `id` is neither unique nor well-formed enough for that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId([u8; 32]);

impl EventId {
    /// The id of a body in an environment.
    pub fn of(environment: Environment, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(environment.as_str());
        hash.update([0]);
        hash.update(body);
        Self(hash.finalize().into())
    }

    /// The digest itself, for stores that need it short.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Makes an id of its bytes. Fails if they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidEventId> {
        bytes.try_into().map(Self).map_err(|_| InvalidEventId)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// The key by which Fluent knows an event: its environment, account, id and name. A webhook and
/// the record of it in Fluent's log have the same key.
///
/// It is not an identity: two rules may send one event twice, with different bodies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FluentKey([u8; 16]);

impl FluentKey {
    /// Makes the key: the first half of the SHA-256 of these values, separated by NUL.
    pub fn of(environment: Environment, account: &str, id: &str, name: &str) -> Self {
        let digest = Sha256::digest([environment.as_str(), account, id, name].join("\0"));
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self(half)
    }
}

/// Writes 32 hexadecimal digits.
impl fmt::Display for FluentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FluentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FluentKey({self})")
    }
}

/// The error for a text that is not a [`FluentKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what Fluent knows an event by has 32 hexadecimal digits")]
pub struct InvalidFluentKey;

impl FromStr for FluentKey {
    type Err = InvalidFluentKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut half = [0; 16];
        hex::decode_to_slice(text, &mut half).map_err(|_| InvalidFluentKey)?;
        Ok(Self(half))
    }
}

/// The error for a text or bytes that are not an event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's id has 64 hexadecimal digits")]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = hex::decode(text).map_err(|_| InvalidEventId)?;
        Self::from_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fluent_knows_an_event_by_is_that_of_the_vector() {
        // printf 'sandbox\0ACME\0e-1\0OrderStatusChange' | sha256sum | cut -c1-32
        let key = FluentKey::of(Environment::Sandbox, "ACME", "e-1", "OrderStatusChange");
        assert_eq!(key.to_string(), "75b1a8bb37ea51b28a1fec905af5cfad");
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("75b1a8bb".parse::<FluentKey>(), Err(InvalidFluentKey));
        assert_ne!(
            key,
            FluentKey::of(Environment::Production, "ACME", "e-1", "OrderStatusChange")
        );
    }
}
