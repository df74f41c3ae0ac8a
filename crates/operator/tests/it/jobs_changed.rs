//! People pause, resume and cancel jobs, and lose their roles.

use proto::v1;
use settings::Role;
use tonic::Code;

use crate::fixture::{
    Fixture, Jobs, KINDS, Kind, PEOPLE, counts, create, get, redrive, request, until, until_state,
};

/// A job that takes its time.
fn slow(name: &str) -> v1::CreateJobRequest {
    v1::CreateJobRequest {
        rate: 5,
        ..request(redrive(name))
    }
}

async fn pause(jobs: &mut Jobs, id: &str) -> v1::Job {
    let request = v1::PauseJobRequest { id: id.to_owned() };
    let answer = jobs.pause_job(request).await.unwrap();
    answer.into_inner().job.unwrap()
}

async fn resume(jobs: &mut Jobs, id: &str) -> Result<v1::Job, tonic::Status> {
    let request = v1::ResumeJobRequest { id: id.to_owned() };
    let answer = jobs.resume_job(request).await?;
    Ok(answer.into_inner().job.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_paused_stops_and_goes_on_where_it_was() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.bury("E", 30).await;
        fixture.bury("F", 1).await;
        let mut jobs = fixture.jobs();
        let job = create(&mut jobs, slow("E")).await;
        let _executor = fixture.run_jobs();
        until(&mut jobs, &job.id, |job| counts(job)[0] >= 5).await;
        assert_eq!(pause(&mut jobs, &job.id).await.state, "paused");
        // What was under way is noted, and then nobody has it.
        let paused = until(&mut jobs, &job.id, |job| job.executor.is_empty()).await;
        assert_eq!(paused.state, "paused", "{kind:?}");
        assert!(paused.detail.contains("night"), "{}", paused.detail);
        let done = counts(&paused)[0];
        assert!(done < 30, "{kind:?}: it was too fast to be paused");
        // Another job is worked off after that, and this one is as it was.
        let other = create(&mut jobs, request(redrive("F"))).await;
        until_state(&mut jobs, &other.id, "done").await;
        assert_eq!(counts(&get(&mut jobs, &job.id).await)[0], done);
        assert_eq!(fixture.letters().await, 30 - done);
        resume(&mut jobs, &job.id).await.unwrap();
        let over = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(counts(&over), [30, 0, 0, 30], "{kind:?}");
        let seen = fixture.deliver(31).await;
        assert_eq!(seen.len(), 31, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_leaves_the_rest_and_does_not_come_back() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.bury("E", 30).await;
    fixture.bury("F", 1).await;
    let mut jobs = fixture.jobs();
    let job = create(&mut jobs, slow("E")).await;
    let _executor = fixture.run_jobs();
    until(&mut jobs, &job.id, |job| counts(job)[0] >= 5).await;
    let request_of = v1::CancelJobRequest { id: job.id.clone() };
    let answer = jobs.cancel_job(request_of.clone()).await.unwrap();
    assert_eq!(answer.into_inner().job.unwrap().state, "cancelled");
    let over = until(&mut jobs, &job.id, |job| job.executor.is_empty()).await;
    let done = counts(&over)[0];
    assert!(done < 30 && over.ended_at.is_some(), "{over:?}");
    let other = create(&mut jobs, request(redrive("F"))).await;
    until_state(&mut jobs, &other.id, "done").await;
    assert_eq!(fixture.letters().await, 30 - done);
    let refused = resume(&mut jobs, &job.id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    jobs.cancel_job(request_of).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_the_role_has_its_job_paused_until_it_is_given_back() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.bury("E", 3).await;
    let mut jobs = fixture.jobs();
    let job = create(&mut jobs, request(redrive("E"))).await;
    for people in [
        "\n      - { name: boss, file: boss.token, roles: [admin] }",
        "\n      - { name: night, file: night.token, roles: [read] }",
    ] {
        fixture.set_people(people);
        let executor = fixture.run_jobs();
        let paused = until_state(&mut jobs, &job.id, "paused").await;
        assert!(paused.detail.contains("night"), "{}", paused.detail);
        assert_eq!(fixture.letters().await, 3);
        let mut boss = fixture.jobs_as("boss", Role::Admin);
        let refused = resume(&mut boss, &job.id).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        executor.finish().await;
        fixture.set_people(PEOPLE);
        resume(&mut boss, &job.id).await.unwrap();
    }
    let _executor = fixture.run_jobs();
    until_state(&mut jobs, &job.id, "done").await;
    assert_eq!(fixture.letters().await, 0);
}
