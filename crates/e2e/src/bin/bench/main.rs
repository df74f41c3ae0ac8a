//! Speed beside its floors: `cargo xtask bench`.
//!
//! Every figure is from this run on this machine, where the load generator and the measured
//! process share the cores. Rates show what was possible. Processor time per event is the
//! steadier figure, and floors are summed in it.
//!
//! Start reading at [`measure`].
#![expect(clippy::print_stdout, reason = "it prints figures")]

mod attacks;
mod child;
mod cpu;
mod embedded;
mod floors;
mod fluent;
mod history;
mod inputs;
mod load;
mod memory;
mod nats;
mod reconcile;
mod remote;
mod report;
mod rest;
mod routes;
mod stages;
mod subjects;
mod verified;
mod watched;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::inputs::Inputs;
use crate::report::Report;
use crate::watched::{Watched, WatchedGateway};

/// The allocator of the shipped binaries.
#[global_allocator]
static ALLOCATOR: process::Allocator = process::Allocator;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
    /// A tenth of the events: to see that it works
    #[arg(long)]
    quick: bool,
    /// On NATS servers, instead of the embedded queue
    #[arg(long)]
    cluster: bool,
    /// Only what goes out of process, and what a person repeats
    #[arg(long, conflicts_with = "cluster")]
    remote: bool,
    /// Only the embedded queue by itself
    #[arg(long, conflicts_with_all = ["cluster", "remote"])]
    embedded: bool,
    /// Only what routes add to a delivery
    #[arg(long, conflicts_with_all = ["cluster", "remote", "embedded"])]
    routes: bool,
    /// Only what it costs to be watched
    #[arg(long, conflicts_with_all = ["cluster", "remote"])]
    telemetry: bool,
    /// Only what asks Fluent's API
    #[arg(long, conflicts_with_all = ["cluster", "remote", "telemetry"])]
    fluent: bool,
    /// Only what honest senders get beside attacks
    #[arg(long, conflicts_with_all = ["cluster", "remote", "telemetry", "fluent"])]
    attacks: bool,
    /// Only this part of the cluster's rows
    #[arg(long, value_enum, requires = "cluster")]
    only: Option<nats::Part>,
    #[command(subcommand)]
    subject: Option<Subject>,
}

/// What runs as a process of its own while it is measured.
#[derive(Debug, Subcommand)]
enum Subject {
    /// A bare axum route
    #[command(hide = true)]
    Axum,
    /// The gateway on JetStream, with a spool in this folder if one is given
    #[command(hide = true)]
    GatewayOnNats {
        servers: String,
        replicas: usize,
        key: PathBuf,
        spool: Option<PathBuf>,
    },
    /// The gateway with the embedded queue
    #[command(hide = true)]
    Gateway { folder: PathBuf, key: PathBuf },
    /// The same, watched
    #[command(hide = true)]
    WatchedGateway(WatchedGateway),
    /// The dispatcher, working off a backlog
    #[command(hide = true)]
    WorkOff {
        count: usize,
        #[command(flatten)]
        watched: Watched,
    },
    /// A Fluent with so many orders
    #[command(hide = true)]
    Api { orders: usize },
    /// An OTLP receiver that takes so long over each export
    #[command(hide = true)]
    Collector { delay_ms: u64 },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.subject {
        Some(Subject::Axum) => subjects::axum(),
        Some(Subject::Gateway { folder, key }) => subjects::gateway(&folder, &key),
        Some(Subject::GatewayOnNats {
            servers,
            replicas,
            key,
            spool,
        }) => subjects::gateway_on_nats(&servers, replicas, &key, spool),
        Some(Subject::WatchedGateway(gateway)) => subjects::watched_gateway(gateway),
        Some(Subject::WorkOff { count, watched }) => watched::work_off(count, watched),
        Some(Subject::Api { orders }) => fluent::api(orders),
        Some(Subject::Collector { delay_ms }) => watched::collector(delay_ms),
        None => {
            let report = match () {
                () if args.cluster => nats::measure(args.quick, args.only)?,
                () if args.remote => only_remote(args.quick)?,
                () if args.embedded => only_embedded(args.quick)?,
                () if args.routes => only_routes(args.quick)?,
                () if args.telemetry => only_telemetry(args.quick)?,
                () if args.fluent => only_fluent(args.quick)?,
                () if args.attacks => only_attacks(args.quick)?,
                () => measure(args.quick)?,
            };
            if args.json {
                report.print_json()
            } else {
                report.print()
            }
        }
    }
}

/// Connections of the load generator, as in DESIGN's goals.
const CONNECTIONS: usize = 64;

fn only_remote(quick: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    remote::measure(&mut report, if quick { 10 } else { 1 })?;
    Ok(report)
}

fn only_embedded(quick: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    embedded::measure(&mut report, if quick { 10 } else { 1 })?;
    Ok(report)
}

fn only_routes(quick: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let scale = if quick { 10 } else { 1 };
    let pull = report.add("floor: bare pull consumer", floors::pull(200_000 / scale)?);
    routes::measure(&mut report, pull.cpu_us, scale)?;
    Ok(report)
}

fn only_telemetry(quick: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let scale = if quick { 10 } else { 1 };
    watched::measure(&mut report, &Inputs::make(scale)?, 100_000 / scale)?;
    Ok(report)
}

fn only_attacks(quick: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let signed = inputs::SignedInput::make(1024, 20_000)?;
    let scale = if quick { 10 } else { 1 };
    verified_again(&mut report, &signed, scale)?;
    attacks::measure(&mut report, &signed, quick)?;
    Ok(report)
}

/// Measures the second verification, in a dispatcher, of what the gateway has verified. The goal
/// is 12 µs.
fn verified_again(
    report: &mut Report,
    signed: &inputs::SignedInput,
    scale: usize,
) -> anyhow::Result<()> {
    let floor = report.add(
        "floor: bare verification, RSA 1024",
        floors::verify(signed, 100_000 / scale)?,
    );
    report.add(
        "verified again, RSA 1024",
        verified_again_row(signed, floor.cpu_us, scale)?,
    );
    Ok(())
}

fn verified_again_row(
    signed: &inputs::SignedInput,
    floor_us: f64,
    scale: usize,
) -> anyhow::Result<report::Row> {
    let row = verified::again(signed, 100_000 / scale)?;
    Ok(row.of_floor(floor_us).costing_at_most(12.0))
}

fn only_fluent(quick: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let scale = if quick { 10 } else { 1 };
    let pull = report.add("floor: bare pull consumer", floors::pull(200_000 / scale)?);
    fluent::measure(&mut report, pull.cpu_us, 20_000 / scale)?;
    reconcile::measure(&mut report, pull.cpu_us, 20_000 / scale)?;
    Ok(report)
}

fn measure(quick: bool) -> anyhow::Result<Report> {
    let scale = if quick { 10 } else { 1 };
    let inputs = Inputs::make(scale)?;
    let mut report = Report::default();

    let axum = report.add(
        "floor: bare axum route, keep-alive",
        child::load_axum(&inputs.rsa1024, false)?,
    );
    let axum_new = report.add(
        "floor: bare axum route, new connections",
        child::load_axum(&inputs.rsa1024, true)?,
    );
    let verify = report.add(
        "floor: bare verification, RSA 1024",
        floors::verify(&inputs.rsa1024, 100_000 / scale)?,
    );
    let verify2 = report.add(
        "floor: bare verification, RSA 2048",
        floors::verify(&inputs.rsa2048, 50_000 / scale)?,
    );
    report.add(
        "verified again, RSA 1024",
        verified_again_row(&inputs.rsa1024, verify.cpu_us, scale)?,
    );
    let publish = report.add(
        "floor: bare publish, embedded queue",
        floors::publish(CONNECTIONS, 200_000 / scale)?,
    );

    let gateway = child::load_gateway(&inputs.rsa1024, false)?;
    let sum = axum.cpu_us + verify.cpu_us + publish.cpu_us;
    let gateway = report.add(
        "gateway, RSA 1024, keep-alive",
        gateway
            .of_floor(sum)
            .wanted(15_000.0, 1.5)
            .costing_at_most(40.0),
    );
    let sum = axum_new.cpu_us + verify.cpu_us + publish.cpu_us;
    let new = child::load_gateway(&inputs.rsa1024, true)?;
    report.add(
        "gateway, RSA 1024, new connections",
        new.of_floor(sum).wanted(8_000.0, 1.5),
    );
    let sum = axum.cpu_us + verify2.cpu_us + publish.cpu_us;
    let larger = child::load_gateway(&inputs.rsa2048, false)?;
    report.add(
        "gateway, RSA 2048, keep-alive",
        larger.of_floor(sum).wanted(0.0, 1.5),
    );

    embedded::measure(&mut report, scale)?;
    let backlog = 200_000 / scale;
    let pull = report.add("floor: bare pull consumer", floors::pull(backlog)?);
    let noop = stages::dispatcher(backlog)?
        .of_floor(pull.cpu_us)
        .wanted(0.8 * gateway.rate, f64::INFINITY);
    report.add("dispatcher, no-op, working off a backlog", noop);
    routes::measure(&mut report, pull.cpu_us, scale)?;
    remote::measure(&mut report, scale)?;
    fluent::measure(&mut report, pull.cpu_us, 20_000 / scale)?;
    reconcile::measure(&mut report, pull.cpu_us, 20_000 / scale)?;
    watched::measure(&mut report, &inputs, backlog / 2)?;
    history::embedded(&mut report, 1_000_000 / scale)?;
    for row in memory::rows(1_000_000 / scale)? {
        report.memory(row);
    }
    Ok(report)
}
