//! The reason why a webhook's signature fails.

use event_model::{AdmissionError, Algorithm, Event, Inbound, Verified};
use settings::Gateway;
use verifier::{Alteration, Diagnosis, SignatureError, Verifier, WebhookVerifier, diagnose};

/// The diagnosis of a webhook by the present settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookDiagnosis {
    /// True if a listed key signed it.
    pub genuine: bool,
    /// True if its account may send, too: it would be answered 200.
    pub admitted: bool,
    /// The diagnosis in words.
    pub says: String,
    /// The advice what to do, if there is any.
    pub advice: Option<String>,
}

/// Verifies a webhook, and explains a failure.
pub fn diagnose_webhook(gateway: &Gateway, inbound: Inbound) -> WebhookDiagnosis {
    match diagnose(&gateway.keys, &gateway.signatures, &inbound) {
        Diagnosis::Genuine { key, proof } => {
            let says = format!("signed with {proof} by the key {key}");
            match WebhookVerifier::new(gateway.keys.clone(), gateway.signatures.clone())
                .verify(inbound)
            {
                Ok(verified) => admission(gateway, verified, says),
                Err(rejection) => not_genuine(rejection.to_string(), None),
            }
        }
        Diagnosis::Refused(rejection) => not_genuine(
            rejection.to_string(),
            Some(advise(gateway, &inbound, rejection)),
        ),
        Diagnosis::BodyAltered { key, alteration } => not_genuine(
            format!("the key {key} made this signature, but over other bytes than these"),
            Some(altered(alteration)),
        ),
        Diagnosis::WrongHeader { key, really } => not_genuine(
            format!("this is a good {really} signature by the key {key}, in the wrong header"),
            Some(format!(
                "it belongs into {}",
                gateway.signatures.headers(really).join(" or ")
            )),
        ),
        Diagnosis::RetiredKey { key } => not_genuine(
            format!("the key {key} made this signature, and is listed as retired"),
            Some("Fluent still signs with it: take `retired` away from that key, and run `fluent-webhooks refused recheck` once the gateways have it".to_owned()),
        ),
        Diagnosis::UnknownKey { bits } => not_genuine(
            format!("none of the keys listed made this signature ({bits} bits)"),
            Some(format!(
                "likeliest: another environment's or region's key. Listed: {}. Each region and environment has a key of its own; Fluent may also have replaced it",
                known_keys(gateway)
            )),
        ),
        other => not_genuine(format!("{other:?}"), None),
    }
}

fn not_genuine(says: String, advice: Option<String>) -> WebhookDiagnosis {
    WebhookDiagnosis {
        genuine: false,
        admitted: false,
        says,
        advice,
    }
}

fn admission(gateway: &Gateway, verified: Verified<Inbound>, says: String) -> WebhookDiagnosis {
    let advice = match Event::admit(verified, &gateway.accounts, None) {
        Ok(event) => {
            let says = format!("{says}; event {} of {}", event.name(), event.source());
            return WebhookDiagnosis {
                genuine: true,
                admitted: true,
                says,
                advice: None,
            };
        }
        Err((AdmissionError::UnknownAccount, _)) => {
            "its accountId is not listed under fluent-connect.accounts: 403".to_owned()
        }
        Err((AdmissionError::WrongKey, _)) => {
            "its account is listed for another region or environment than this key's: 403"
                .to_owned()
        }
        Err((AdmissionError::UnknownRetailer, _)) => {
            "its retailerId is not among the account's retailers: 403".to_owned()
        }
        Err((AdmissionError::Malformed(malformed), _)) => {
            format!("not an event ({malformed}): it would go into quarantine")
        }
        Err((other, _)) => other.to_string(),
    };
    WebhookDiagnosis {
        genuine: true,
        admitted: false,
        says,
        advice: Some(advice),
    }
}

fn known_keys(gateway: &Gateway) -> String {
    let names: Vec<_> = gateway
        .keys
        .keys()
        .map(|(name, key)| format!("{name} ({} bits)", key.bits()))
        .collect();
    names.join(", ")
}

fn altered(alteration: Option<Alteration>) -> String {
    match alteration {
        Some(Alteration::TrailingWhitespace) => {
            "proved: without the line end or blanks at its end it verifies. An editor or `echo` added them; use `printf %s` or `--data-binary`".to_owned()
        }
        Some(Alteration::PrettyPrinted) => {
            "proved: without the whitespace between its tokens it verifies. Something pretty-printed the JSON; keep the raw bytes".to_owned()
        }
        Some(Alteration::ByteOrderMark) => "proved: without the byte order mark before it, it verifies".to_owned(),
        Some(Alteration::CarriageReturns) => "proved: with plain line feeds it verifies; something rewrote the line ends".to_owned(),
        Some(Alteration::MissingNewline) => "proved: with a line end after it, it verifies; something trimmed the body".to_owned(),
        _ => "likeliest: something parsed the JSON and wrote it again (key order, escapes, number format), or edited it. The signature is over the raw bytes".to_owned(),
    }
}

fn advise(gateway: &Gateway, inbound: &Inbound, rejection: SignatureError) -> String {
    match rejection {
        SignatureError::Missing => format!(
            "expected one of the headers {}. A proxy may have dropped or renamed it: nginx drops names with a dot unless `ignore_invalid_headers off`",
            [Algorithm::Sha512, Algorithm::Md5]
                .map(|algorithm| gateway.signatures.headers(algorithm).join(", "))
                .join(", ")
        ),
        SignatureError::Repeated(_) => {
            "expected exactly one; a proxy may have added a copy".to_owned()
        }
        SignatureError::NotEnabled(algorithm) => {
            format!("add {algorithm} to fluent-connect.webhook.signatures if that is meant")
        }
        SignatureError::Malformed(_) => malformed(inbound).to_owned(),
        _ => "see the threat model".to_owned(),
    }
}

fn malformed(inbound: &Inbound) -> &'static str {
    let value = inbound
        .headers
        .iter()
        .next()
        .map(|(_, value)| value.to_vec())
        .unwrap_or_default();
    let has = |bytes: &[u8]| value.iter().any(|byte| bytes.contains(byte));
    if has(b"-_") {
        "it is in the URL-safe alphabet: expected the standard one, with + and /"
    } else if has(b" \t\r\n") {
        "there is whitespace inside it: was it folded, or copied over several lines?"
    } else if has(b",") {
        "there is a comma in it: two headers were joined into one"
    } else if !value.len().is_multiple_of(4) {
        "its length is not a multiple of four: a part is missing, or the padding (=) was cut off"
    } else {
        "expected nothing but A-Z a-z 0-9 + / and = at the end"
    }
}
