//! What was refused is held, explained, and admitted once a key is there.

use e2e::deployment::{Deployment, Plan};
use serde_json::{Value, json};
use simulator::{Events, KeyPair, Retry, Sender, Shape, SignedBody};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::Sink;

/// A genuine webhook of the next key, about this entity.
fn signed_by(key: &KeyPair, account: &str, reference: &str) -> SignedBody {
    let event = Events::new(account, 34, fastrand::u64(..)).of("E", Shape::Full);
    let body = String::from_utf8(event.body)
        .unwrap()
        .replace(&event.entity_ref, reference);
    key.sign(body).unwrap()
}

async fn status_of(url: &str, webhook: &SignedBody) -> u16 {
    Sender::new(url.to_owned(), Retry::Connection)
        .unwrap()
        .send(webhook)
        .await
        .answer
        .unwrap()
        .status
}

fn held(listed: &Value) -> usize {
    listed.as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_not_there_yet_costs_no_event() {
    let next = KeyPair::generate(1024).unwrap();
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    for reference in ["A", "B"] {
        assert_eq!(
            status_of(&pipeline.url(), &signed_by(&next, "ACME", reference)).await,
            401
        );
    }
    // Nobody's, and one whose signature is none: the former is kept nowhere.
    assert_eq!(
        status_of(&pipeline.url(), &signed_by(&next, "STRANGER", "C")).await,
        401
    );
    let mut forged = signed("E", "FORGED");
    forged.sha512 = "bm90IGEgc2lnbmF0dXJl".to_owned();
    assert_eq!(status_of(&pipeline.url(), &forged).await, 401);
    // They are held in turn: the stranger's would be there before the last.
    until("three are held", || {
        held(&pipeline.json(&["refused", "list"])) == 3
    })
    .await;
    let listed = pipeline.json(&["refused", "list"]);
    assert_eq!(held(&listed), 3, "{listed}");
    assert!(!listed.to_string().contains("STRANGER"), "{listed}");
    assert_eq!(listed[0]["reason"], "signature-mismatch");
    let explained = pipeline.json(&["refused", "explain", "1"]);
    assert_eq!(explained["admissible"], false);
    assert!(
        explained["explanation"]
            .as_str()
            .unwrap()
            .contains("Fluent may also have replaced it")
    );
    assert_eq!(pipeline.json(&["refused", "recheck"])["succeeded"], 0);
    assert!(sink.is_empty(), "nothing of it is proven");
    assert!(pipeline.json(&["status"])["refused"] == 3);

    // Fluent's new key is added beside the old one.
    let settings = std::fs::read_to_string(pipeline.config()).unwrap();
    let old = SANDBOX.public_base64().unwrap();
    let new = next.public_base64().unwrap();
    let both = settings.replace(&format!("\"{old}\""), &format!("[\"{old}\", \"{new}\"]"));
    std::fs::write(pipeline.config(), both).unwrap();
    let unasked = pipeline.command(&["refused", "recheck"]);
    let said = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert!(
        said.contains("Admit 2 refused events that verify now, on the queue "),
        "{said}"
    );
    assert_eq!(
        held(&pipeline.json(&["refused", "list"])),
        3,
        "nobody said yes"
    );
    let admitted = pipeline.command(&["refused", "recheck", "--yes"]);
    assert!(admitted.status.success(), "{admitted:?}");
    until("both arrived", || sink.len() == 2).await;
    let listed = pipeline.json(&["refused", "list"]);
    assert_eq!(held(&listed), 1, "the forged one stays: {listed}");
    let audit = pipeline.json(&["audit"]);
    assert_eq!(
        (&audit[0]["action"], &audit[0]["affected"]),
        (&json!("RecheckRefused"), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_account_with_another_retailer_is_held_too() {
    let pipeline = Pipeline::start("    - { name: all, match: {}, dispatcher: log }\n");
    // Before the other: what is held is held in turn.
    let stranger = SANDBOX
        .sign(Events::new("STRANGER", 1, 1).of("E", Shape::Full).body)
        .unwrap();
    assert_eq!(status_of(&pipeline.url(), &stranger).await, 403);
    let event = Events::new("ACME", 99, 1).of("E", Shape::Full);
    let other = SANDBOX.sign(event.body).unwrap();
    assert_eq!(status_of(&pipeline.url(), &other).await, 403);
    until("it is held", || {
        held(&pipeline.json(&["refused", "list"])) == 1
    })
    .await;
    let listed = pipeline.json(&["refused", "list"]);
    assert_eq!(
        (held(&listed), &listed[0]["reason"]),
        (1, &json!("unknown-retailer")),
        "{listed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_holds_them_where_a_person_can_reach_them() {
    let next = KeyPair::generate(1024).unwrap();
    let sink = Sink::open().await;
    let routes = sink.route("all", "match: {}, start: beginning");
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    };
    let mut deployment = Deployment::prepare(plan);
    deployment.make_streams();
    // Dispatchers get a new key first.
    let settings = deployment.folder.path().join("dispatcher-0.yml");
    let old = SANDBOX.public_base64().unwrap();
    let text = std::fs::read_to_string(&settings)
        .unwrap()
        .replace(&old, &next.public_base64().unwrap());
    std::fs::write(&settings, text).unwrap();
    deployment.gateways[0].restart();
    deployment.dispatchers[0].restart();
    let url = deployment.urls().remove(0);
    assert_eq!(status_of(&url, &signed_by(&next, "ACME", "A")).await, 401);
    until("it is held", || {
        held(&deployment.json(&["refused", "list"])) == 1
    })
    .await;
    deployment.write_operator("", &next.public_base64().unwrap());
    let admitted = deployment.command("operator", &["refused", "recheck", "--yes"]);
    assert!(admitted.status.success(), "{admitted:?}");
    until("it arrived", || sink.len() == 1).await;
    assert_eq!(held(&deployment.json(&["refused", "list"])), 0);
}
