//! Identity of the key that made a signature: its name in the settings, and its digest.

use std::{fmt, str::FromStr};

use crate::{Environment, KeyName};

/// SHA-256 of a public key's SPKI DER, as `openssl pkey -pubin -outform DER | sha256sum` prints
/// it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Makes a digest of its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({self})")
    }
}

impl FromStr for KeyDigest {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        let is_lowercase = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if is_lowercase => Ok(Self(bytes)),
            _ => Err(InvalidKeyId),
        }
    }
}

/// The key by which an event is known to be genuine.
///
/// Several keys may have one name during an exchange of keys, and a name outlives its keys: the
/// digest tells which key it was. Events that were stored before digests were recorded have none.
///
/// ```
/// use fluent_event_model::KeyId;
///
/// let digest = "5f".repeat(32);
/// let id: KeyId = format!("sydney_sandbox#{digest}").parse()?;
/// assert_eq!(id.name().to_string(), "sydney_sandbox");
/// assert_eq!(id.digest().unwrap().to_string(), digest);
/// assert_eq!("sydney_sandbox".parse::<KeyId>()?.digest(), None);
/// # Ok::<(), fluent_event_model::InvalidKeyId>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    name: KeyName,
    digest: Option<KeyDigest>,
}

/// The error for a text that is not `<region>_<environment>`, alone or followed by `#` and a
/// digest in lowercase hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a key's name such as sydney_sandbox, alone or with `#` and the 64 hex digits of its digest"
)]
pub struct InvalidKeyId;

impl KeyId {
    /// A key with this name and digest.
    pub fn new(name: KeyName, digest: KeyDigest) -> Self {
        Self {
            name,
            digest: Some(digest),
        }
    }

    /// An unknown key with this name.
    pub fn any_named(name: KeyName) -> Self {
        Self { name, digest: None }
    }

    /// The name under which it is listed.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The digest, which tells the keys of one name apart; `None` if it was not recorded.
    pub fn digest(&self) -> Option<KeyDigest> {
        self.digest
    }

    /// The environment whose events the key signs.
    pub fn environment(&self) -> Environment {
        self.name.environment()
    }

    /// The text for stores; parsing reads it.
    pub fn to_text(&self) -> String {
        match self.digest {
            Some(digest) => format!("{}#{digest}", self.name),
            None => self.name.to_string(),
        }
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digest) = match text.split_once('#') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        Ok(Self {
            name: name.parse().map_err(|_| InvalidKeyId)?,
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_back_as_it_was_or_not_at_all() {
        let digest = "0a".repeat(32);
        for text in [
            "sydney_sandbox".to_owned(),
            format!("north_america_production#{digest}"),
        ] {
            assert_eq!(text.parse::<KeyId>().unwrap().to_text(), text);
        }
        let upper = format!("sydney_sandbox#{}", digest.to_uppercase());
        for text in [
            "",
            "sydney",
            "sydney_sandbox#",
            "sydney_sandbox#0a",
            "#",
            &upper,
        ] {
            assert_eq!(text.parse::<KeyId>(), Err(InvalidKeyId), "{text}");
        }
    }
}
