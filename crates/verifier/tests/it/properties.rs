//! Properties: no other body, signature or key is accepted.

use proptest::prelude::*;

use crate::support::{BODY, PRODUCTION, SANDBOX, both, verify};

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

#[test]
fn no_flipped_bit_of_a_body_passes() {
    let signed = SANDBOX.sign(BODY).unwrap();
    for bit in 0..BODY.len() * 8 {
        let headers = [("fluent-signature", &*signed.sha512)];
        assert!(
            verify(both(), &flip(BODY, bit), &headers).is_err(),
            "bit {bit}"
        );
        assert!(
            verify(both(), &flip(BODY, bit), &[("flex.signature", &signed.md5)]).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn no_flipped_bit_of_a_signature_passes() {
    let signed = SANDBOX.sign(BODY).unwrap();
    for (name, text) in [
        ("fluent-signature", &signed.sha512),
        ("flex.signature", &signed.md5),
    ] {
        for bit in 0..text.len() * 8 {
            let Ok(altered) = String::from_utf8(flip(text.as_bytes(), bit)) else {
                continue;
            };
            assert!(
                verify(both(), BODY, &[(name, &altered)]).is_err(),
                "{name} bit {bit}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn what_is_signed_passes_and_no_other_body_does(body: Vec<u8>, other: Vec<u8>) {
        let signed = SANDBOX.sign(body.clone()).unwrap();
        let headers = [("fluent-signature", &*signed.sha512)];
        prop_assert!(verify(both(), &body, &headers).is_ok());
        prop_assert_eq!(verify(both(), &other, &headers).is_ok(), body == other);
    }

    #[test]
    fn no_other_key_passes(body: Vec<u8>) {
        let signed = PRODUCTION.sign(body.clone()).unwrap();
        let headers = [("fluent-signature", &*signed.sha512), ("flex.signature", &*signed.md5)];
        prop_assert!(verify(both(), &body, &headers[..1]).is_err());
        prop_assert!(verify(both(), &body, &headers[1..]).is_err());
    }

    #[test]
    fn no_header_panics_or_passes(text in "\\PC*", bytes: Vec<u8>) {
        prop_assert!(verify(both(), BODY, &[("fluent-signature", &text)]).is_err());
        let mut headers = event_model::Headers::default();
        headers.push("fluent-signature", bytes);
        let mut inbound = crate::support::inbound(BODY, &[]);
        inbound.headers = headers;
        let ring = crate::support::ring(&[("sydney_sandbox", &SANDBOX)]);
        let verifier = fluent_verifier::WebhookVerifier::new(ring, both());
        prop_assert!(fluent_verifier::Verifier::check(&verifier, &inbound).is_err());
    }
}
