//! Texts that are public keys, and texts that are not.

use fluent_verifier::{InvalidKey, InvalidRing, KeyRing, PublicKey};
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::{BigUint, RsaPublicKey};
use simulator::KeyPair;

use crate::support::{LARGE, SANDBOX, public};

#[track_caller]
fn refuse(text: &str, expected: InvalidKey) {
    assert_eq!(PublicKey::parse(text), Err(expected));
}

#[test]
fn a_key_is_the_same_in_every_dress() {
    let key = public(&SANDBOX);
    let base64 = SANDBOX.public_base64().unwrap();
    assert!(
        base64.starts_with("MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ"),
        "as Fluent's all begin"
    );
    let pem = SANDBOX.public_pem().unwrap();
    for text in [
        format!("  {base64}\n"),
        format!("{}\n{}", &base64[..64], &base64[64..]),
        format!("\u{feff}{base64}"),
        pem.clone(),
        pem.replace('\n', "\r\n"),
        format!("\n{pem}\n"),
    ] {
        assert_eq!(PublicKey::parse(&text).unwrap(), key);
    }
    assert_eq!(
        (key.bits(), key.modulus_len(), key.is_weak()),
        (1024, 128, true)
    );
    assert!(!public(&LARGE).is_weak());
}

#[test]
fn what_people_paste_by_mistake_is_named_and_not_shown() {
    let private = SANDBOX.private_pem().unwrap();
    refuse(&private, InvalidKey::Private);
    let inside: String = private
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    refuse(&inside, InvalidKey::Private);
    let message = PublicKey::parse(&private).unwrap_err().to_string();
    assert!(!message.contains(&inside[..16]), "{message}");

    let pem = SANDBOX.public_pem().unwrap();
    refuse(&format!("{pem}{pem}"), InvalidKey::Several);
    refuse("", InvalidKey::Malformed);
    refuse("not base64!", InvalidKey::Malformed);
    refuse("aGVsbG8=", InvalidKey::Malformed);
    refuse("-----BEGIN PUBLIC KEY-----\nMIGf", InvalidKey::Malformed);
    refuse(
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----",
        InvalidKey::Certificate,
    );
    let base64 = SANDBOX.public_base64().unwrap();
    refuse(&base64[..base64.len() - 4], InvalidKey::Malformed);
    // P-256: openssl ecparam -genkey -name prime256v1 | openssl ec -pubout
    refuse(
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEvUYLyHWLoDXtbdAucZP/sJuOkgXUz/OIZ2H5YLqtH9+Cm7v2nY8W/U1P856TyzZKKozu7E3Ru3mBBdFJqZ0hEw==",
        InvalidKey::NotRsa,
    );
}

#[test]
fn short_keys_are_nobodys() {
    let short = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 512)
        .unwrap()
        .to_public_key();
    let pem = short.to_public_key_pem(LineEnding::LF).unwrap();
    refuse(&pem, InvalidKey::Size(512));
}

/// A public key of this size, as PEM, with which nobody can sign.
fn of_size(bits: usize) -> String {
    let top = BigUint::from(1_u8) << (bits - 1);
    let modulus = top + BigUint::from(1_u8);
    let key = RsaPublicKey::new_with_max_size(modulus, BigUint::from(65537_u32), bits).unwrap();
    key.to_public_key_pem(LineEnding::LF).unwrap()
}

#[test]
fn keys_are_taken_up_to_8192_bits_and_none_above() {
    for bits in [1024, 2048, 3072, 4096, 8192] {
        let key = PublicKey::parse(&of_size(bits)).unwrap();
        assert_eq!((key.bits(), key.is_weak()), (bits, bits < 2048));
    }
    for bits in [1023, 8193, 16384] {
        refuse(&of_size(bits), InvalidKey::Size(bits));
    }
    let refused = PublicKey::parse(&of_size(16384)).unwrap_err().to_string();
    assert_eq!(refused, "the RSA key has 16384 bits: expected 1024 to 8192");
}

#[test]
fn a_ring_is_bounded_and_gives_a_key_one_name() {
    let sandbox = || ("sydney_sandbox".parse().unwrap(), public(&SANDBOX));
    assert_eq!(
        KeyRing::new([sandbox(), sandbox()]).unwrap().keys().count(),
        1
    );
    let shared = KeyRing::new([
        sandbox(),
        ("sydney_production".parse().unwrap(), public(&SANDBOX)),
    ]);
    assert!(matches!(shared, Err(InvalidRing::Shared(..))), "{shared:?}");
    let many = (0..33).map(|number| {
        (
            format!("r{number}_sandbox").parse().unwrap(),
            public(&KeyPair::generate(1024).unwrap()),
        )
    });
    assert_eq!(KeyRing::new(many).unwrap_err(), InvalidRing::TooMany(33));
}
