//! What is written down of what people change and read.

use proto::v1;
use serde_json::json;

use super::operating::{last, with_letters};

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
