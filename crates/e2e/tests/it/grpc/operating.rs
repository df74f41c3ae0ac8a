//! Looking and repeating: pages, filters, replay.

use std::net::SocketAddr;

use proto::v1;
use proto::v1::operator_client::OperatorClient;
use serde_json::json;
use tonic::transport::Endpoint;

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

pub(super) type Api = OperatorClient<tonic::transport::Channel>;

pub(super) async fn api(grpc: SocketAddr) -> Api {
    OperatorClient::new(
        Endpoint::from_shared(format!("http://{grpc}"))
            .unwrap()
            .connect()
            .await
            .unwrap(),
    )
}

/// The last word of a long call.
macro_rules! last {
    ($call:expr) => {{
        let mut stream = $call.await.unwrap().into_inner();
        let mut last = None;
        while let Some(message) = stream.message().await.unwrap() {
            last = message.progress;
        }
        last.unwrap()
    }};
}

pub(super) use last;

pub(super) async fn with_letters(count: usize) -> (Pipeline, Api, Sink) {
    let sink = Sink::answering(|_, before| status(if before == 0 { 422 } else { 200 })).await;
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&sink.route("all", "match: {}"));
    pipeline.run();
    for number in 0..count {
        let name = if number % 2 == 0 { "EVEN" } else { "ODD" };
        pipeline.accept(&signed(name, &format!("L_{number}"))).await;
    }
    let api = api(grpc).await;
    until("all are dead", || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
            == count
    })
    .await;
    (pipeline, api, sink)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_come_page_by_page_and_by_what_people_know() {
    let (_pipeline, mut api, _sink) = with_letters(7).await;
    let mut ids = Vec::new();
    let mut page_token = String::new();
    let mut pages = 0;
    loop {
        let request = v1::ListDeadLettersRequest {
            page_size: 3,
            page_token,
            ..Default::default()
        };
        let page = api.list_dead_letters(request).await.unwrap().into_inner();
        assert!(
            page.dead_letters
                .iter()
                .all(|letter| letter.event.as_ref().unwrap().body.is_empty())
        );
        ids.extend(page.dead_letters.iter().map(|letter| letter.id));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((ids.len(), pages), (7, 3));
    assert!(ids.is_sorted());
    let mut counting = api.clone();
    let mut count = async |filter: v1::DeadLetterFilter| {
        let request = v1::CountDeadLettersRequest {
            filter: Some(filter),
            max_examined: 0,
        };
        counting
            .count_dead_letters(request)
            .await
            .map(|answer| answer.into_inner().count)
    };
    let event = |name: &str| v1::DeadLetterFilter {
        event: name.to_owned(),
        ..Default::default()
    };
    assert_eq!(count(event("EVEN")).await.unwrap(), 4);
    // Of some only, so that an answer comes soon; letters of routes are counted already.
    for (filter, counted) in [(event("EVEN"), (1, true)), (event(""), (7, false))] {
        let request = v1::CountDeadLettersRequest {
            filter: Some(filter),
            max_examined: 2,
        };
        let answer = api.clone().count_dead_letters(request).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!((answer.count, answer.at_least), counted);
        assert_eq!(answer.up_to, 7);
    }
    assert_eq!(
        count(v1::DeadLetterFilter {
            reason: "exhausted".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap(),
        0
    );
    assert_eq!(
        count(v1::DeadLetterFilter {
            reference: "L_3".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap(),
        1
    );
    assert_eq!(
        count(v1::DeadLetterFilter {
            unrouted: true,
            ..Default::default()
        })
        .await
        .unwrap(),
        0
    );
    let wrong = count(v1::DeadLetterFilter {
        reason: "bad luck".to_owned(),
        ..Default::default()
    })
    .await;
    assert!(
        wrong.unwrap_err().message().contains("expected permanent"),
        "a typo is not everything"
    );
    let both = v1::DeadLetterFilter {
        unrouted: true,
        route: "all".to_owned(),
        ..Default::default()
    };
    assert!(count(both).await.is_err(), "of no route, and of one");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_selected_is_nothing_done_and_all_is_what_was_there() {
    let (pipeline, mut api, sink) = with_letters(6).await;
    let nothing = api
        .redrive_dead_letters(v1::RedriveDeadLettersRequest::default())
        .await;
    assert!(
        nothing
            .unwrap_err()
            .message()
            .contains("expected `ids` or `filter`")
    );
    let both = v1::DeadLetterSelection {
        ids: vec![1],
        filter: Some(v1::DeadLetterFilter::default()),
    };
    let both = v1::DiscardDeadLettersRequest {
        selection: Some(both),
    };
    assert!(api.discard_dead_letters(both).await.is_err());

    let filter = Some(v1::DeadLetterFilter {
        event: "EVEN".to_owned(),
        ..Default::default()
    });
    let selection = Some(v1::DeadLetterSelection {
        ids: Vec::new(),
        filter,
    });
    let counts = last!(api.redrive_dead_letters(v1::RedriveDeadLettersRequest {
        selection,
        to: String::new()
    }));
    assert_eq!((counts.succeeded, counts.failed, counts.total), (3, 0, 3));
    until("they arrived again", || sink.len() == 9).await;

    let some = Some(v1::DeadLetterSelection {
        ids: vec![2, 999],
        filter: None,
    });
    let counts = last!(api.discard_dead_letters(v1::DiscardDeadLettersRequest { selection: some }));
    assert_eq!((counts.succeeded, counts.failed), (1, 1));
    assert!(
        counts.first_error.contains("dead letter 999"),
        "{}",
        counts.first_error
    );

    let everything = Some(v1::DeadLetterSelection {
        ids: Vec::new(),
        filter: Some(Default::default()),
    });
    let request = v1::RedriveDeadLettersRequest {
        selection: everything,
        to: "nowhere".to_owned(),
    };
    let refused = api.redrive_dead_letters(request).await.unwrap_err();
    assert_eq!(
        refused.code(),
        tonic::Code::NotFound,
        "a route that is not there takes nothing: {refused}"
    );
    assert_eq!(
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let audit = pipeline.json(&["audit"]);
    let outcomes: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["outcome"])
        .collect();
    assert_eq!(outcomes, ["done", "begun", "done", "begun"]);
    assert_eq!(
        (
            &audit[0]["affected"],
            &audit[0]["failed"],
            &audit[0]["actor"]
        ),
        (&json!(1), &json!(1), &json!("this machine"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_replayed_to_one_route_and_not_what_it_is_done_with() {
    let sink = Sink::open().await;
    let routes = [
        sink.route("a", "match: { event: E }"),
        sink.route("b", "match: {}"),
    ]
    .concat();
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&routes);
    pipeline.run();
    for number in 0..5 {
        pipeline.accept(&signed("E", &format!("R_{number}"))).await;
    }
    pipeline.accept(&signed("F", "OTHER")).await;
    until("all arrived", || sink.len() == 11).await;
    until("all is written down", || {
        pipeline
            .json(&["deliveries", "--outcome", "done"])
            .as_array()
            .unwrap()
            .len()
            == 11
    })
    .await;
    let mut api = api(grpc).await;
    let from = Some(proto::Timestamp {
        seconds: 0,
        nanos: 0,
    });
    let request = v1::ReplayRequest {
        route: "a".to_owned(),
        from,
        ..Default::default()
    };
    let counted = last!(api.replay(v1::ReplayRequest {
        dry_run: true,
        ..request.clone()
    }));
    assert_eq!(
        (counted.succeeded, counted.skipped),
        (0, 6),
        "a dry run counts what would be delivered"
    );
    let counted = last!(api.replay(v1::ReplayRequest {
        dry_run: true,
        again: true,
        ..request.clone()
    }));
    assert_eq!(
        (counted.succeeded, counted.skipped),
        (5, 1),
        "one is not for this route"
    );
    let again = last!(api.replay(request.clone()));
    assert_eq!(
        (again.succeeded, again.skipped),
        (0, 6),
        "it is done with them"
    );
    let one = v1::ReplayRequest {
        again: true,
        reference: "R_2".to_owned(),
        ..request.clone()
    };
    assert_eq!(last!(api.replay(one)).succeeded, 1);
    let audit = pipeline.json(&["audit"]);
    assert_eq!(
        (&audit[0]["affectedIds"], &audit[0]["affected"]),
        (&json!("3"), &json!(1)),
        "its position"
    );
    until("one came again, to one route", || sink.len() == 12).await;
    let last = sink.requests().pop().unwrap();
    assert_eq!(
        (last.path.as_str(), last.header("ce-subject")),
        ("/a", "ORDER/R_2")
    );
    for (wrong, why) in [
        (
            v1::ReplayRequest {
                route: "z".to_owned(),
                ..request.clone()
            },
            "there is no route `z`",
        ),
        (
            v1::ReplayRequest {
                from: None,
                ..request.clone()
            },
            "expected a time",
        ),
        (
            v1::ReplayRequest {
                until: from,
                ..request.clone()
            },
            "after `from`",
        ),
    ] {
        assert!(
            api.replay(wrong).await.unwrap_err().message().contains(why),
            "{why}"
        );
    }
    let begun: Vec<_> = pipeline.json(&["audit"]).as_array().unwrap().clone();
    assert_eq!(begun.len(), 4, "a count is no change: {begun:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_wrote_is_plain_on_a_terminal() {
    let (pipeline, mut api, _sink) = with_letters(1).await;
    let reason = "\u{1b}]0;pwn\u{7}\u{1b}[2J\u{9b}1m\u{202e}\u{200b}";
    let request = v1::PauseRouteRequest {
        route: "all".to_owned(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let _ = api.pause_route(request).await;
    for (args, says) in [
        (&["audit"][..], "PauseRoute"),
        (&["audit", "--json"], "PauseRoute"),
        (&["routes", "list"], "all"),
        (&["routes", "list", "--json"], "all"),
        (&["status"], ""),
    ] {
        let output = pipeline.command(args);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(says), "{args:?}: {said}");
        let obeyed: Vec<_> = said
            .chars()
            .filter(|letter| *letter != '\n' && telemetry::is_unsafe(*letter))
            .collect();
        assert!(obeyed.is_empty(), "{args:?}: {obeyed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glance_tells_what_needs_somebody() {
    let sink = Sink::open().await;
    let (mut pipeline, _grpc) = Pipeline::prepare_with_grpc(&sink.route("all", "match: {}"));
    pipeline.run();
    let status = || e2e::status::read(&pipeline.command(&["status", "--json"])).0;
    until("it is well", || status()["well"] == true).await;
    assert!(
        pipeline
            .command(&["routes", "pause", "all"])
            .status
            .success()
    );
    let said = status();
    assert_eq!(
        said["well"], true,
        "what a person holds back needs nobody now: {said}"
    );
    assert!(
        said["later"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with("route all: paused"),
        "{said}"
    );
    assert!(
        pipeline
            .command(&["routes", "resume", "all"])
            .status
            .success()
    );
    // Without a server, from the file.
    pipeline.stop();
    let status = pipeline.json(&["status"]);
    assert!(
        status["problems"]
            .to_string()
            .contains("route all: nobody runs it"),
        "{status}"
    );
    let said = String::from_utf8(pipeline.command(&["status"]).stdout).unwrap();
    assert!(said.starts_with("needs somebody now\n"), "{said}");
    let who = pipeline.json(&["audit"])[0]["actor"].clone();
    assert_eq!(who, "this machine", "{who}");
}
