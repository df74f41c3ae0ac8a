//! The header that decides, and the form that a signature must have.

use event_model::Algorithm::{Md5, Sha512};
use event_model::Proof;
use fluent_verifier::{SignatureError, Signatures, Verifier, WebhookVerifier};

use crate::support::{BODY, LARGE, PRODUCTION, SANDBOX, both, inbound, ring, verify};

const SHA: &str = "fluent-signature";
const MD: &str = "flex.signature";

#[track_caller]
fn refuse(signatures: Signatures, headers: &[(&str, &str)], expected: SignatureError) {
    assert_eq!(
        verify(signatures, BODY, headers).unwrap_err(),
        expected,
        "{headers:?}"
    );
}

#[test]
fn either_header_proves_where_it_is_enabled() {
    let signed = SANDBOX.sign(BODY).unwrap();
    let evidence = verify(
        Signatures::default(),
        BODY,
        &[(SHA, &signed.sha512), (MD, &signed.md5)],
    )
    .unwrap();
    assert_eq!(
        (evidence.proof, evidence.key.name().to_string()),
        (Proof::Signed(Sha512), "sydney_sandbox".to_owned())
    );
    assert_eq!(evidence.signature, signed.sha512);
    assert_eq!(
        verify(both(), BODY, &[(MD, &signed.md5)]).unwrap().proof,
        Proof::Signed(Md5)
    );
    refuse(
        Signatures::default(),
        &[(MD, &signed.md5)],
        SignatureError::NotEnabled(Md5),
    );
    refuse(both(), &[], SignatureError::Missing);
}

#[test]
fn names_of_headers_are_found_in_any_case_and_can_be_renamed() {
    let signed = SANDBOX.sign(BODY).unwrap();
    assert!(
        verify(
            Signatures::default(),
            BODY,
            &[("Fluent-Signature", &signed.sha512)]
        )
        .is_ok()
    );
    let renamed = Signatures {
        sha512: vec!["x-fluent-signature".to_owned()],
        ..Signatures::default()
    };
    assert!(
        verify(
            renamed.clone(),
            BODY,
            &[("X-Fluent-Signature", &signed.sha512)]
        )
        .is_ok()
    );
    refuse(renamed, &[(SHA, &signed.sha512)], SignatureError::Missing);
}

#[test]
fn a_failed_sha512_never_falls_back_to_md5() {
    let signed = SANDBOX.sign(BODY).unwrap();
    let other = SANDBOX.sign(*b"{}").unwrap();
    refuse(
        both(),
        &[(SHA, &other.sha512), (MD, &signed.md5)],
        SignatureError::Mismatch(Sha512),
    );
    refuse(
        both(),
        &[(SHA, ""), (MD, &signed.md5)],
        SignatureError::Malformed(Sha512),
    );
    let md5_only = Signatures {
        enabled: vec![Md5],
        ..Signatures::default()
    };
    refuse(
        md5_only,
        &[(SHA, &signed.sha512), (MD, &signed.md5)],
        SignatureError::NotEnabled(Sha512),
    );
}

#[test]
fn headers_that_were_swapped_prove_nothing() {
    let signed = SANDBOX.sign(BODY).unwrap();
    refuse(
        both(),
        &[(SHA, &signed.md5), (MD, &signed.sha512)],
        SignatureError::Mismatch(Sha512),
    );
}

#[test]
fn a_header_that_is_there_twice_decides_nothing() {
    let signed = SANDBOX.sign(BODY).unwrap();
    refuse(
        both(),
        &[(SHA, &signed.sha512), (SHA, &signed.sha512)],
        SignatureError::Repeated(Sha512),
    );
    refuse(
        both(),
        &[(MD, &signed.md5), (MD, &signed.md5)],
        SignatureError::Repeated(Md5),
    );
    let comma = format!("{},{}", signed.sha512, signed.sha512);
    refuse(both(), &[(SHA, &comma)], SignatureError::Malformed(Sha512));
}

#[test]
fn base64_is_strict() {
    let text = SANDBOX.sign(BODY).unwrap().sha512;
    let unpadded = text.trim_end_matches('=').to_owned();
    for bad in [
        unpadded,
        format!(" {text}"),
        format!("{text} "),
        format!("{}\n{}", &text[..64], &text[64..]),
        format!("{text}===="),
        "AAAA-_==".to_owned(),
        "A".repeat(100_000),
        "é".to_owned(),
    ] {
        refuse(both(), &[(SHA, &bad)], SignatureError::Malformed(Sha512));
    }
}

#[test]
fn every_length_but_the_modulus_is_refused() {
    let text = SANDBOX.sign(BODY).unwrap().sha512;
    for length in (0..text.len()).step_by(4) {
        assert!(
            verify(both(), BODY, &[(SHA, &text[..length])]).is_err(),
            "{length}"
        );
    }
    refuse(
        both(),
        &[(SHA, &LARGE.sign(BODY).unwrap().sha512)],
        SignatureError::Mismatch(Sha512),
    );
}

#[test]
fn every_key_of_the_ring_is_tried_and_the_one_that_matched_is_named() {
    let ring = ring(&[
        ("sydney_sandbox", &SANDBOX),
        ("sydney_production", &PRODUCTION),
        ("dublin_sandbox", &LARGE),
    ]);
    let verifier = WebhookVerifier::new(ring, Signatures::default());
    for (pair, name) in [
        (&*SANDBOX, "sydney_sandbox"),
        (&PRODUCTION, "sydney_production"),
        (&LARGE, "dublin_sandbox"),
    ] {
        let signed = pair.sign(BODY).unwrap();
        let evidence = verifier
            .check(&inbound(BODY, &[(SHA, &signed.sha512)]))
            .unwrap();
        assert_eq!(evidence.key.name().to_string(), name);
    }
}
