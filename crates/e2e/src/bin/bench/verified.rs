//! The cost of verifying stored events again.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use event_model::{
    Account, Accounts, Algorithm, Event, Headers, Inbound, KeyName, StoredVerdict, StoredVerifier,
    Timestamp,
};
use simulator::Events;
use verifier::{KeyRing, PublicKey, Reverifier, SealKeys, Signatures, Verifier, WebhookVerifier};

use crate::cpu;
use crate::inputs::SignedInput;
use crate::report::Row;

/// Measures the verification that a dispatcher does with every event before it is delivered.
pub(crate) fn again(signed: &SignedInput, count: usize) -> anyhow::Result<Row> {
    let name: KeyName = "sydney_sandbox".parse()?;
    let ring = KeyRing::new([(
        name.clone(),
        PublicKey::parse(&signed.key.public_base64()?)?,
    )])?;
    let accounts = Accounts::new([Account {
        name: "ACME".to_owned(),
        key: name,
        retailers: None,
    }]);
    let ring = Arc::new(ring);
    let signatures = Signatures::default();
    let gateway = WebhookVerifier::new(Arc::clone(&ring), signatures.clone());
    let mut bodies = Events::new("ACME", 34, 5);
    let events = (0..256).map(|_| {
        let one = signed.key.sign(bodies.any().body)?;
        let header = signatures.sha512.first().cloned().unwrap_or_default();
        let headers: Headers = [(header, one.sha512.as_bytes())].into_iter().collect();
        let received_at = Timestamp::from_second(4_000_000_000)?;
        let verified = gateway.verify(Inbound {
            body: one.body.into(),
            headers,
            received_at,
        })?;
        Ok(Event::admit(verified, &accounts, None).map_err(|(refusal, _)| refusal)?)
    });
    let events = events.collect::<anyhow::Result<Vec<_>>>()?;
    let again = Reverifier::new(ring, [Algorithm::Sha512], SealKeys::default());
    let began = Instant::now();
    let before = cpu::own();
    for event in events.iter().cycle().take(count) {
        ensure!(
            again.verify(event) == StoredVerdict::Verified,
            "a genuine event was taken for forged"
        );
    }
    Ok(Row::new(
        count,
        began.elapsed(),
        cpu::own().saturating_sub(before),
    ))
}
