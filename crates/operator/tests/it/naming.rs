//! What was refused or is in quarantine, and names an order.

use event_model::{Algorithm, Headers, Proof, Timestamp};
use grpc::{Caller, CallerService};
use proto::v1;
use proto::v1::operator_client::OperatorClient;
use queue::{Quarantined, RejectedWebhook};
use settings::Role;

use crate::fixture::{Fixture, KINDS};

/// More than are looked at for one page.
const MANY: usize = 1100;

fn refused(body: String) -> RejectedWebhook {
    RejectedWebhook::stored(
        0,
        body.into(),
        Headers::default(),
        Timestamp::UNIX_EPOCH,
        "no-key-matches".to_owned(),
        "ACME".to_owned(),
    )
}

fn quarantined(body: String) -> Quarantined {
    Quarantined {
        id: 0,
        body: body.into(),
        proof: Proof::Signed(Algorithm::Sha512),
        key: "sydney_sandbox".parse().unwrap(),
        signature: "c2ln".to_owned(),
        received_at: Timestamp::UNIX_EPOCH,
        reason: "not an event".to_owned(),
    }
}

/// Anybody can send what is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_that_name_an_order_are_found_behind_many_others() {
    for kind in KINDS {
        let fixture = Fixture::open(kind).await;
        for number in 0..=MANY {
            let reference = match number {
                0 => "OLD".to_owned(),
                MANY => "NEW".to_owned(),
                number => format!("OTHER_{number}"),
            };
            let body = format!(r#"{{"entityRef":"{reference}"}}"#);
            let store = fixture.stores.quarantine();
            store.store(quarantined(body.clone())).await.unwrap();
            fixture
                .stores
                .refused()
                .capture(refused(body))
                .await
                .unwrap();
        }
        let caller = Caller::listed("night", vec![Role::Operate]);
        let service = fixture.operator().0.service();
        let mut api = OperatorClient::new(CallerService::new(service, caller));
        for (reference, pages) in [("NEW", [1, 0]), ("OLD", [0, 1])] {
            let mut refused_token = String::new();
            let mut quarantined_token = String::new();
            for (at, expected) in pages.into_iter().enumerate() {
                let request = v1::ListRefusedRequest {
                    page_token: refused_token,
                    reference: reference.to_owned(),
                    ..v1::ListRefusedRequest::default()
                };
                let refused = api.list_refused(request).await.unwrap().into_inner();
                let request = v1::ListQuarantinedRequest {
                    page_token: quarantined_token,
                    reference: reference.to_owned(),
                    ..v1::ListQuarantinedRequest::default()
                };
                let kept = api.list_quarantined(request).await.unwrap().into_inner();
                let found = [refused.webhooks.len(), kept.webhooks.len()];
                assert_eq!(found, [expected; 2], "{kind:?} {reference} page {at}");
                refused_token = refused.next_page_token;
                quarantined_token = kept.next_page_token;
                for token in [&refused_token, &quarantined_token] {
                    assert_eq!(token.is_empty(), at == 1, "{kind:?} {reference}: {token}");
                }
            }
        }
    }
}
