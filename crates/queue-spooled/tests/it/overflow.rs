//! A quarantine that has no room for what the spool had accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_model::{Algorithm, Headers, Inbound, Proof};
use queue::{
    Intake, Lifecycle, QuarantineOverflow, Quarantined, RejectedWebhook, conformance::event,
};

use crate::world::World;

/// Bodies of 64 KiB: more than the quarantine's tenth of the layout's bytes, and more than are read
/// from the spool at a time.
const BODIES: usize = 600;
const LENGTH: usize = 64 << 10;

#[derive(Default)]
struct Overflow(AtomicUsize);

impl QuarantineOverflow for Overflow {
    fn rejected(&self, body: &Quarantined) -> RejectedWebhook {
        RejectedWebhook {
            id: 0,
            inbound: Inbound {
                body: body.body.clone(),
                headers: Headers::default(),
                received_at: body.received_at,
            },
            reason: "quarantine-full".to_owned(),
            account: String::new(),
        }
    }

    fn stored(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn body(number: usize) -> Quarantined {
    let head = format!("not JSON {number} ");
    Quarantined {
        id: 0,
        body: format!("{head}{}", "x".repeat(LENGTH - head.len())).into(),
        proof: Proof::Signed(Algorithm::Sha512),
        key: "sydney_sandbox".parse().unwrap(),
        signature: "c2ln".to_owned(),
        received_at: event("E", "1").received_at(),
        reason: "not-json".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_room_in_the_quarantine_are_held_with_what_was_refused() {
    let world = World::new().await;
    let spooled = world.spooled(Duration::from_millis(500)).await;
    let overflow = Arc::new(Overflow::default());
    spooled.on_quarantine_full(Arc::clone(&overflow) as _);
    for number in 0..BODIES {
        spooled.quarantine(body(number)).await.unwrap();
    }
    world.wait_until_empty().await;
    let queue = world.queue().await;
    let stores = queue.stores();
    let count = usize::try_from(stores.quarantine().count().await.unwrap()).unwrap();
    let (mut held, mut after) = (Vec::new(), 0);
    loop {
        // A page ends where its bytes do.
        let page = stores.refused().list(after, BODIES).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.id;
        held.extend(page);
    }
    assert!(count > 0, "the quarantine is filled first");
    assert_eq!(count + held.len(), BODIES);
    assert!(held.iter().all(|held| held.reason == "quarantine-full"));
    assert_eq!(overflow.0.load(Ordering::Relaxed), held.len());
    spooled.close().await;
}
