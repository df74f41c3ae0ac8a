//! The cost of telemetry: the gateway and the dispatcher without a collector, with one, and with
//! one that is dead or slow.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dispatch::Registry;
use e2e::collector::Collector as Receiver;
use queue::{Lifecycle, Source};
use telemetry::{Collector, Options, Protocol, Sampling, TelemetryHandle};

use crate::child::Subject;
use crate::inputs::Inputs;
use crate::report::{Report, Row};
use crate::stages::{self, Noop};

/// Rounds in turn, of which the cheapest counts, since the machine does other things, too.
const ROUNDS: usize = 3;

/// Most memory that waiting spans may add: 16,384 of about 1 KiB, those in an export, and what
/// the allocator keeps.
const MOST_MEMORY: u64 = 48 << 20;

/// How a process is watched while it is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Watched {
    /// The share of traces
    #[arg(long, default_value_t = 0.0)]
    share: f64,
    /// The collector
    #[arg(long)]
    collector: Option<String>,
}

impl Watched {
    /// Starts telemetry as a service does.
    pub(crate) fn start(self, service: &'static str) -> anyhow::Result<TelemetryHandle> {
        let collector = self.collector.map(|endpoint| Collector {
            endpoint,
            protocol: Protocol::Grpc,
            headers: Vec::new(),
            ca: None,
            timeout: Duration::from_secs(10),
        });
        let sampling = Sampling {
            share: self.share,
            keep_failures: true,
            trust_callers: false,
        };
        let instance = "bench".to_owned();
        let send_metrics_every = Duration::from_secs(30);
        Ok(telemetry::start(&Options {
            service,
            instance,
            collector,
            sampling,
            send_metrics_every,
        })?)
    }
}

/// One configuration of telemetry.
struct Way {
    name: &'static str,
    share: &'static str,
    collector: Option<String>,
    /// The largest processor time, as a ratio to that without telemetry.
    wanted: f64,
}

impl Way {
    fn args(&self) -> Vec<String> {
        let mut args = vec!["--share".to_owned(), self.share.to_owned()];
        args.extend(
            self.collector
                .iter()
                .flat_map(|at| ["--collector".to_owned(), at.clone()]),
        );
        args
    }
}

/// Runs a receiver that keeps nothing, and takes this many milliseconds for each export.
pub(crate) fn collector(delay_ms: u64) -> anyhow::Result<()> {
    stages::runtime()?.block_on(async {
        let receiver = Receiver::forgetful(Duration::from_millis(delay_ms)).await;
        println!("{}", receiver.grpc);
        std::future::pending().await
    })
}

/// Works off a backlog, and prints the row.
pub(crate) fn work_off(count: usize, watched: Watched) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(stages::disk()?)?;
    let row = stages::runtime()?.block_on(async {
        let started = watched.start("fluent-dispatcher")?;
        let queue = stages::backlog(folder.path(), count).await?;
        let registry = Registry::new().with::<Noop>();
        let queues = [Arc::clone(&queue) as Arc<dyn Source>];
        let row = stages::work_off(&queues, vec![stages::route("all")], &registry, count).await?;
        queue.close().await;
        tokio::task::spawn_blocking(move || started.finish()).await?;
        anyhow::Ok(row)
    })?;
    println!("{}", serde_json::to_string(&row)?);
    Ok(())
}

/// Measures the rows.
pub(crate) fn measure(report: &mut Report, inputs: &Inputs, backlog: usize) -> anyhow::Result<()> {
    let there = Subject::collector(0)?;
    let slow = Subject::collector(5_000)?;
    let at = |subject: &Subject| Some(format!("http://{}", subject.address()));
    let nobody = format!("http://127.0.0.1:{}", nats_server::free_port()?);
    let ways = [
        Way {
            name: "off",
            share: "0",
            collector: None,
            wanted: f64::INFINITY,
        },
        Way {
            name: "10 % of traces",
            share: "0.1",
            collector: at(&there),
            wanted: 1.1,
        },
        Way {
            name: "100 % of traces",
            share: "1",
            collector: at(&there),
            wanted: f64::INFINITY,
        },
        Way {
            name: "100 %, collector dead",
            share: "1",
            collector: Some(nobody),
            wanted: f64::INFINITY,
        },
        Way {
            name: "100 %, collector slow",
            share: "1",
            collector: at(&slow),
            wanted: f64::INFINITY,
        },
    ];
    let mut gateway = vec![None; ways.len()];
    let mut dispatcher = vec![None; ways.len()];
    for _ in 0..ROUNDS {
        for (number, way) in ways.iter().enumerate() {
            keep_cheapest(&mut gateway[number], load_gateway(inputs, way)?);
            keep_cheapest(&mut dispatcher[number], run_dispatcher(backlog, way)?);
        }
    }
    for (stage, rows) in [("gateway", gateway), ("dispatcher", dispatcher)] {
        show(report, stage, &ways, rows.into_iter().flatten().collect());
    }
    Ok(())
}

fn keep_cheapest(kept: &mut Option<Row>, row: Row) {
    if kept.as_ref().is_none_or(|kept| row.cpu_us < kept.cpu_us) {
        *kept = Some(row);
    }
}

fn show(report: &mut Report, stage: &str, ways: &[Way], rows: Vec<Row>) {
    let off_us = rows[0].cpu_us;
    let off_memory = rows[0].memory.unwrap_or_default();
    let off_p99 = rows[0].p99_ms;
    for (way, row) in ways.iter().zip(rows) {
        let p99 = row.p99_ms;
        let memory = row.memory.unwrap_or_default();
        let dropped = row.dropped.unwrap_or_default();
        report.add(
            &format!("{stage}, telemetry {}", way.name),
            row.of_floor(off_us).wanted(0.0, way.wanted),
        );
        if !way.name.contains("collector") {
            continue;
        }
        if let (Some(off), Some(p99)) = (off_p99, p99) {
            // Five milliseconds for noise of the machine: little beside the time that Fluent
            // waits.
            let wanted = Duration::from_secs_f64(off / 1000.0 * 1.2 + 0.005);
            let name = format!("accept p99, telemetry {} (off: {off:.1} ms)", way.name);
            report.time(&name, Duration::from_secs_f64(p99 / 1000.0), wanted);
            report.bound(
                &format!("memory that it adds, telemetry {}", way.name),
                memory.saturating_sub(off_memory),
                MOST_MEMORY,
            );
            report.said(format!(
                "spans dropped and counted, telemetry {}: {dropped}",
                way.name
            ));
        }
    }
}

fn load_gateway(inputs: &Inputs, way: &Way) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir_in(stages::disk()?)?;
    let mut subject = Subject::gateway(folder.path(), &inputs.rsa1024.public, &way.args())?;
    let row = subject.load(&inputs.rsa1024.requests, false)?;
    let memory = Some(crate::cpu::resident(subject.id())?);
    Ok(Row {
        memory,
        dropped: Some(subject.ask()?),
        ..row
    })
}

fn run_dispatcher(backlog: usize, way: &Way) -> anyhow::Result<Row> {
    let backlog = backlog.to_string();
    let args = [vec!["work-off".to_owned(), backlog], way.args()].concat();
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(args)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The number of dropped spans, as a scrape shows it.
pub(crate) fn dropped(started: &TelemetryHandle) -> f64 {
    let text = started.scrape().text();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("otel_sdk_processor_span_processed_total"));
    let dropped = lines.filter(|line| line.contains("queue_full"));
    dropped
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Where a gateway's queue and key are, and how it is watched.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WatchedGateway {
    pub(crate) folder: PathBuf,
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) watched: Watched,
}

impl WatchedGateway {
    /// The path of its queue.
    pub(crate) fn queue(&self) -> PathBuf {
        Path::new(&self.folder).join("queue.db")
    }
}
