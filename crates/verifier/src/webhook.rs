//! Verification of webhooks: the signature that decides, and the key that made it.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{Algorithm, Evidence, Inbound, Proof};

use crate::{KeyRing, MAX_BITS, SignatureError, Verifier};

/// Length of the largest signature in base64.
const MAX_BASE64: usize = (MAX_BITS / 8).div_ceil(3) * 4;

/// The headers that may have signatures, and the kinds that are enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// Kinds of signatures that may admit a webhook.
    pub enabled: Vec<Algorithm>,
    /// Names of the SHA-512 header, since proxies rename it.
    pub sha512: Vec<String>,
    /// Names of the MD5 header.
    pub md5: Vec<String>,
}

impl Default for Signatures {
    fn default() -> Self {
        Self {
            enabled: vec![Algorithm::Sha512],
            sha512: vec!["fluent-signature".to_owned()],
            md5: vec!["flex.signature".to_owned()],
        }
    }
}

impl Signatures {
    /// The names of the header that has signatures of this kind.
    pub fn headers(&self, algorithm: Algorithm) -> &[String] {
        match algorithm {
            Algorithm::Sha512 => &self.sha512,
            Algorithm::Md5 => &self.md5,
        }
    }

    /// Returns the one signature that decides.
    ///
    /// A SHA-512 header decides alone, whatever the result: a fallback to MD5 would let an
    /// attacker choose the weaker of the two.
    pub(crate) fn deciding<'a>(
        &self,
        inbound: &'a Inbound,
    ) -> Result<(Algorithm, &'a [u8]), SignatureError> {
        for algorithm in [Algorithm::Sha512, Algorithm::Md5] {
            match self.values(algorithm, inbound)[..] {
                [] => {}
                _ if !self.enabled.contains(&algorithm) => {
                    return Err(SignatureError::NotEnabled(algorithm));
                }
                [one] => return Ok((algorithm, one)),
                _ => return Err(SignatureError::Repeated(algorithm)),
            }
        }
        Err(SignatureError::Missing)
    }

    fn values<'a>(&self, algorithm: Algorithm, inbound: &'a Inbound) -> Vec<&'a [u8]> {
        let names = self.headers(algorithm);
        let carries = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        inbound
            .headers
            .iter()
            .filter(|(name, _)| carries(name))
            .map(|(_, value)| value)
            .collect()
    }
}

/// Verifies webhooks as Fluent signs them: over the raw body, in one header.
#[derive(Clone, Debug)]
pub struct WebhookVerifier {
    ring: Arc<KeyRing>,
    signatures: Signatures,
    believes_retired: bool,
}

impl WebhookVerifier {
    /// Makes a verifier with these keys and this policy.
    pub fn new(ring: Arc<KeyRing>, signatures: Signatures) -> Self {
        Self {
            ring,
            signatures,
            believes_retired: false,
        }
    }

    /// Makes a verifier for webhooks that were verified on arrival and stored since: retired keys
    /// still prove them. Never to be used for webhooks that arrive now.
    #[must_use]
    pub fn for_kept(self) -> Self {
        Self {
            believes_retired: true,
            ..self
        }
    }
}

impl Verifier for WebhookVerifier {
    fn check(&self, inbound: &Inbound) -> Result<Evidence, SignatureError> {
        let (algorithm, text) = self.signatures.deciding(inbound)?;
        let signature = decode(text).ok_or(SignatureError::Malformed(algorithm))?;
        let signer = match self.believes_retired {
            true => self.ring.signer_once(algorithm, &inbound.body, &signature),
            false => self.ring.signer(algorithm, &inbound.body, &signature),
        };
        let key = signer.ok_or(SignatureError::Mismatch(algorithm))?;
        Ok(Evidence {
            proof: Proof::Signed(algorithm),
            key: Arc::clone(key),
            signature: STANDARD.encode(&signature),
        })
    }
}

/// Decodes a signature strictly: standard alphabet, canonical padding, no whitespace, bounded
/// size.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_BASE64 {
        return None;
    }
    STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())
}
