//! Malformed encodings, of which none may be accepted. They are made here for 1024 bits and MD5,
//! since nobody publishes such vectors, and signed with a real key.

use std::sync::LazyLock;

use event_model::Algorithm;
use fluent_verifier::{AwsLc, Pkcs1, RustCrypto};
use rsa::BigUint;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use simulator::KeyPair;

use crate::support::{BODY, SANDBOX, public};

/// DigestInfo headers: RFC 8017, section 9.2, note 1.
const SHA512: &[u8] = &[
    0x30, 0x51, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3, 5, 0, 4, 0x40,
];
const MD5: &[u8] = &[
    0x30, 0x20, 0x30, 0x0c, 6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5, 5, 0, 4, 0x10,
];

fn digest(algorithm: Algorithm) -> Vec<u8> {
    use md5::Digest;
    match algorithm {
        Algorithm::Sha512 => sha2::Sha512::digest(BODY).to_vec(),
        Algorithm::Md5 => md5::Md5::digest(BODY).to_vec(),
    }
}

fn header(algorithm: Algorithm) -> &'static [u8] {
    match algorithm {
        Algorithm::Sha512 => SHA512,
        Algorithm::Md5 => MD5,
    }
}

/// A block of the modulus' length: `00 01 ff.. 00` before `content`.
fn block(pair: &KeyPair, content: &[u8]) -> Vec<u8> {
    let padding = pair.private().size() - content.len() - 3;
    [&[0, 1][..], &vec![0xff; padding], &[0], content].concat()
}

/// Applies the private operation to any block, for signatures that nobody should make.
fn sign(pair: &KeyPair, block: &[u8]) -> Vec<u8> {
    let key = pair.private();
    let number = BigUint::from_bytes_be(block).modpow(key.d(), key.n());
    padded(&number, key.size())
}

fn padded(number: &BigUint, length: usize) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    [vec![0; length.saturating_sub(bytes.len())], bytes].concat()
}

fn implementations(algorithm: Algorithm) -> Vec<Box<dyn Pkcs1>> {
    static KEY: LazyLock<fluent_verifier::PublicKey> = LazyLock::new(|| public(&SANDBOX));
    let mut all: Vec<Box<dyn Pkcs1>> = vec![Box::new(RustCrypto::new(&KEY, algorithm))];
    if algorithm == Algorithm::Sha512 {
        all.push(Box::new(AwsLc::sha512(&KEY).unwrap()));
    }
    all
}

#[track_caller]
fn check(what: &str, algorithm: Algorithm, signature: &[u8], expected: bool) {
    for implementation in implementations(algorithm) {
        assert_eq!(
            implementation.accepts(BODY, signature),
            expected,
            "{what}, {algorithm}: {implementation:?}"
        );
    }
}

#[test]
fn only_the_proper_encoding_is_accepted() {
    for algorithm in [Algorithm::Sha512, Algorithm::Md5] {
        let head = header(algorithm);
        let digest = digest(algorithm);
        let proper = [head, &digest].concat();
        check(
            "proper",
            algorithm,
            &sign(&SANDBOX, &block(&SANDBOX, &proper)),
            true,
        );

        let refuse =
            |what: &str, block: Vec<u8>| check(what, algorithm, &sign(&SANDBOX, &block), false);
        let encoded = |content: &[u8]| block(&SANDBOX, content);

        let mut wrong_oid = proper.clone();
        wrong_oid[head.len() - 6] ^= 1;
        refuse("wrong OID", encoded(&wrong_oid));

        let mut no_null = proper.clone();
        no_null.drain(head.len() - 4..head.len() - 2);
        no_null[1] -= 2;
        no_null[3] -= 2;
        refuse("missing NULL", encoded(&no_null));

        let mut long_length = proper.clone();
        long_length.insert(1, 0x81);
        refuse("BER length", encoded(&long_length));

        refuse(
            "bytes after the hash",
            encoded(&[&proper[..], &[0, 0]].concat()),
        );
        refuse("hash alone", encoded(&digest));

        let mut flipped = encoded(&proper);
        flipped[10] = 0xfe;
        refuse("a byte of padding that is not ff", flipped);
        for block_type in [0, 2] {
            let mut other = encoded(&proper);
            other[1] = block_type;
            refuse("block type", other);
        }
        // The content is moved forward with garbage behind it, which a parser of padding accepts.
        let room = SANDBOX.private().size() - proper.len() - 11;
        let short = [&[0, 1][..], &[0xff; 8], &[0], &proper, &vec![0xa5; room]].concat();
        refuse("short padding", short);
    }
}

#[test]
fn only_numbers_below_the_modulus_and_of_its_length_are_accepted() {
    for algorithm in [Algorithm::Sha512, Algorithm::Md5] {
        let key = SANDBOX.private();
        let length = key.size();
        let n = key.n();
        let proper = sign(
            &SANDBOX,
            &block(&SANDBOX, &[header(algorithm), &digest(algorithm)].concat()),
        );
        let s = BigUint::from_bytes_be(&proper);
        check("proper", algorithm, &proper, true);
        check("empty", algorithm, &[], false);
        check("k + 1", algorithm, &[&[0][..], &proper].concat(), false);
        check("k - 1", algorithm, &proper[1..], false);
        check("s + n", algorithm, &padded(&(&s + n), length), false);
        let one = BigUint::from(1_u8);
        for (what, number) in [
            ("0", BigUint::from(0_u8)),
            ("1", one.clone()),
            ("n - 1", n - &one),
            ("n", n.clone()),
        ] {
            check(what, algorithm, &padded(&number, length), false);
        }
    }
}

#[test]
fn pss_is_not_pkcs1() {
    use md5::Digest;
    let scheme = rsa::Pss::new::<sha2::Sha512>();
    let digest = sha2::Sha512::digest(BODY);
    // PSS with SHA-512 and its salt does not fit into 1024 bits with slack; 2048 does.
    let pair = &crate::support::LARGE;
    let signature = pair
        .private()
        .sign_with_rng(&mut rsa::rand_core::OsRng, scheme, &digest)
        .unwrap();
    let key = public(pair);
    assert!(!AwsLc::sha512(&key).unwrap().accepts(BODY, &signature));
    assert!(!RustCrypto::new(&key, Algorithm::Sha512).accepts(BODY, &signature));
}

/// Bleichenbacher 2006: a cube that begins like a proper block, for e = 3. The key itself is
/// refused, so there is nothing to check the forgery with.
#[test]
fn a_cube_root_forgery_finds_no_key() {
    let n = LARGE_N.as_bytes();
    let modulus = BigUint::parse_bytes(n, 16).unwrap();
    let key = rsa::RsaPublicKey::new(modulus, BigUint::from(3_u8)).unwrap();
    let pem =
        rsa::pkcs8::EncodePublicKey::to_public_key_pem(&key, rsa::pkcs8::LineEnding::LF).unwrap();
    assert_eq!(
        fluent_verifier::PublicKey::parse(&pem),
        Err(fluent_verifier::InvalidKey::Exponent)
    );
}

/// An odd number of 2048 bits: only the exponent matters here.
const LARGE_N: &str = concat!(
    "c0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001",
);
