//! What never came, on a cluster: gateways say how far their spools are drained.

use std::fs;
use std::time::Duration;

use e2e::SANDBOX;
use e2e::deployment::{Deployment, Plan, until};
use simulator::api::{Fluent, LOGIN, Sending, World};
use simulator::{Retry, Sender, Signed};

use crate::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(90);

/// Gives the operator's settings a login at Fluent, and something to compare.
fn ask(deployment: &Deployment, fluent: &Fluent) {
    let more = "  reconcile: { events: [OrderBooked], delay: 45s }\n";
    let path = deployment.write_operator(more, &SANDBOX.public_base64().unwrap());
    fs::write(deployment.folder.path().join("secret"), LOGIN).unwrap();
    let api = format!(
        "environment: sandbox, api: {{ url: \"{}\", username: {LOGIN}, password: {{ file: secret }}, client-id: {LOGIN}, client-secret: {{ file: secret }} }} }}",
        fluent.url()
    );
    let settings = fs::read_to_string(&path).unwrap().replace("environment: sandbox }", &api);
    fs::write(path, settings).unwrap();
}

fn webhook(fluent: &Fluent, sending: Sending) -> Signed {
    let (order, ago) = (fluent.world().place_order(), Duration::from_mins(5));
    SANDBOX.sign(fluent.world().webhook_of("OrderBooked", &order, ago, sending)).unwrap()
}

fn reconcile(deployment: &Deployment) -> (bool, String) {
    let output = deployment.command("operator", &["reconcile", "--from", "30m", "--unknown", "--yes"]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_that_may_be_in_a_spool() {
    let (sink, fluent) =
        (Sink::open().await, Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34)).await.unwrap());
    let route = sink.route("r", "match: { event: OrderBooked }, origins: [webhook, reconciled]");
    let plan = Plan { servers: 1, gateways: 1, dispatchers: 1, ..Plan::new(route) };
    let mut deployment = Deployment::start(plan);
    ask(&deployment, &fluent);
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    let lost: Vec<_> = (0..5).map(|_| webhook(&fluent, Sending::Failed)).collect();
    for _ in 0..5 {
        let sent = sender.send(&webhook(&fluent, Sending::Succeeded)).await;
        assert_eq!(sent.answer.unwrap().status, 200);
    }

    // Dead, it may have anything in its spool.
    deployment.gateways[0].kill();
    until("it is waited for", PATIENCE, || reconcile(&deployment).1.contains("is drained up to")).await;
    let spools = deployment.json(&["spool", "list"]);
    assert_eq!((spools.as_array().unwrap().len(), &spools[0]["closed"]), (1, &false.into()), "{spools}");
    deployment.gateways[0].start();
    deployment.gateways[0].wait_until_ready();
    until("it is drained", PATIENCE, || reconcile(&deployment).0).await;
    until("everything is delivered", PATIENCE, || sink.counts().len() == 10).await;

    // One of them comes after all.
    let late = sender.send(&lost[0]).await.answer.unwrap();
    assert_eq!(late.body["duplicate"], false);
    let story = || deployment.json(&["events", "show", late.body["eventId"].as_str().unwrap()]);
    until("it is settled", PATIENCE, || story()[0]["states"][0]["state"] == "done").await;
    assert!(story().to_string().contains("delivered before"), "{}", story());
    assert!(reconcile(&deployment).1.contains("nothing is missing"));
    assert_eq!(sink.counts().len(), 10, "{:?}", sink.counts());

    // Ended well, it leaves nothing to wait for; lost, it is given up by a person.
    deployment.gateways[0].stop();
    let spools = deployment.json(&["spool", "list"]);
    assert_eq!(spools[0]["closed"], true, "{spools}");
    let id = spools[0]["id"].as_str().unwrap();
    let given_up = deployment.command("operator", &["spool", "forget", id, "--yes"]);
    assert!(given_up.status.success(), "{given_up:?}");
    assert_eq!(deployment.json(&["spool", "list"]), serde_json::json!([]));
}
