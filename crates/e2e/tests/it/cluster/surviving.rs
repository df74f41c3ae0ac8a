//! The loss of any part, under load, with a sender that never retries.

use std::time::Duration;

use e2e::deployment::{Deployment, Plan, Service, settle, until};
use e2e::ledger::percentile;

use crate::ledger::Load;
use crate::sink::Sink;

/// Longest wait for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Deliveries that one dispatcher may have in flight when it dies.
const IN_FLIGHT: usize = 16;

/// Events by which is seen that it goes on, or went on for a while.
const SOME: usize = 200;

fn routes(sink: &Sink) -> String {
    sink.route(
        "all",
        "match: {}, start: beginning, retry: { initial: 100ms, max-delay: 2s, max-elapsed: 1h }",
    )
}

fn load(deployment: &Deployment) -> Load {
    Load::paced(&deployment.urls(), 8, Duration::from_millis(20))
}

/// Waits until some are delivered that nobody had answered for yet, and all before them.
pub(crate) async fn goes_on(load: &Load, sink: &Sink) {
    let before = load.accepted();
    until("deliveries go on", PATIENCE * 2, || {
        sink.different() > before + SOME
    })
    .await;
}

/// Waits until some more are accepted.
pub(crate) async fn accepts(load: &Load) {
    let before = load.accepted();
    until("webhooks are taken", PATIENCE, || {
        load.accepted() > before + SOME
    })
    .await;
}

/// Waits until a server leads; its number.
async fn leader(deployment: &Deployment) -> usize {
    let mut leader = None;
    until("somebody leads", PATIENCE, || {
        leader = deployment.leader();
        leader.is_some()
    })
    .await;
    leader.unwrap()
}

/// Waits until another server leads than this one.
async fn another_leads(deployment: &Deployment, than: usize) {
    until("another leads", PATIENCE, || {
        deployment.leader().is_some_and(|leader| leader != than)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_or_hangs_costs_nothing() {
    let sink = Sink::open().await;
    let mut deployment = Deployment::start(Plan::new(routes(&sink)));
    let load = load(&deployment);
    goes_on(&load, &sink).await;
    let killed = leader(&deployment).await;
    deployment.servers.servers[killed].kill();
    another_leads(&deployment, killed).await;
    goes_on(&load, &sink).await;
    deployment.servers.start_all().unwrap();
    goes_on(&load, &sink).await;
    let frozen = leader(&deployment).await;
    deployment.servers.servers[frozen].freeze();
    another_leads(&deployment, frozen).await;
    goes_on(&load, &sink).await;
    deployment.servers.servers[frozen].thaw();
    deployment.servers.servers[frozen].wait().unwrap();
    goes_on(&load, &sink).await;
    let took = load.ledger.took.lock().unwrap().clone();
    let ledger = load.stop().await;
    assert_eq!(
        ledger.0.len(),
        ledger.1.len(),
        "every one was accepted: the spool stood in"
    );
    let outcome = settle(&deployment, &sink, ledger, PATIENCE).await;
    println!(
        "accept p50 {:?}, p99 {:?}, longest {:?}",
        percentile(&took, 50),
        percentile(&took, 99),
        percentile(&took, 100)
    );
    outcome.assert(outcome.accepted / 50 + 4 * IN_FLIGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_gone_for_a_while_cost_nothing() {
    let sink = Sink::open().await;
    let mut deployment = Deployment::start(Plan::new(routes(&sink)));
    let load = load(&deployment);
    goes_on(&load, &sink).await;
    deployment.servers.kill_all();
    for _ in 0..5 {
        accepts(&load).await;
    }
    assert!(
        deployment.gateways.iter().all(Service::is_ready),
        "they can make events durable"
    );
    deployment.servers.start_all().unwrap();
    goes_on(&load, &sink).await;
    let ledger = load.stop().await;
    assert_eq!(
        ledger.0.len(),
        ledger.1.len(),
        "every one was accepted: the spool stood in"
    );
    settle(&deployment, &sink, ledger, PATIENCE)
        .await
        .assert(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_killed_at_random_lose_nothing() {
    const KILLS: usize = 16;
    let sink = Sink::open().await;
    let plan = Plan {
        servers: 1,
        ..Plan::new(routes(&sink))
    };
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
    settle(&deployment, &sink, ledger, PATIENCE)
        .await
        .assert(KILLS * IN_FLIGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_nothing_is_answered_for_that_the_queue_does_not_have() {
    let sink = Sink::open().await;
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        has_spools: false,
        ..Plan::new(routes(&sink))
    };
    let mut deployment = Deployment::start(plan);
    let load = load(&deployment);
    goes_on(&load, &sink).await;
    deployment.servers.kill_all();
    let accepted = load.accepted();
    // More than the senders have on their way: they were refused, and told so.
    until("senders are refused", PATIENCE, || {
        load.sent() > load.accepted() + 2 * 8
    })
    .await;
    assert!(
        load.accepted() <= accepted + 8,
        "what was on its way may be stored, and nothing after it"
    );
    until("it can't make anything durable now", PATIENCE, || {
        !deployment.gateways[0].is_ready()
    })
    .await;
    deployment.servers.start_all().unwrap();
    goes_on(&load, &sink).await;
    let ledger = load.stop().await;
    assert!(
        ledger.1.len() < ledger.0.len(),
        "some were refused: {} of {}",
        ledger.1.len(),
        ledger.0.len()
    );
    settle(&deployment, &sink, ledger, PATIENCE)
        .await
        .assert(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_an_operator_deleted_is_said_and_filled_again_once_it_is_made() {
    let sink = Sink::open().await;
    let mut deployment = Deployment::start(Plan {
        servers: 1,
        ..Plan::new(routes(&sink))
    });
    let load = load(&deployment);
    goes_on(&load, &sink).await;
    let options =
        async_nats::ConnectOptions::with_user_and_password("root".to_owned(), "root".to_owned());
    let client = options.connect(deployment.servers.urls()).await.unwrap();
    async_nats::jetstream::new(client)
        .delete_stream("FLUENT_EVENTS")
        .await
        .unwrap();
    for gateway in &deployment.gateways {
        let is_said = || {
            gateway
                .log()
                .contains("is not there: `fluent-webhooks cluster init`")
        };
        until("it is said that the stream is not there", PATIENCE, is_said).await;
        assert!(gateway.is_ready(), "it can make events durable");
    }
    // Nobody but a person makes it again; also a service that begins now does not.
    deployment.gateways[0].restart();
    accepts(&load).await;
    deployment.make_streams();
    goes_on(&load, &sink).await;
    let ledger = load.stop().await;
    let outcome = settle(&deployment, &sink, ledger, PATIENCE).await;
    // What was delivered of the deleted stream and not yet read back comes again, once.
    outcome.assert(outcome.accepted);
    let most = sink.counts().values().copied().max();
    assert!(most <= Some(2), "an event came {most:?} times");
}
