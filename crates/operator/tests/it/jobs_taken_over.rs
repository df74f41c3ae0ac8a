//! One executor of several works on a job, and another goes on if it is gone.

use std::time::Duration;

use proto::v1;

use crate::fixture::{Fixture, KINDS, counts, create, redrive, request, until, until_state};

#[tokio::test(flavor = "multi_thread")]
async fn of_several_executors_one_works_and_the_next_goes_on() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.bury("E", 60).await;
        let mut jobs = fixture.jobs();
        let asked = v1::CreateJobRequest {
            rate: 20,
            ..request(redrive("E"))
        };
        let job = create(&mut jobs, asked).await;
        let first = fixture.run_jobs();
        until(&mut jobs, &job.id, |job| counts(job)[0] >= 20).await;
        let second = fixture.run_jobs();
        // It stops in good order: the next need not wait for the end of its lease.
        first.begin();
        first.finish().await;
        let done = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(counts(&done), [60, 0, 0, 60], "{kind:?}");
        let seen = fixture.deliver(60).await;
        assert!(seen.len() == 60 && seen.values().all(|times| *times == 1));
        drop(second);
    }
}

/// What a process does that stands still for longer than its lease, and then goes on: it finds
/// that another has the job, and notes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_gone_without_a_word_is_replaced() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.bury("E", 60).await;
        let mut jobs = fixture.jobs();
        let asked = v1::CreateJobRequest {
            rate: 20,
            ..request(redrive("E"))
        };
        let job = create(&mut jobs, asked).await;
        let (operator, _shutdown) = fixture.operator();
        let running = operator.run_jobs();
        let killed = tokio::time::timeout(Duration::from_millis(2500), running);
        assert!(killed.await.is_err(), "it is dropped in the middle");
        let _executor = fixture.run_jobs();
        let done = until_state(&mut jobs, &job.id, "done").await;
        let [succeeded, failed, skipped, total] = counts(&done);
        assert_eq!(
            (succeeded, failed, skipped, total),
            (60, 0, 0, 60),
            "{kind:?}"
        );
        let seen = fixture.deliver(60).await;
        assert!(seen.len() == 60 && seen.values().all(|times| *times == 1));
    }
}
