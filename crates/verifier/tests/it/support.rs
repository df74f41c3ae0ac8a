//! Keys that are made once, and webhooks signed with them.

use std::sync::{Arc, LazyLock};

use event_model::{Algorithm, Evidence, Inbound, Timestamp};
use fluent_verifier::{KeyRing, PublicKey, SignatureError, Signatures, Verifier, WebhookVerifier};
use simulator::KeyPair;

pub(crate) const BODY: &[u8] =
    br#"{"id":"1","name":"OrderStatusChange","accountId":"ACME","retailerId":"34"}"#;

pub(crate) static SANDBOX: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(1024).unwrap());
pub(crate) static PRODUCTION: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate(1024).unwrap());
pub(crate) static LARGE: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(2048).unwrap());

pub(crate) fn public(pair: &KeyPair) -> PublicKey {
    PublicKey::parse(&pair.public_base64().unwrap()).unwrap()
}

pub(crate) fn ring(keys: &[(&str, &KeyPair)]) -> Arc<KeyRing> {
    let keys = keys
        .iter()
        .map(|(name, pair)| (name.parse().unwrap(), public(pair)));
    Arc::new(KeyRing::new(keys).unwrap())
}

pub(crate) fn both() -> Signatures {
    Signatures {
        enabled: vec![Algorithm::Sha512, Algorithm::Md5],
        ..Signatures::default()
    }
}

pub(crate) fn inbound(body: &[u8], headers: &[(&str, &str)]) -> Inbound {
    Inbound {
        body: body.to_vec().into(),
        headers: headers.iter().copied().collect(),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

/// Verifies a webhook with the sandbox key.
pub(crate) fn verify(
    signatures: Signatures,
    body: &[u8],
    headers: &[(&str, &str)],
) -> Result<Evidence, SignatureError> {
    let ring = ring(&[("sydney_sandbox", &SANDBOX)]);
    WebhookVerifier::new(ring, signatures).check(&inbound(body, headers))
}
