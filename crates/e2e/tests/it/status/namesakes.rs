//! Two processes with one settings file on one host, as routes that are scaled alone have.

use std::time::{Duration, Instant};

use e2e::deployment::{Deployment, Plan, Service, free_ports, until};
use serde_json::Value;

use super::GONE_WITHIN;

const ROUTES: &str = "    - { name: one, match: {}, dispatcher: log }\n    - { name: two, match: {}, dispatcher: log }\n";

/// The processes that are said to be in this state.
fn are(deployment: &Deployment, state: &str) -> usize {
    let processes = deployment.json(&["processes", "list"]);
    processes
        .as_array()
        .unwrap()
        .iter()
        .filter(|process: &&Value| process["state"] == state)
        .count()
}

/// Another one with the settings of the first.
fn another(deployment: &Deployment) -> Service {
    let [health] = free_ports();
    let config = deployment.folder.path().join("dispatcher-0.yml");
    let mut service = Service::new("dispatcher-again", "stage-dispatcher", config, health, None);
    service.set_environment("FLUENT_CONNECT__HEALTH", health.to_string().as_ref());
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_dispatchers_with_one_settings_file_each_is_seen_and_missed() {
    let plan = Plan {
        servers: 1,
        gateways: 0,
        dispatchers: 1,
        ..Plan::new(ROUTES)
    };
    let mut deployment = Deployment::start(plan);
    deployment.dispatchers[0].set_args(&["--route", "one"]);
    deployment.dispatchers[0].stop();
    deployment.dispatchers[0].restart();
    let mut second = another(&deployment);
    second.set_args(&["--route", "two", "unrouted"]);
    second.start();
    second.wait_until_ready();
    let patience = Duration::from_secs(60);
    until("both are seen", patience, || {
        are(&deployment, "running") == 2
    })
    .await;

    // Whoever of them dies, while the other goes on.
    second.kill();
    let began = Instant::now();
    while are(&deployment, "gone") != 1 {
        assert!(
            began.elapsed() < GONE_WITHIN,
            "{}",
            deployment.json(&["processes", "list"])
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // One that is started anew is the one that died.
    second.restart();
    until("both are seen again", patience, || {
        are(&deployment, "running") == 2 && are(&deployment, "gone") == 0
    })
    .await;
    assert_eq!(second.stop(), Some(0));
    until("it has said that it ends", patience, || {
        are(&deployment, "running") == 1
    })
    .await;
}
