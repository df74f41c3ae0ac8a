//! Diagnoses of signatures that do not verify.

use std::sync::Arc;

use event_model::{Algorithm, KeyName, Proof};
use fluent_verifier::{Alteration, Diagnosis, KeyRing, PublicKey, SignatureError, diagnose};

use crate::support::{BODY, LARGE, PRODUCTION, SANDBOX, both, inbound, ring};

#[track_caller]
fn check(body: &[u8], headers: &[(&str, &str)], expected: &Diagnosis) {
    let ring = ring(&[("sydney_sandbox", &SANDBOX), ("dublin_sandbox", &LARGE)]);
    assert_eq!(diagnose(&ring, &both(), &inbound(body, headers)), *expected);
}

fn altered(key: &str, alteration: Option<Alteration>) -> Diagnosis {
    Diagnosis::BodyAltered {
        key: key.parse().unwrap(),
        alteration,
    }
}

#[test]
fn what_was_done_to_the_body_is_proved() {
    let signed = SANDBOX.sign(BODY).unwrap();
    let pretty = String::from_utf8(BODY.to_vec())
        .unwrap()
        .replace(',', ",\n  ")
        .replace(':', ": ");
    for (body, alteration) in [
        ([BODY, b"\n"].concat(), Some(Alteration::TrailingWhitespace)),
        (
            [BODY, b"\r\n"].concat(),
            Some(Alteration::TrailingWhitespace),
        ),
        (
            [b"\xef\xbb\xbf", BODY].concat(),
            Some(Alteration::ByteOrderMark),
        ),
        (pretty.into_bytes(), Some(Alteration::PrettyPrinted)),
        (b"{}".to_vec(), None),
    ] {
        check(
            &body,
            &[("fluent-signature", &signed.sha512)],
            &altered("sydney_sandbox", alteration),
        );
        check(
            &body,
            &[("flex.signature", &signed.md5)],
            &altered("sydney_sandbox", alteration),
        );
    }
    let with_newline = SANDBOX.sign([BODY, b"\n"].concat()).unwrap();
    let missing = altered("sydney_sandbox", Some(Alteration::MissingNewline));
    check(
        BODY,
        &[("fluent-signature", &with_newline.sha512)],
        &missing,
    );
    let lines = SANDBOX.sign(*b"{\n}").unwrap();
    let rewritten = altered("sydney_sandbox", Some(Alteration::CarriageReturns));
    check(
        b"{\r\n}",
        &[("fluent-signature", &lines.sha512)],
        &rewritten,
    );
}

#[test]
fn the_signer_is_named() {
    let large = LARGE.sign(BODY).unwrap();
    let genuine = Diagnosis::Genuine {
        key: "dublin_sandbox".parse().unwrap(),
        proof: Proof::Signed(Algorithm::Sha512),
    };
    check(BODY, &[("fluent-signature", &large.sha512)], &genuine);
    check(
        b"{}",
        &[("fluent-signature", &large.sha512)],
        &altered("dublin_sandbox", None),
    );
    let unknown = PRODUCTION.sign(BODY).unwrap();
    check(
        BODY,
        &[("fluent-signature", &unknown.sha512)],
        &Diagnosis::UnknownKey { bits: 1024 },
    );
}

#[test]
fn a_signature_by_a_retired_key_is_told_from_one_by_an_unknown_key() {
    let name: KeyName = "sydney_sandbox".parse().unwrap();
    let key = |pair: &simulator::KeyPair| PublicKey::parse(&pair.public_base64().unwrap()).unwrap();
    let retired = [(name.clone(), key(&SANDBOX))];
    let in_use = [("dublin_sandbox".parse().unwrap(), key(&LARGE))];
    let ring = Arc::new(KeyRing::with_retired(in_use, retired).unwrap());
    let signed = SANDBOX.sign(BODY).unwrap();
    for (header, signature) in [
        ("fluent-signature", &signed.sha512),
        ("flex.signature", &signed.md5),
    ] {
        let said = |body: &[u8]| diagnose(&ring, &both(), &inbound(body, &[(header, signature)]));
        assert_eq!(said(BODY), Diagnosis::RetiredKey { key: name.clone() });
        assert_eq!(said(b"{}"), altered("sydney_sandbox", None));
    }
}

#[test]
fn a_signature_in_the_wrong_header_is_recognised() {
    let signed = SANDBOX.sign(BODY).unwrap();
    let wrong = Diagnosis::WrongHeader {
        key: "sydney_sandbox".parse().unwrap(),
        really: Algorithm::Md5,
    };
    check(BODY, &[("fluent-signature", &signed.md5)], &wrong);
    check(BODY, &[], &Diagnosis::Refused(SignatureError::Missing));
}
