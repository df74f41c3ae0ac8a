//! What never came, on a cluster: gateways say how far their spools are drained.

use std::time::Duration;

use e2e::SANDBOX;
use e2e::deployment::{Deployment, Plan, until};
use simulator::api::{Fluent, Sending, World};
use simulator::{Retry, Sender, SignedBody};

use crate::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(90);

fn webhook(fluent: &Fluent, ago: Duration, sending: Sending) -> SignedBody {
    let order = fluent.world().place_order();
    SANDBOX
        .sign(
            fluent
                .world()
                .webhook_of("OrderBooked", &order, ago, sending),
        )
        .unwrap()
}

fn reconcile(deployment: &Deployment, more: &[&str]) -> (bool, String) {
    let all = ["reconcile", "--from", "30m", "--unknown"];
    let output = deployment.command("operator", &[&all[..], more].concat());
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_that_may_be_in_a_spool() {
    let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap();
    let sink = Sink::open().await;
    let route = sink.route(
        "r",
        "match: { event: OrderBooked }, origins: [webhook, reconciled]",
    );
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(route)
    };
    let mut deployment = Deployment::start(plan);
    let mut service = deployment.reconciler(&fluent, "OrderBooked");
    service.restart();
    // The service will find it, once it is late enough.
    webhook(&fluent, Duration::ZERO, Sending::Failed);

    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    let long_ago = Duration::from_mins(5);
    let lost: Vec<_> = (0..4)
        .map(|_| webhook(&fluent, long_ago, Sending::Failed))
        .collect();
    let send = async |webhook: &SignedBody| {
        assert_eq!(sender.send(webhook).await.answer.unwrap().status, 200);
    };
    for _ in 0..5 {
        send(&webhook(&fluent, long_ago, Sending::Succeeded)).await;
    }

    // What is in flight when the servers die would come again.
    until("what came is settled", PATIENCE, || {
        sink.len() == 5 && deployment.json(&["routes", "list"])[0]["inFlight"] == 0
    })
    .await;

    // One lies in a spool, and its gateway is dead.
    deployment.servers.kill_all();
    let spooled = webhook(&fluent, long_ago, Sending::Succeeded);
    send(&spooled).await;
    deployment.gateways[0].kill();
    deployment.servers.servers[0].start().unwrap();
    until("the servers are back", PATIENCE, || {
        deployment
            .command("operator", &["spool", "list"])
            .status
            .success()
    })
    .await;
    // What its gateway said last is good for a few seconds yet.
    until("it is waited for", PATIENCE, || {
        reconcile(&deployment, &["--dry-run"])
            .1
            .contains("is drained up to")
    })
    .await;
    let (is_compared, said) = reconcile(&deployment, &["--yes"]);
    assert!(!is_compared && sink.counts().len() == 5, "{said}");
    let spools = deployment.json(&["spool", "list"]);
    assert_eq!(
        (spools.as_array().unwrap().len(), &spools[0]["closed"]),
        (1, &false.into()),
        "{spools}"
    );
    deployment.gateways[0].restart();
    until("it is drained", PATIENCE, || {
        reconcile(&deployment, &["--yes"]).0
    })
    .await;
    until("everything is delivered", PATIENCE, || {
        sink.counts().len() >= 10
    })
    .await;
    let of_spooled: Vec<_> = sink
        .requests()
        .into_iter()
        .filter(|one| one.body == spooled.body)
        .collect();
    assert_eq!(of_spooled.len(), 1);
    assert_eq!(
        of_spooled[0].header("fluent-origin"),
        "webhook",
        "it was only on its way"
    );

    // One of them comes after all.
    let late = sender.send(&lost[0]).await.answer.unwrap();
    assert_eq!(late.body["duplicate"], false);
    let story = || deployment.json(&["events", "show", late.body["eventId"].as_str().unwrap()]);
    until("it is settled", PATIENCE, || {
        story()[0]["outcomes"][0]["state"] == "done"
    })
    .await;
    assert!(
        story().to_string().contains("delivered before"),
        "{}",
        story()
    );

    until("the service has found the other", PATIENCE, || {
        sink.counts().len() == 11
    })
    .await;
    assert!(
        sink.counts().values().all(|count| *count == 1),
        "{:?}",
        sink.counts()
    );
    assert!(
        reconcile(&deployment, &["--yes"])
            .1
            .contains("nothing is missing")
    );
    assert_eq!(service.stop(), Some(0));

    // Ended well, a gateway leaves nothing to wait for; lost, it is given up by a person.
    deployment.gateways[0].stop();
    let spools = deployment.json(&["spool", "list"]);
    assert_eq!(spools[0]["closed"], true, "{spools}");
    let id = spools[0]["id"].as_str().unwrap();
    let given_up = deployment.command("operator", &["spool", "forget", id, "--yes"]);
    assert!(given_up.status.success(), "{given_up:?}");
    assert_eq!(deployment.json(&["spool", "list"]), serde_json::json!([]));
}
