//! The network between two halves of the cluster fails: the leader and a gateway
//! on one side, everything else on the other. Both ways, or one way alone.
//!
//! It runs in network namespaces of its own. That needs root, `unshare`,
//! `nsenter` and `ip`; without them it says so and passes.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use e2e::deployment::{Deployment, NetworkNamespace, Plan, SaidFrom, Service, settle, until};
use e2e::ledger::percentile;

use super::surviving::{PATIENCE, accepts, goes_on};
use crate::ledger::Load;
use crate::sink::Sink;

/// Tells the test that it is in its own namespace.
const INSIDE: &str = "FLUENT_TEST_NAMESPACE";

const NO_NAMESPACES: &str = "network namespaces can't be made here";

/// What fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    BothWays,
    /// Only what this side says is lost: it hears the other, and is not heard.
    OneWay(SaidFrom),
}

impl Fault {
    fn begin(self, aside: &NetworkNamespace) {
        match self {
            Self::BothWays => aside.cut(),
            Self::OneWay(said) => aside.lose(said),
        }
    }

    fn end(self, aside: &NetworkNamespace) {
        match self {
            Self::BothWays => aside.heal(),
            Self::OneWay(said) => aside.hear(said),
        }
    }
}

#[test]
fn a_leader_cut_off_together_with_a_gateway_costs_nothing() {
    in_a_namespace(
        "a_leader_cut_off_together_with_a_gateway_costs_nothing",
        Fault::BothWays,
    );
}

#[test]
fn a_leader_that_hears_and_is_not_heard_costs_nothing() {
    in_a_namespace(
        "a_leader_that_hears_and_is_not_heard_costs_nothing",
        Fault::OneWay(SaidFrom::Aside),
    );
}

#[test]
fn a_leader_that_is_heard_and_does_not_hear_costs_nothing() {
    in_a_namespace(
        "a_leader_that_is_heard_and_does_not_hear_costs_nothing",
        Fault::OneWay(SaidFrom::Hub),
    );
}

/// Runs the test of this name again, in a network namespace of its own.
#[expect(clippy::print_stdout, reason = "figures of a test")]
fn in_a_namespace(name: &str, fault: Fault) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(survives(fault));
    }
    let itself = format!("cluster::partition::{name}");
    let mut command = Command::new("unshare");
    command
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args([&itself, "--exact", "--nocapture"]);
    match command.env(INSIDE, "1").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                said.contains("accept p99") || said.contains(NO_NAMESPACES),
                "it did not run: {said}"
            );
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
async fn survives(fault: Fault) {
    let Some(aside) = NetworkNamespace::make() else {
        e2e::say_not_run(NO_NAMESPACES);
        return println!("{NO_NAMESPACES}");
    };
    let aside = Arc::new(aside);
    let sink = Sink::open().await;
    let routes = sink.route(
        "all",
        "match: {}, start: beginning, retry: { initial: 100ms, max-delay: 2s, max-elapsed: 1h }",
    );
    let mut deployment = Deployment::start(Plan {
        aside: Some(Arc::clone(&aside)),
        ..Plan::new(routes)
    });
    make_the_one_aside_lead(&mut deployment).await;
    // One load for each side.
    let urls = deployment.urls();
    let loads = urls
        .chunks(1)
        .map(|url| Load::paced(url, 4, Duration::from_millis(20)));
    let loads: Vec<Load> = loads.collect();
    goes_on(&loads[1], &sink).await;
    fault.begin(&aside);
    until("another leads", PATIENCE, || {
        deployment.leader().is_some_and(|leader| leader != 0)
    })
    .await;
    let log = || deployment.gateways[0].log();
    let leaves = || log().contains("NATS does not answer: connecting anew");
    until("the gateway leaves its leader by itself", PATIENCE, leaves).await;
    for load in &loads {
        accepts(load).await;
    }
    goes_on(&loads[1], &sink).await;
    assert!(
        deployment.gateways.iter().all(Service::is_ready),
        "and say so"
    );
    fault.end(&aside);
    goes_on(&loads[0], &sink).await;
    let mut took = Vec::new();
    let mut sent = Default::default();
    let mut accepted = Default::default();
    for load in loads {
        took.extend(load.ledger.took.lock().unwrap().iter().copied());
        let ledger = load.stop().await;
        sent = &sent | &ledger.0;
        accepted = &accepted | &ledger.1;
    }
    assert_eq!(
        sent.len(),
        accepted.len(),
        "every one was accepted: the spools stood in"
    );
    let outcome = settle(&deployment, &sink, (sent, accepted), PATIENCE).await;
    println!(
        "{fault:?}: accept p99 {:?}, longest {:?}",
        percentile(&took, 99),
        percentile(&took, 100)
    );
    outcome.assert(outcome.accepted / 50 + 4 * 16);
}

/// Kills whoever leads until the first server does.
async fn make_the_one_aside_lead(deployment: &mut Deployment) {
    for _ in 0..20 {
        let mut leader = None;
        until("somebody leads", PATIENCE, || {
            leader = deployment.leader();
            leader.is_some()
        })
        .await;
        let leader = leader.unwrap();
        if leader == 0 {
            return;
        }
        deployment.servers.servers[leader].kill();
        let leads = || deployment.leader().is_some_and(|next| next != leader);
        until("another leads", PATIENCE, leads).await;
        deployment.servers.start_all().unwrap();
    }
    panic!("the first server never led");
}
