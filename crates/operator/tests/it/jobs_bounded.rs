//! Jobs beside what can't be done, and in a store with little room.

use std::sync::Arc;

use proto::v1;
use settings::Role;
use tonic::Code;

use crate::fixture::{Fixture, Kind, counts, create, redrive, request, until_state};
use crate::jobs_replayed::replay;
use crate::odd_stores::OddStores;

fn odd(fixture: &Fixture) -> OddStores {
    OddStores {
        stores: Arc::clone(&fixture.stores),
        stubborn: None,
        room: usize::MAX,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_replayed_fails_by_itself() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.publish("E", 40).await;
    fixture.deliver(40).await;
    let id = fixture.received().await[7].1.id();
    fixture.stores = Arc::new(OddStores {
        stubborn: Some((id, false)),
        ..odd(&fixture)
    });
    let mut jobs = fixture.jobs_as("boss", Role::Admin);
    let whole_page = v1::CreateJobRequest {
        rate: 0,
        ..replay(true)
    };
    let job = create(&mut jobs, whole_page).await;
    let _executor = fixture.run_jobs();
    let done = until_state(&mut jobs, &job.id, "done").await;
    assert_eq!(counts(&done), [39, 1, 0, 40]);
    let seen = fixture.deliver(39).await;
    assert!(!seen.contains_key(&id.to_string()), "{seen:?}");
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_over_make_room_and_it_is_said_if_none_can() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.bury("E", 40).await;
    let all = Arc::clone(&fixture.stores);
    fixture.stores = Arc::new(OddStores {
        room: 40_000,
        ..odd(&fixture)
    });
    let mut jobs = fixture.jobs();
    let kept = async || all.facts().entries("job").await.unwrap().len();
    let mut made = 0;
    loop {
        let job = create(&mut jobs, request(redrive("E"))).await;
        let cancel = v1::CancelJobRequest { id: job.id };
        jobs.cancel_job(cancel).await.unwrap();
        made += 1;
        assert!(made < 1000, "it is never full");
        if kept().await < made {
            break;
        }
    }
    // None of these is over: the store fills for good.
    let refused = loop {
        match jobs.create_job(request(redrive("E"))).await {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("no room"), "{refused}");
}

/// Failed jobs stay marked for a day, so that `status` names them: they are over all the same.
#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_take_no_place_of_those_that_are_not_over() {
    let mut fixture = Fixture::open(Kind::File).await;
    fixture.bury("E", 1).await;
    let mut jobs = fixture.jobs();
    for _ in 0..100 {
        create(&mut jobs, request(redrive("E"))).await;
    }
    let refused = jobs.create_job(request(redrive("E"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    for fact in fixture.stores.facts().entries("job").await.unwrap() {
        let mut record: serde_json::Value = serde_json::from_slice(&fact.value).unwrap();
        record["state"] = "failed".into();
        let value = serde_json::to_vec(&record).unwrap();
        let set = fixture.stores.facts().set(&fact.name, value.into());
        set.await.unwrap();
    }
    create(&mut jobs, request(redrive("E"))).await;
}
