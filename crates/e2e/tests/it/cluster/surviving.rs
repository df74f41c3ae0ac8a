//! The loss of any part, under load, with a sender that never retries.

use std::time::Duration;

use e2e::deployment::{Deployment, Plan, settle};
use e2e::ledger::percentile;

use crate::ledger::Load;
use crate::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(60);

/// Deliveries that one dispatcher may have in flight when it dies.
const IN_FLIGHT: usize = 16;

fn routes(sink: &Sink) -> String {
    sink.route("all", "match: {}, start: beginning, retry: { first: 100ms, ceiling: 2s, for: 1h }")
}

fn load(deployment: &Deployment) -> Load {
    Load::paced(&deployment.urls(), 8, Duration::from_millis(20))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_or_hangs_costs_nothing() {
    let sink = Sink::open().await;
    let mut deployment = Deployment::start(Plan::new(routes(&sink)));
    let load = load(&deployment);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let killed = deployment.leader().unwrap();
    deployment.servers.servers[killed].kill();
    tokio::time::sleep(Duration::from_secs(8)).await;
    deployment.servers.start_all().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let frozen = deployment.leader().unwrap();
    deployment.servers.servers[frozen].freeze();
    tokio::time::sleep(Duration::from_secs(15)).await;
    deployment.servers.servers[frozen].thaw();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let took = load.ledger.took.lock().unwrap().clone();
    let ledger = load.stop().await;
    assert_eq!(ledger.0.len(), ledger.1.len(), "every one was accepted: the spool stood in");
    let outcome = settle(&deployment, &sink, ledger, PATIENCE).await;
    outcome.assert(outcome.accepted / 50 + 4 * IN_FLIGHT);
    println!(
        "accept p50 {:?}, p99 {:?}, longest {:?}",
        percentile(&took, 50),
        percentile(&took, 99),
        percentile(&took, 100)
    );
    assert!(percentile(&took, 100) < Duration::from_secs(8), "I5: {:?}", percentile(&took, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_gone_for_a_while_cost_nothing() {
    let sink = Sink::open().await;
    let mut deployment = Deployment::start(Plan::new(routes(&sink)));
    let load = load(&deployment);
    tokio::time::sleep(Duration::from_secs(2)).await;
    deployment.servers.kill_all();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        deployment.gateways.iter().all(e2e::deployment::Service::is_ready),
        "they can make events durable"
    );
    deployment.servers.start_all().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.stop().await;
    assert_eq!(ledger.0.len(), ledger.1.len(), "every one was accepted: the spool stood in");
    settle(&deployment, &sink, ledger, PATIENCE).await.assert(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_killed_at_random_lose_nothing() {
    const KILLS: usize = 16;
    let sink = Sink::open().await;
    let plan = Plan { servers: 1, ..Plan::new(routes(&sink)) };
    let mut deployment = Deployment::start(plan);
    let load = load(&deployment);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(200..900))).await;
        let number = fastrand::usize(0..2);
        let service = match fastrand::bool() {
            true => &mut deployment.gateways[number],
            false => &mut deployment.dispatchers[number],
        };
        service.kill();
        service.restart();
    }
    let ledger = load.stop().await;
    settle(&deployment, &sink, ledger, PATIENCE).await.assert(KILLS * IN_FLIGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_nothing_is_answered_for_that_the_queue_does_not_have() {
    let sink = Sink::open().await;
    let plan =
        Plan { servers: 1, gateways: 1, dispatchers: 1, has_spools: false, ..Plan::new(routes(&sink)) };
    let mut deployment = Deployment::start(plan);
    let load = load(&deployment);
    tokio::time::sleep(Duration::from_secs(1)).await;
    deployment.servers.kill_all();
    // Longer than a gateway tries: the senders are refused, and told so.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(!deployment.gateways[0].is_ready(), "it can't make anything durable now");
    deployment.servers.start_all().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.stop().await;
    assert!(ledger.1.len() < ledger.0.len(), "some were refused: {} of {}", ledger.1.len(), ledger.0.len());
    settle(&deployment, &sink, ledger, PATIENCE).await.assert(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_an_operator_deleted_is_said_and_filled_again_once_it_is_made() {
    let sink = Sink::open().await;
    let mut deployment = Deployment::start(Plan { servers: 1, ..Plan::new(routes(&sink)) });
    let load = load(&deployment);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let options = async_nats::ConnectOptions::with_user_and_password("root".to_owned(), "root".to_owned());
    let client = options.connect(deployment.servers.urls()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream("FLUENT_EVENTS").await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    for gateway in &deployment.gateways {
        assert!(gateway.is_ready(), "it can make events durable");
        assert!(gateway.log().contains("is not there: `fluent-webhooks cluster init`"), "{}", gateway.log());
    }
    // Nobody but a person makes it again; also a service that begins now does not.
    deployment.gateways[0].restart();
    let before = load.accepted();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(load.accepted() > before, "and takes webhooks");
    deployment.make_streams();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.stop().await;
    let outcome = settle(&deployment, &sink, ledger, PATIENCE).await;
    // What was delivered of the deleted stream and not yet read back comes again, once.
    outcome.assert(outcome.accepted);
    let most = sink.counts().values().copied().max();
    assert!(most <= Some(2), "an event came {most:?} times");
}
