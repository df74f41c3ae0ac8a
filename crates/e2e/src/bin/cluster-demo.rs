//! The cluster at work on this machine, while its parts are killed in turn.

#![expect(clippy::print_stdout, reason = "a demonstration speaks to people")]
#![expect(clippy::unwrap_used, reason = "a panic is how a demonstration fails")]

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use e2e::SANDBOX;
use e2e::deployment::{Deployment, Outcome, Plan, Service, settle, until};
use e2e::ledger::{Load, percentile};
use e2e::sink::Sink;
use simulator::{Events, Retry, Sender};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two events of each of the eight senders.
const PAUSE: Duration = Duration::from_millis(40);

#[tokio::main]
async fn main() -> ExitCode {
    let sink = Sink::open().await;
    let routes = sink.route(
        "all",
        "match: {}, start: beginning, retry: { initial: 200ms, max-delay: 2s, max-elapsed: 1h }",
    );
    let mut deployment = Deployment::start(Plan {
        sync_always: true,
        ..Plan::new(routes)
    });
    let (mut operator, console) = deployment.console();
    operator.start();
    operator.wait_until_ready();
    println!("Look at it in a browser: http://{console}\n");
    println!("A cluster of fluent-webhooks on this machine. Every part is a process of its own.\n");
    describe(&deployment);
    single_events(&deployment, &sink).await;
    let load = Load::paced(&deployment.urls(), 8, PAUSE);
    println!(
        "\nNow events flow, about {} a second, from a sender that never sends twice:\n",
        8000 / PAUSE.as_millis()
    );
    kill_in_turn(&mut deployment, &load).await;
    let took = load.ledger.took.lock().unwrap().clone();
    let outcome = settle(&deployment, &sink, load.stop().await, PATIENCE).await;
    let verdict = conclude(&outcome, &took);
    if !std::env::args().any(|arg| arg == "--once") {
        println!("\nIt stays up: http://{console}. Ctrl-C ends it.");
        let _ = tokio::signal::ctrl_c().await;
    }
    verdict
}

fn describe(deployment: &Deployment) {
    let mut table = table(["part", "process", "where"]);
    for server in &deployment.servers.servers {
        table.add_row([server.name.clone(), id(server.pid()), server.url()]);
    }
    for service in deployment.gateways.iter().chain(&deployment.dispatchers) {
        let place = service
            .webhook
            .map_or("pulls from NATS".to_owned(), |_| service.url());
        table.add_row([service.name.clone(), id(service.pid()), place]);
    }
    println!("{table}\n");
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn id(pid: Option<u32>) -> String {
    pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())
}

/// Sends a few events one by one, so that each can be seen.
async fn single_events(deployment: &Deployment, sink: &Sink) {
    println!("A few events, signed as Fluent signs them, to either gateway in turn:\n");
    let mut table = table(["event", "entity", "sent to", "answer", "delivered"]);
    let mut events = Events::new("ACME", 34, 2026);
    for number in 0..6 {
        let event = events.any();
        let gateway = &deployment.gateways[number % deployment.gateways.len()];
        let sender = Sender::new(gateway.url(), Retry::Connection).unwrap();
        let answer = sender
            .send(&SANDBOX.sign(event.body).unwrap())
            .await
            .answer
            .unwrap();
        until("it is delivered", PATIENCE, || sink.len() > number).await;
        let seen = sink.requests()[number]
            .header("ce-id")
            .get(..8)
            .unwrap_or_default()
            .to_owned();
        let answer = format!(
            "{} eventId {}...",
            answer.status,
            &answer.body["eventId"].as_str().unwrap_or_default()[..8]
        );
        table.add_row([
            event.name,
            event.entity_ref,
            gateway.name.clone(),
            answer,
            format!("ce-id {seen}..."),
        ]);
    }
    println!("{table}");
}

async fn kill_in_turn(deployment: &mut Deployment, load: &Load) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = deployment.leader().unwrap();
    let name = deployment.servers.servers[leader].name.clone();
    deployment.servers.servers[leader].kill();
    tell(
        load,
        &format!("kill -9 {name}, which leads the stream of events"),
    );
    tokio::time::sleep(Duration::from_secs(8)).await;
    deployment.servers.start_all().unwrap();
    tell(load, &format!("{name} is back"));
    for service in [&mut deployment.gateways[0], &mut deployment.dispatchers[1]] {
        kill_one(service, load).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    deployment.servers.kill_all();
    tell(load, "kill -9 all three NATS servers");
    tokio::time::sleep(Duration::from_secs(5)).await;
    deployment.servers.start_all().unwrap();
    tell(load, "all three are back");
    tokio::time::sleep(Duration::from_secs(2)).await;
}

async fn kill_one(service: &mut Service, load: &Load) {
    service.kill();
    tell(load, &format!("kill -9 {}", service.name));
    tokio::time::sleep(Duration::from_secs(2)).await;
    service.restart();
    tell(load, &format!("{} is back", service.name));
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn tell(load: &Load, what: &str) {
    println!("  {:>6} accepted   {what}", load.accepted());
}

fn conclude(outcome: &Outcome, took: &[Duration]) -> ExitCode {
    let mut table = table(["", "events"]);
    let rows = [
        ("sent", outcome.sent),
        ("answered 200", outcome.accepted),
        ("delivered", outcome.delivered),
        ("answered 200 and lost", outcome.lost.len()),
        ("delivered more than once", outcome.again),
    ];
    for (what, count) in rows {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    println!("\n{table}\n");
    println!(
        "Answered within {:.0?} (half), {:.0?} (99 %), {:.0?} (the longest).",
        percentile(took, 50),
        percentile(took, 99),
        percentile(took, 100)
    );
    if outcome.lost.is_empty() {
        println!(
            "Nothing was lost. Events without an answer died with their gateway: Fluent sends those again."
        );
        ExitCode::SUCCESS
    } else {
        println!("LOST: {:?}", outcome.lost);
        ExitCode::FAILURE
    }
}
