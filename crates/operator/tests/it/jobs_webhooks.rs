//! Jobs about webhooks that were refused, or are in quarantine.

use event_model::{Algorithm, Clock, Headers, Proof, SystemClock};
use proto::v1;
use proto::v1::job_spec::Act;
use queue::{Quarantined, RejectedWebhook};
use simulator::SignedBody;

use crate::fixture::{Fixture, KEYS, KINDS, counts, create, request, until_state};

/// A signed event about this order; one that others sign is not genuine.
fn signed(reference: &str, is_genuine: bool) -> SignedBody {
    let body = format!(
        r#"{{"id":"E-{reference}","name":"E","accountId":"ACME","retailerId":"1","entityType":"ORDER","entityRef":"{reference}"}}"#
    );
    let mut signed = KEYS.sign(body).unwrap();
    if !is_genuine {
        signed.body.push(b' ');
    }
    signed
}

fn spec(act: Act) -> v1::CreateJobRequest {
    request(v1::JobSpec { act: Some(act) })
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_webhooks_that_are_genuine_now_are_admitted_and_others_stay() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        for (reference, is_genuine, reason) in [
            ("a", true, "no-key-matches"),
            ("b", false, "no-key-matches"),
            ("c", true, "no-key-matches"),
            ("d", true, "wrong-key"),
        ] {
            let SignedBody { body, sha512, .. } = signed(reference, is_genuine);
            let headers: Headers = [("fluent-signature".to_owned(), sha512)]
                .into_iter()
                .collect();
            let webhook = RejectedWebhook::stored(
                0,
                body.into(),
                headers,
                SystemClock.now(),
                reason.to_owned(),
                "ACME".to_owned(),
            );
            fixture.stores.refused().capture(webhook).await.unwrap();
        }
        let mut jobs = fixture.jobs();
        let asked = spec(Act::AdmitRefused(v1::AdmitRefusedJob {
            reason: "no-key-matches".to_owned(),
            ..v1::AdmitRefusedJob::default()
        }));
        let job = create(&mut jobs, asked).await;
        assert_eq!(job.samples.len(), 3, "{kind:?}");
        let _executor = fixture.run_jobs();
        let done = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(counts(&done), [2, 0, 1, 3], "{kind:?}");
        let left = fixture.stores.refused().list(0, 10).await.unwrap();
        assert_eq!(left.len(), 2, "{kind:?}");
        assert_eq!(fixture.deliver(2).await.len(), 2, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_webhooks_are_verified_again_and_the_reasons_of_others_are_kept() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        for (reference, is_genuine) in [("a", true), ("b", false)] {
            let SignedBody { body, sha512, .. } = signed(reference, is_genuine);
            let webhook = Quarantined {
                id: 0,
                body: body.into(),
                proof: Proof::Signed(Algorithm::Sha512),
                key: "sydney_sandbox".parse().unwrap(),
                signature: sha512,
                received_at: SystemClock.now(),
                reason: "not an event".to_owned(),
            };
            fixture.stores.quarantine().store(webhook).await.unwrap();
        }
        let mut jobs = fixture.jobs();
        let asked = spec(Act::RecheckQuarantined(v1::RecheckQuarantinedJob::default()));
        let job = create(&mut jobs, asked).await;
        let _executor = fixture.run_jobs();
        let done = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(counts(&done), [1, 1, 0, 2], "{kind:?}");
        assert!(
            done.progress.unwrap().first_error.contains("still refused"),
            "{kind:?}"
        );
        let left = fixture.stores.quarantine().list(0, 10).await.unwrap();
        assert_eq!(left.len(), 1, "{kind:?}");
        assert_eq!(fixture.deliver(1).await.len(), 1, "{kind:?}");
    }
}
