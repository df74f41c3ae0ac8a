//! Faults of the vendor's JavaScript SDK (`@fluentcommerce/fc-connect-sdk` 0.1.56), each under
//! its own name: the verifier has none of them.

use fluent_verifier::{PublicKey, Signatures, Verifier, WebhookVerifier};

use crate::support::{BODY, PRODUCTION, SANDBOX, both, inbound, ring, verify};

#[test]
fn md5_verifies() {
    let signed = SANDBOX.sign(BODY).unwrap();
    assert!(verify(both(), BODY, &[("flex.signature", &signed.md5)]).is_ok());
}

#[test]
fn keys_that_begin_alike_are_different_keys() {
    let first = SANDBOX.public_base64().unwrap();
    let second = PRODUCTION.public_base64().unwrap();
    assert_eq!(
        first[..20],
        second[..20],
        "all RSA keys of a size begin alike"
    );
    let signed = PRODUCTION.sign(BODY).unwrap();
    let header = [("fluent-signature", &*signed.sha512)];
    assert!(
        verify(both(), BODY, &header).is_err(),
        "another key's signature"
    );
    let ring = ring(&[
        ("sydney_sandbox", &SANDBOX),
        ("sydney_production", &PRODUCTION),
    ]);
    let evidence = WebhookVerifier::new(ring, Signatures::default())
        .check(&inbound(BODY, &header))
        .unwrap();
    assert_eq!(evidence.key.name().to_string(), "sydney_production");
}

#[test]
fn a_pem_with_newlines_is_a_key() {
    assert!(PublicKey::parse(&SANDBOX.public_pem().unwrap()).is_ok());
}

#[test]
fn header_names_have_no_case() {
    let signed = SANDBOX.sign(BODY).unwrap();
    for name in ["Fluent-Signature", "FLUENT-SIGNATURE", "fluent-signature"] {
        assert!(
            verify(both(), BODY, &[(name, &signed.sha512)]).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn the_raw_bytes_are_verified_not_the_json_written_again() {
    let odd = br#"{ "b" : 1.0, "a" : "\u00e9" }"#;
    let signed = SANDBOX.sign(*odd).unwrap();
    assert!(verify(both(), odd, &[("fluent-signature", &signed.sha512)]).is_ok());
    let again = "{\"b\":1.0,\"a\":\"é\"}".as_bytes();
    assert!(verify(both(), again, &[("fluent-signature", &signed.sha512)]).is_err());
}

#[test]
fn a_failed_sha512_is_final() {
    let signed = SANDBOX.sign(BODY).unwrap();
    let other = PRODUCTION.sign(BODY).unwrap();
    let headers = [
        ("fluent-signature", &*other.sha512),
        ("flex.signature", &*signed.md5),
    ];
    assert!(verify(both(), BODY, &headers).is_err());
}

#[test]
fn without_a_key_or_a_signature_nobody_is_admitted() {
    assert!(verify(both(), BODY, &[]).is_err());
    assert!(verify(both(), BODY, &[("fluent-signature", "")]).is_err());
    let signed = SANDBOX.sign(BODY).unwrap();
    let nobody = WebhookVerifier::new(ring(&[]), both());
    assert!(
        nobody
            .check(&inbound(BODY, &[("fluent-signature", &signed.sha512)]))
            .is_err()
    );
}
