//! The network between two halves of the cluster fails: the leader and a gateway
//! on one side, everything else on the other.
//!
//! It runs in network namespaces of its own. That needs root, `unshare`,
//! `nsenter` and `ip`; without them it says so and passes.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use e2e::deployment::{Aside, Deployment, Plan, settle};
use e2e::ledger::percentile;

use crate::ledger::Load;
use crate::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the test that it is in its own namespace.
const INSIDE: &str = "FLUENT_TEST_NAMESPACE";

const NO_NAMESPACES: &str = "network namespaces can't be made here";

#[test]
fn a_leader_cut_off_together_with_a_gateway_costs_nothing() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(cut_off());
    }
    let itself = "cluster::partition::a_leader_cut_off_together_with_a_gateway_costs_nothing";
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe().unwrap()).args([itself, "--exact", "--nocapture"]);
    match command.env(INSIDE, "1").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("accept p99") || said.contains(NO_NAMESPACES), "it did not run: {said}");
            println!("{said}");
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare") => {
            e2e::say_not_run("network namespaces need root");
        }
        Ok(output) => panic!("{output:?}"),
        Err(_) => e2e::say_not_run("unshare is not here"),
    }
}

#[expect(clippy::print_stdout, reason = "figures of a test")]
async fn cut_off() {
    let Some(aside) = Aside::make() else {
        e2e::say_not_run(NO_NAMESPACES);
        return println!("{NO_NAMESPACES}");
    };
    let aside = Arc::new(aside);
    let sink = Sink::open().await;
    let routes =
        sink.route("all", "match: {}, start: beginning, retry: { first: 100ms, ceiling: 2s, for: 1h }");
    let mut deployment = Deployment::start(Plan { aside: Some(Arc::clone(&aside)), ..Plan::new(routes) });
    make_the_one_aside_lead(&mut deployment).await;
    let load = Load::paced(&deployment.urls(), 8, Duration::from_millis(20));
    tokio::time::sleep(Duration::from_secs(2)).await;
    aside.cut();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = load.accepted();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(load.accepted() > before, "both sides take webhooks");
    assert!(deployment.gateways.iter().all(e2e::deployment::Service::is_ready), "and say so");
    let log = deployment.gateways[0].log();
    assert!(log.contains("NATS does not answer: connecting anew"), "it leaves its leader by itself: {log}");
    aside.heal();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let took = load.ledger.took.lock().unwrap().clone();
    let ledger = load.stop().await;
    assert_eq!(ledger.0.len(), ledger.1.len(), "every one was accepted: the spools stood in");
    let outcome = settle(&deployment, &sink, ledger, PATIENCE).await;
    println!("{outcome:?}, accept p99 {:?}", percentile(&took, 99));
    outcome.assert(outcome.accepted / 50 + 4 * 16);
    assert!(percentile(&took, 100) < Duration::from_secs(8), "I5: {:?}", percentile(&took, 100));
}

/// Kills whoever leads until the first server does.
async fn make_the_one_aside_lead(deployment: &mut Deployment) {
    for _ in 0..20 {
        let mut leader = None;
        while leader.is_none() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            leader = deployment.leader();
        }
        match leader {
            Some(0) => return,
            Some(other) => {
                deployment.servers.servers[other].kill();
                tokio::time::sleep(Duration::from_secs(5)).await;
                deployment.servers.start_all().unwrap();
            }
            None => {}
        }
    }
    panic!("the first server never led");
}
