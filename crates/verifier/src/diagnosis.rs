//! Diagnosis of signatures that do not verify: the first question of every integrator.
//!
//! The public key of a signature's maker opens the signature, and shows the digest of the bytes
//! that were signed. This tells a wrong key from a body that was changed on the way, and a guess
//! how it was changed can be proved by the digest.

use event_model::{Algorithm, Bytes, Inbound, KeyName, Proof};
use md5::Md5;
use rsa::BigUint;
use rsa::traits::PublicKeyParts;
use sha2::{Digest, Sha512};

use crate::webhook::decode;
use crate::{KeyRing, PublicKey, SignatureError, Signatures, Verifier, WebhookVerifier};

/// Result of examining a webhook's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Diagnosis {
    /// The signature is genuine.
    Genuine {
        /// The key that matched.
        key: KeyName,
        /// The proof that the webhook is Fluent's.
        proof: Proof,
    },
    /// No verification was possible.
    Refused(SignatureError),
    /// This key made the signature, but over other bytes than these.
    BodyAltered {
        /// The key that made the signature.
        key: KeyName,
        /// The change to the body, if a guess could be proved.
        alteration: Option<Alteration>,
    },
    /// The signature is good, but of the other kind: the value belongs into another header.
    WrongHeader {
        /// The key that made the signature.
        key: KeyName,
        /// The kind of signature it really is.
        really: Algorithm,
    },
    /// The signature is good, but its key is listed as retired, which admits nothing.
    RetiredKey {
        /// The key that made the signature.
        key: KeyName,
    },
    /// No key of the ring made this signature.
    UnknownKey {
        /// Size in bits of the key that made it, judging by the signature's length.
        bits: usize,
    },
}

/// A change to a body that was proved by undoing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alteration {
    /// Line ends or blanks were added after the body.
    TrailingWhitespace,
    /// Spaces and line ends were put between the JSON tokens.
    PrettyPrinted,
    /// A byte order mark was put before it.
    ByteOrderMark,
    /// Line feeds became carriage return and line feed.
    CarriageReturns,
    /// The final line end of what was signed is gone.
    MissingNewline,
}

/// Examines the signature of `inbound`.
pub fn diagnose(
    ring: &std::sync::Arc<KeyRing>,
    signatures: &Signatures,
    inbound: &Inbound,
) -> Diagnosis {
    let verifier = WebhookVerifier::new(std::sync::Arc::clone(ring), signatures.clone());
    match verifier.check(inbound) {
        Ok(evidence) => Diagnosis::Genuine {
            key: evidence.key.name().clone(),
            proof: evidence.proof,
        },
        Err(SignatureError::Mismatch(algorithm)) => {
            let signature = signatures
                .deciding(inbound)
                .ok()
                .and_then(|(_, text)| decode(text));
            mismatch(
                ring,
                algorithm,
                &inbound.body,
                &signature.unwrap_or_default(),
            )
        }
        Err(rejection) => Diagnosis::Refused(rejection),
    }
}

fn mismatch(ring: &KeyRing, claimed: Algorithm, body: &Bytes, signature: &[u8]) -> Diagnosis {
    let retired = || open(ring.retired(), signature).map(|opened| (opened, true));
    let Some(((key, algorithm, digest), is_retired)) = open(ring.keys(), signature)
        .map(|opened| (opened, false))
        .or_else(retired)
    else {
        return Diagnosis::UnknownKey {
            bits: signature.len() * 8,
        };
    };
    let key = key.clone();
    if is_retired && hash(algorithm, body) == digest {
        return Diagnosis::RetiredKey { key };
    }
    if algorithm != claimed && hash(algorithm, body) == digest {
        return Diagnosis::WrongHeader {
            key,
            really: algorithm,
        };
    }
    let alteration = candidates(body)
        .into_iter()
        .find(|(_, original)| hash(algorithm, original) == digest)
        .map(|(alteration, _)| alteration);
    Diagnosis::BodyAltered { key, alteration }
}

/// The key that made the signature, its kind, and the digest of what was signed.
fn open<'r>(
    mut keys: impl Iterator<Item = (&'r KeyName, &'r PublicKey)>,
    signature: &[u8],
) -> Option<(&'r KeyName, Algorithm, Vec<u8>)> {
    keys.find_map(|(name, key)| {
        let block = apply(key, signature)?;
        [Algorithm::Sha512, Algorithm::Md5]
            .into_iter()
            .find_map(|algorithm| Some((name, algorithm, digest_in(&block, algorithm)?)))
    })
}

/// Applies the key's public operation; returns the padded block that was signed, if this key made
/// the signature.
fn apply(key: &PublicKey, signature: &[u8]) -> Option<Vec<u8>> {
    if signature.len() != key.modulus_len() {
        return None;
    }
    let opened = BigUint::from_bytes_be(signature)
        .modpow(key.rsa.e(), key.rsa.n())
        .to_bytes_be();
    // The block begins with 00 01: one byte shorter than the modulus as a number.
    (opened.len() + 1 == key.modulus_len() && opened.first() == Some(&1)).then_some(opened)
}

fn digest_in(block: &[u8], algorithm: Algorithm) -> Option<Vec<u8>> {
    // DigestInfo headers: RFC 8017, section 9.2, note 1.
    let (header, length): (&[u8], usize) = match algorithm {
        Algorithm::Sha512 => (
            b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
            64,
        ),
        Algorithm::Md5 => (
            b"\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10",
            16,
        ),
    };
    let (front, digest) = block.split_at_checked(block.len().checked_sub(length)?)?;
    let padding = front
        .strip_suffix(header)?
        .strip_suffix(b"\0")?
        .strip_prefix(b"\x01")?;
    padding
        .iter()
        .all(|byte| *byte == 0xff)
        .then(|| digest.to_vec())
}

fn hash(algorithm: Algorithm, body: &[u8]) -> Vec<u8> {
    match algorithm {
        Algorithm::Sha512 => Sha512::digest(body).to_vec(),
        Algorithm::Md5 => Md5::digest(body).to_vec(),
    }
}

/// Bodies that may have been signed, each with the change that would explain this one.
fn candidates(body: &[u8]) -> Vec<(Alteration, Vec<u8>)> {
    let without_bom = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let lf_only: Vec<u8> = String::from_utf8_lossy(body)
        .replace("\r\n", "\n")
        .into_bytes();
    vec![
        (
            Alteration::TrailingWhitespace,
            body.trim_ascii_end().to_vec(),
        ),
        (Alteration::TrailingWhitespace, body.trim_ascii().to_vec()),
        (Alteration::ByteOrderMark, without_bom.to_vec()),
        (Alteration::CarriageReturns, lf_only),
        (Alteration::MissingNewline, [body, b"\n"].concat()),
        (Alteration::PrettyPrinted, minified(without_bom)),
    ]
}

/// `json` without the whitespace between its tokens; strings are untouched.
fn minified(json: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let mut escaped = false;
    json.iter()
        .copied()
        .filter(|byte| {
            let keep = inside || !byte.is_ascii_whitespace();
            if *byte == b'"' && !escaped {
                inside = !inside;
            }
            escaped = inside && *byte == b'\\' && !escaped;
            keep
        })
        .collect()
}
