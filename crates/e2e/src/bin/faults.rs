//! Faults at random for a given time, and then a check of the invariants.

#![expect(
    clippy::print_stdout,
    reason = "its report is for people, or as JSON for machines"
)]
#![expect(clippy::unwrap_used, reason = "a panic is how a run fails")]

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{Table, presets};
use e2e::deployment::{Deployment, Outcome, Plan, settle};
use e2e::ledger::{Load, percentile};
use e2e::sink::Sink;
use fastrand::Rng;
use serde_json::json;

/// Longest silence while the backlog drains.
const PATIENCE: Duration = Duration::from_secs(90);

/// Most deliveries that one dispatcher has in progress.
const IN_FLIGHT: usize = 16;

/// Longest time to accept 99 of 100 events, also while leaders die: a gateway with a spool waits
/// for its disk, and hardly for the servers.
const ACCEPTED_WITHIN: Duration = Duration::from_millis(50);

/// Injects faults into a cluster on this machine, at random, and counts what
/// was lost.
#[derive(Debug, Parser)]
struct Args {
    /// How long
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Makes the same choices again
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    GatewayKilled,
    DispatcherKilled,
    LeaderKilled,
    LeaderFrozen,
    AllServersKilled,
    ServersRetiredInTurn,
}

const FAULTS: [Fault; 9] = [
    Fault::GatewayKilled,
    Fault::GatewayKilled,
    Fault::GatewayKilled,
    Fault::DispatcherKilled,
    Fault::DispatcherKilled,
    Fault::LeaderKilled,
    Fault::LeaderFrozen,
    Fault::AllServersKilled,
    Fault::ServersRetiredInTurn,
];

impl Fault {
    async fn inject(self, deployment: &mut Deployment, random: &mut Rng) {
        let service = random.usize(0..2);
        match self {
            Self::GatewayKilled => {
                deployment.gateways[service].kill();
                deployment.gateways[service].restart();
            }
            Self::DispatcherKilled => {
                deployment.dispatchers[service].kill();
                wait(random, 0..3000).await;
                deployment.dispatchers[service].restart();
            }
            Self::LeaderKilled => {
                let leader = deployment.leader().unwrap_or(0);
                deployment.servers.servers[leader].kill();
                wait(random, 1000..10_000).await;
                deployment.servers.start_all().unwrap();
            }
            Self::LeaderFrozen => {
                let leader = deployment.leader().unwrap_or(0);
                deployment.servers.servers[leader].freeze();
                tokio::time::sleep(Duration::from_secs(15)).await;
                deployment.servers.servers[leader].thaw();
            }
            Self::AllServersKilled => {
                deployment.servers.kill_all();
                wait(random, 10_000..60_000).await;
                deployment.servers.start_all().unwrap();
            }
            Self::ServersRetiredInTurn => {
                for server in &mut deployment.servers.servers {
                    server.retire();
                    while server.is_running() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    server.start().unwrap();
                    server.wait().unwrap();
                }
            }
        }
    }
}

async fn wait(random: &mut Rng, millis: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.u64(millis))).await;
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut random = Rng::with_seed(seed);
    let sink = Sink::open().await;
    let routes = sink.route(
        "all",
        "match: {}, start: beginning, retry: { initial: 100ms, max-delay: 2s, max-elapsed: 1h }",
    );
    let mut deployment = Deployment::start(Plan::new(routes));
    let load = Load::paced(&deployment.urls(), 8, Duration::from_millis(20));
    let began = Instant::now();
    let mut counts = BTreeMap::<Fault, usize>::new();
    while began.elapsed() < Duration::from_secs(args.minutes * 60) {
        wait(&mut random, 500..4000).await;
        let fault = FAULTS[random.usize(..FAULTS.len())];
        if !args.json {
            println!(
                "{:>5} s  {:>7} accepted  {fault:?}",
                began.elapsed().as_secs(),
                load.accepted()
            );
        }
        fault.inject(&mut deployment, &mut random).await;
        *counts.entry(fault).or_default() += 1;
    }
    let took = load.ledger.took.lock().unwrap().clone();
    let outcome = settle(&deployment, &sink, load.stop().await, PATIENCE).await;
    report(&args, seed, &counts, &outcome, &took)
}

fn report(
    args: &Args,
    seed: u64,
    faults: &BTreeMap<Fault, usize>,
    outcome: &Outcome,
    took: &[Duration],
) -> ExitCode {
    let allowed = outcome.accepted / 50 + faults.values().sum::<usize>() * 4 * IN_FLIGHT;
    let accepted_within = percentile(took, 99);
    let is_quick = accepted_within <= ACCEPTED_WITHIN;
    let is_whole = outcome.accepted > 0
        && outcome.lost.is_empty()
        && outcome.invented.is_empty()
        && outcome.again <= allowed;
    let commit = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let commit = commit
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    let mut rows: Vec<(String, String)> = faults
        .iter()
        .map(|(fault, count)| (format!("{fault:?}"), count.to_string()))
        .collect();
    rows.extend([
        ("sent".to_owned(), outcome.sent.to_string()),
        ("answered 200".to_owned(), outcome.accepted.to_string()),
        ("delivered".to_owned(), outcome.delivered.to_string()),
        ("lost (I1)".to_owned(), outcome.lost.len().to_string()),
        (
            "invented (I2)".to_owned(),
            outcome.invented.len().to_string(),
        ),
        (
            format!("delivered again (I3, at most {allowed})"),
            outcome.again.to_string(),
        ),
        (
            "drained in (I5)".to_owned(),
            format!("{:.1?}", outcome.drained_in),
        ),
        (
            format!("accept p99 (I5, at most {ACCEPTED_WITHIN:?})"),
            format!("{accepted_within:.0?}"),
        ),
        ("seed".to_owned(), seed.to_string()),
        ("minutes".to_owned(), args.minutes.to_string()),
        ("commit".to_owned(), commit),
    ]);
    if args.json {
        let report: serde_json::Map<_, _> = rows
            .into_iter()
            .map(|(name, value)| (name, json!(value)))
            .collect();
        println!(
            "{}",
            json!({ "good": is_whole && is_quick, "report": report })
        );
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (name, value) in rows {
            table.add_row([name, value]);
        }
        let verdict = match (is_whole, is_quick) {
            (true, true) => "ok: nothing was lost",
            (true, false) => "FAILED: nothing was lost, and accepting took too long",
            (false, _) => "FAILED",
        };
        println!("\n{table}\n\n{verdict}");
    }
    if is_whole && is_quick {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
