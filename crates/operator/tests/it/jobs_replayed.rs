//! Jobs that replay what was received.

use std::time::Duration;

use proto::v1;
use proto::v1::job_spec::Act;
use settings::Role;
use tonic::Code;

use crate::fixture::{Fixture, KINDS, counts, create, request, until_state};

/// A replay to the route `r` of whatever was received.
pub(crate) fn replay(again: bool) -> v1::CreateJobRequest {
    let time = |seconds| proto::Timestamp { seconds, nanos: 0 };
    let job = v1::ReplayJob {
        route: "r".to_owned(),
        from: Some(time(0)),
        // The events of tests are received in the year 2096.
        until: Some(time(5_000_000_000)),
        event: "E".to_owned(),
        again,
        ..v1::ReplayJob::default()
    };
    v1::CreateJobRequest {
        rate: 20,
        ..request(v1::JobSpec {
            act: Some(Act::Replay(job)),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_is_replayed_once_also_if_its_executor_is_gone() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.publish("E", 60).await;
        fixture.publish("F", 1).await;
        fixture.deliver(61).await;
        let refused = fixture.jobs().create_job(replay(true)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let mut jobs = fixture.jobs_as("boss", Role::Admin);
        let job = create(&mut jobs, replay(true)).await;
        assert_eq!(counts(&job), [0, 0, 0, 60], "{kind:?}");
        let (operator, _shutdown) = fixture.operator();
        let killed = tokio::time::timeout(Duration::from_millis(2500), operator.run_jobs());
        assert!(killed.await.is_err(), "it is dropped in the middle");
        let _executor = fixture.run_jobs();
        let done = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(counts(&done), [60, 0, 0, 60], "{kind:?}");
        // A later event comes behind all of them.
        fixture.publish("F", 1).await;
        let seen = fixture.deliver(61).await;
        assert!(
            seen.len() == 61 && seen.values().all(|times| *times == 1),
            "{kind:?}: {seen:?}"
        );
        let job = create(&mut jobs, replay(false)).await;
        let done = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(
            counts(&done),
            [0, 0, 60, 60],
            "{kind:?}: it is done with them"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_over_under_a_number_is_not_handed_over_again() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.publish("E", 3).await;
        fixture.deliver(3).await;
        let events = fixture.received().await;
        let stores = std::sync::Arc::clone(&fixture.stores);
        let number = stores.number_replay("r").await.unwrap();
        assert!(
            stores.number_replay("nowhere").await.is_err()
                || matches!(kind, crate::fixture::Kind::Cluster)
        );
        for _ in 0..2 {
            let replayed = stores.replay_as("r", &events, true, number).await.unwrap();
            assert_eq!(replayed, [queue::ReplayOutcome::HandedOver; 3], "{kind:?}");
        }
        assert_eq!(fixture.deliver(3).await.len(), 3, "{kind:?}");
        // Also when they were tried under it.
        let replayed = stores.replay_as("r", &events, true, number).await.unwrap();
        assert_eq!(replayed, [queue::ReplayOutcome::HandedOver; 3], "{kind:?}");
        let next = stores.number_replay("r").await.unwrap();
        assert!(next > number, "{kind:?}: {next} after {number}");
        stores
            .replay_as("r", &events[..1], true, next)
            .await
            .unwrap();
        fixture.publish("E", 1).await;
        assert_eq!(
            fixture.deliver(2).await.len(),
            2,
            "{kind:?}: once more, and one that is new"
        );
    }
}
