//! Looking and repeating: pages, filters, replay, what is written down.

use std::net::SocketAddr;

use event_model::Timestamp;
use proto::v1;
use proto::v1::operator_client::OperatorClient;
use serde_json::json;
use tonic::transport::Endpoint;

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

type Api = OperatorClient<tonic::transport::Channel>;

async fn api(grpc: SocketAddr) -> Api {
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

async fn with_letters(count: usize) -> (Pipeline, Api, Sink) {
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
async fn what_can_not_be_written_down_is_not_done() {
    let (pipeline, mut api, _sink) = with_letters(1).await;
    // A folder where the log should be.
    let audit = pipeline.folder.path().join("data/audit.jsonl");
    std::fs::create_dir_all(&audit).unwrap();
    let paused = api
        .pause_route(v1::PauseRouteRequest {
            route: "all".to_owned(),
            ..Default::default()
        })
        .await;
    let said = paused.unwrap_err().message().to_owned();
    assert!(
        said.contains("nothing was done") && said.contains("operator.audit"),
        "{said}"
    );
    assert_eq!(pipeline.json(&["routes", "list"])[0]["paused"], false);
    let letter = api
        .get_dead_letter(v1::GetDeadLetterRequest {
            id: 1,
            include_body: true,
        })
        .await;
    assert!(
        letter.unwrap_err().message().contains("operator.audit"),
        "a body is not shown unseen"
    );
    api.get_dead_letter(v1::GetDeadLetterRequest {
        id: 1,
        include_body: false,
    })
    .await
    .unwrap();
    let body = api
        .get_quarantined(v1::GetQuarantinedRequest {
            id: 1,
            include_body: true,
        })
        .await;
    assert!(body.unwrap_err().message().contains("operator.audit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_says_what_was_touched_however_much_was_asked_for() {
    let (pipeline, mut api, _sink) = with_letters(3).await;
    let invented = 1000..1400;
    let ids = std::iter::once(2).chain(invented).collect();
    let selection = Some(v1::DeadLetterSelection { ids, filter: None });
    let counts = last!(api.discard_dead_letters(v1::DiscardDeadLettersRequest { selection }));
    assert_eq!((counts.succeeded, counts.failed), (1, 400));
    let ended = &pipeline.json(&["audit"])[0];
    assert_eq!(
        (&ended["affectedIds"], &ended["failedIds"]),
        (&json!("2"), &json!("1000-1399"))
    );
    assert_eq!(ended["request"]["selection"]["ids"], "2, 1000-1399");

    let filter = Some(v1::DeadLetterFilter {
        reference: "no".repeat(5000),
        ..Default::default()
    });
    let selection = Some(v1::DeadLetterSelection {
        ids: Vec::new(),
        filter,
    });
    last!(api.discard_dead_letters(v1::DiscardDeadLettersRequest { selection }));
    let everything = Some(v1::DeadLetterSelection {
        ids: Vec::new(),
        filter: Some(Default::default()),
    });
    last!(api.discard_dead_letters(v1::DiscardDeadLettersRequest {
        selection: everything
    }));
    let audit = pipeline.json(&["audit"]);
    assert_eq!(
        (&audit[0]["affectedIds"], &audit[2]["affected"]),
        (&json!("1, 3"), &json!(0))
    );
    let asked = audit[2]["request"]["selection"]["ref"].as_str().unwrap();
    assert!(
        asked.starts_with("nono") && asked.ends_with("(10000 bytes)"),
        "{asked}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_read_a_body_is_written_down() {
    let (pipeline, mut api, _sink) = with_letters(1).await;
    api.get_dead_letter(v1::GetDeadLetterRequest {
        id: 1,
        include_body: false,
    })
    .await
    .unwrap();
    assert_eq!(
        pipeline.json(&["audit"]),
        json!([]),
        "without its body it is a look"
    );
    let shown = api
        .get_dead_letter(v1::GetDeadLetterRequest {
            id: 1,
            include_body: true,
        })
        .await
        .unwrap();
    assert!(
        !shown
            .into_inner()
            .dead_letter
            .unwrap()
            .event
            .unwrap()
            .body
            .is_empty()
    );
    assert!(
        api.get_quarantined(v1::GetQuarantinedRequest {
            id: 7,
            include_body: true
        })
        .await
        .is_err()
    );
    let audit = pipeline.json(&["audit"]);
    let read: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (&it["action"], &it["failed"]))
        .collect();
    let letter = json!("GetDeadLetter");
    let body = json!("GetQuarantined");
    assert_eq!(
        read,
        [
            (&body, &json!(1)),
            (&body, &json!(0)),
            (&letter, &json!(0)),
            (&letter, &json!(0))
        ]
    );
    assert_eq!(audit[2]["request"], json!({ "id": 1, "body": true }));
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
async fn who_watches_sees_attempts_as_they_end() {
    let sink = Sink::answering(|_, before| status(if before == 0 { 503 } else { 200 })).await;
    let (mut pipeline, grpc) =
        Pipeline::prepare_with_grpc(&sink.route("all", "match: {}, retry: { initial: 300ms }"));
    pipeline.run();
    let mut api = api(grpc).await;
    let filter = Some(v1::AttemptFilter {
        event: "SEEN".to_owned(),
        ..Default::default()
    });
    // What ended before is for a list, and a time from which on is no question here.
    pipeline.accept(&signed("SEEN", "BEFORE")).await;
    let is_done = || {
        let attempts = pipeline.json(&["deliveries"]);
        attempts
            .as_array()
            .unwrap()
            .iter()
            .any(|attempt| attempt["outcome"] == "done")
    };
    until("it is done", is_done).await;
    let since = Some(v1::AttemptFilter {
        since: Some(grpc::timestamp(Timestamp::UNIX_EPOCH)),
        ..Default::default()
    });
    let refused = api
        .watch_deliveries(v1::WatchDeliveriesRequest { filter: since })
        .await
        .unwrap_err();
    assert!(refused.message().contains("filter.since"), "{refused}");
    let mut watching = api
        .watch_deliveries(v1::WatchDeliveriesRequest { filter })
        .await
        .unwrap()
        .into_inner();
    pipeline.accept(&signed("UNSEEN", "U")).await;
    pipeline.accept(&signed("SEEN", "S")).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let told = tokio::time::timeout(crate::pipeline::PATIENCE, watching.message()).await;
        let told = told.expect("a word in time").unwrap().unwrap();
        seen.extend(
            told.attempts
                .into_iter()
                .map(|it| (it.event, it.entity, it.attempt, it.outcome)),
        );
    }
    let attempt = |number, outcome: &str| {
        (
            "SEEN".to_owned(),
            "ORDER/S".to_owned(),
            number,
            outcome.to_owned(),
        )
    };
    assert_eq!(seen, [attempt(1, "transient"), attempt(2, "done")]);
    let quiet =
        tokio::time::timeout(std::time::Duration::from_millis(1500), watching.message()).await;
    assert!(quiet.is_err(), "each is told once: {quiet:?}");
}

/// Watches, and takes nothing that it is told: there is no room for a byte.
async fn deaf(
    grpc: SocketAddr,
) -> Result<tonic::Streaming<v1::WatchDeliveriesResponse>, tonic::Status> {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}"))
        .unwrap()
        .initial_stream_window_size(0);
    let mut api = OperatorClient::new(endpoint.connect().await.unwrap());
    Ok(api
        .watch_deliveries(v1::WatchDeliveriesRequest::default())
        .await?
        .into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_and_does_not_read_gives_its_place_to_others() {
    const PLACES: usize = 64;
    let sink = Sink::open().await;
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&sink.route("all", "match: {}"));
    pipeline.run();
    let mut deaf_ones = Vec::new();
    for _ in 0..PLACES {
        deaf_ones.push(deaf(grpc).await.unwrap());
    }
    let refused = deaf(grpc).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    let mut api = api(grpc).await;
    let mut numbers = 0..;
    let began = std::time::Instant::now();
    let mut watching = loop {
        match api
            .watch_deliveries(v1::WatchDeliveriesRequest::default())
            .await
        {
            Ok(watching) => break watching.into_inner(),
            Err(status) => assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}"),
        }
        assert!(
            began.elapsed() < 2 * crate::pipeline::PATIENCE,
            "nobody gave its place"
        );
        // Something to be told, again and again: one message is on its way to nobody at once.
        pipeline
            .accept(&signed("E", &format!("R{}", numbers.next().unwrap())))
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    pipeline.accept(&signed("E", "SEEN")).await;
    let mut is_seen = false;
    while !is_seen {
        let told = tokio::time::timeout(crate::pipeline::PATIENCE, watching.message()).await;
        let told = told.expect("a word in time").unwrap().unwrap();
        is_seen = told
            .attempts
            .iter()
            .any(|attempt| attempt.entity == "ORDER/SEEN");
    }
    drop(deaf_ones);
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
