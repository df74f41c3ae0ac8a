//! Jobs are made once, and do what was asked for, and nothing else.

use proto::v1;
use settings::Role;
use tonic::Code;

use crate::fixture::{
    Fixture, KINDS, Kind, counts, create, discard, get, redrive, request, until_state,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_leaves_is_redriven_and_nothing_that_came_later() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.bury("Other", 1).await;
        fixture.bury("E", 25).await;
        let mut jobs = fixture.jobs();
        let preview = v1::PreviewJobRequest {
            spec: Some(redrive("E")),
        };
        let preview = jobs.preview_job(preview).await.unwrap().into_inner();
        assert_eq!((preview.count, preview.samples.len()), (25, 10), "{kind:?}");
        let sample = &preview.samples[0];
        assert_eq!((sample.event.as_str(), sample.route.as_str()), ("E", "r"));
        let asked = v1::CreateJobRequest {
            cut_off: Some(preview.cut_off),
            expected_count: Some(25),
            ..request(redrive("E"))
        };
        // What comes between the preview and the job is not touched, either.
        fixture.bury("E", 2).await;
        let job = create(&mut jobs, asked).await;
        assert_eq!(
            (job.state.as_str(), counts(&job)),
            ("waiting", [0, 0, 0, 25])
        );
        let _executor = fixture.run_jobs();
        let done = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(counts(&done), [25, 0, 0, 25], "{kind:?}");
        assert_eq!(done.created_by, "night");
        assert_eq!(fixture.letters().await, 3, "{kind:?}");
        let seen = fixture.deliver(25).await;
        assert!(seen.len() == 25 && seen.values().all(|times| *times == 1));
        let last = preview.cut_off;
        let first = sample.id;
        assert_eq!(done.succeeded_ids, format!("{first}-{last}"), "{kind:?}");
        let audit = fixture.audit();
        for line in ["\"CreateJob\"", "\"RunJob\"", "the endpoint is back"] {
            assert!(audit.contains(line), "{line}: {audit}");
        }
        assert!(audit.contains("\"touched\":25"), "{audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_twice_is_one_job() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.bury("E", 3).await;
        let mut jobs = fixture.jobs();
        let asked = v1::CreateJobRequest {
            request_id: "form-1".to_owned(),
            ..request(redrive("E"))
        };
        let both = [jobs.clone(), jobs.clone()]
            .map(async |mut jobs| jobs.create_job(asked.clone()).await.unwrap().into_inner());
        let both = futures::future::join_all(both).await;
        let id = both[0].job.clone().unwrap().id;
        assert_eq!(id, both[1].job.clone().unwrap().id, "{kind:?}");
        assert!(both.iter().any(|answer| answer.existed), "{kind:?}");
        let _executor = fixture.run_jobs();
        until_state(&mut jobs, &id, "done").await;
        let again = jobs.create_job(asked.clone()).await.unwrap().into_inner();
        assert_eq!(again.job.unwrap().state, "done", "also when it is over");
        let another = v1::CreateJobRequest {
            reason: "something else".to_owned(),
            ..asked
        };
        let refused = jobs.create_job(another).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
        let listed = jobs
            .list_jobs(v1::ListJobsRequest::default())
            .await
            .unwrap();
        assert_eq!(listed.into_inner().jobs.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_discard_takes_an_admin_who_says_how_many() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.bury("E", 4).await;
    let asked = |expected| v1::CreateJobRequest {
        expected_count: expected,
        ..request(discard("E"))
    };
    let refused = fixture.jobs().create_job(asked(Some(4))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let mut jobs = fixture.jobs_as("boss", Role::Admin);
    for (expected, code) in [
        (None, Code::InvalidArgument),
        (Some(3), Code::FailedPrecondition),
    ] {
        let refused = jobs.create_job(asked(expected)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let job = create(&mut jobs, asked(Some(4))).await;
    let _executor = fixture.run_jobs();
    let done = until_state(&mut jobs, &job.id, "done").await;
    assert_eq!(counts(&done), [4, 0, 0, 4]);
    assert_eq!(fixture.letters().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_is_kept_one_by_one() {
    for kind in KINDS {
        let mut fixture = Fixture::open(kind).await;
        fixture.bury("E", 7).await;
        let mut jobs = fixture.jobs();
        let mut asked = request(redrive("E"));
        // The route is in the settings, and no dispatcher has ever served it.
        let to_nowhere = v1::RedriveJob {
            to: "nowhere".to_owned(),
            ..v1::RedriveJob::default()
        };
        asked.spec = Some(v1::JobSpec {
            act: Some(v1::job_spec::Act::Redrive(to_nowhere)),
        });
        let job = create(&mut jobs, asked).await;
        let _executor = fixture.run_jobs();
        let done = until_state(&mut jobs, &job.id, "done").await;
        assert_eq!(counts(&done), [0, 7, 0, 7], "{kind:?}");
        assert_eq!(fixture.letters().await, 7);
        let mut failures = Vec::new();
        let mut page = v1::ListJobFailuresRequest {
            id: job.id[..6].to_owned(),
            page_size: 3,
            ..v1::ListJobFailuresRequest::default()
        };
        loop {
            let answer = jobs.list_job_failures(page.clone()).await.unwrap();
            let answer = answer.into_inner();
            failures.extend(answer.failures);
            page.page_token = answer.next_page_token;
            if page.page_token.is_empty() {
                break;
            }
        }
        let ids: std::collections::BTreeSet<_> = failures.iter().map(|it| it.id).collect();
        assert_eq!((failures.len(), ids.len()), (7, 7), "{kind:?}");
        assert!(failures.iter().all(|it| it.error.contains("nowhere")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nothing_is_left_for_or_that_says_no_reason_is_refused() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.bury("E", 1).await;
    let mut jobs = fixture.jobs();
    let none = jobs.create_job(request(redrive("F"))).await.unwrap_err();
    assert_eq!(none.code(), Code::FailedPrecondition, "{none}");
    let mut asked = request(redrive("E"));
    asked.reason = "  ".to_owned();
    let refused = jobs.create_job(asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let id = v1::GetJobRequest {
        id: "../x".to_owned(),
    };
    assert_eq!(jobs.get_job(id).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_newest_first_and_page_by_page() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.bury("E", 1).await;
    let mut jobs = fixture.jobs();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(create(&mut jobs, request(redrive("E"))).await.id);
    }
    made.reverse();
    let mut listed = Vec::new();
    let mut page = v1::ListJobsRequest {
        page_size: 2,
        state: "waiting".to_owned(),
        ..v1::ListJobsRequest::default()
    };
    loop {
        let answer = jobs.list_jobs(page.clone()).await.unwrap().into_inner();
        listed.extend(answer.jobs.into_iter().map(|job| job.id));
        page.page_token = answer.next_page_token;
        if page.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, made);
    assert_eq!(get(&mut jobs, &made[0]).await.state, "waiting");
}
