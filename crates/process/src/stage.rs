//! The work of every stage around its own: arguments, settings, readiness and winding down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use private_files::FileAccess;
use queue::{Intake, Lifecycle, QueueError, Source};
use settings::{Section, SettingsTree, UncheckedSettings};
use telemetry::{ErrorChain, Format};
use tokio::time::{sleep, timeout};

use crate::{ProcessReporter, Readiness, Shutdown, StopTimes, gauges};

/// Interval at which readiness follows the queue's state.
const READY_EVERY: Duration = Duration::from_millis(500);

/// Interval at which fetching and settling are probed: it costs the queue four questions a route.
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// Longest time for a probe.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// The work that a process has to be ready for, with the role of the queue that can tell.
#[derive(Clone, Debug)]
pub enum StageWork {
    /// Making an event durable.
    Accepting(Arc<dyn Intake>),
    /// Fetching and settling deliveries.
    Delivering(Arc<dyn Source>),
}

/// Longest time for a health question.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// The arguments of every stage's program.
#[derive(Clone, Debug, clap::Args)]
pub struct StageArgs {
    /// The settings file
    #[arg(long, default_value = "config/application.yml")]
    pub config: PathBuf,
    /// Log JSON, for machines
    #[arg(long)]
    pub json: bool,
    /// Log at this level, in the syntax of RUST_LOG
    #[arg(long, default_value = "info")]
    pub log: String,
    /// Ask the one that runs with these settings whether it is ready, and end:
    /// for container health checks
    #[arg(long)]
    pub is_ready: bool,
    /// Read the settings and what they name, say whether it is good, and end
    #[arg(long)]
    pub check: bool,
}

impl StageArgs {
    /// Asks the settings' health address.
    ///
    /// # Errors
    /// If the answer is not "ready", or none comes.
    pub fn check_ready(&self) -> anyhow::Result<()> {
        let address = tree(&self.config)?
            .health()?
            .context("fluent-connect.health is not set")?;
        let mut local = address;
        if address.ip().is_unspecified() {
            local.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let mut stream = TcpStream::connect_timeout(&local, ASK_WITHIN)?;
        stream.set_read_timeout(Some(ASK_WITHIN))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: health\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        ensure!(head.starts_with("HTTP/1.1 200"), "{}", reason(body));
        Ok(())
    }

    /// Prints that the settings are valid.
    #[expect(clippy::print_stdout, reason = "the answer to a question")]
    pub fn print_valid(&self) {
        println!("{} is valid", self.config.display());
    }

    /// Starts the log.
    pub fn start_logs(&self) -> telemetry::Logs {
        let format = if self.json {
            Format::Json
        } else {
            Format::Readable
        };
        telemetry::start_logs(format, &self.log)
    }
}

/// Reads the settings, with what the environment overrides.
pub fn tree(config: &Path) -> anyhow::Result<SettingsTree> {
    checked_tree(config, &[])
}

/// Reads the settings, and checks these sections: the error has every mistake in them.
pub fn checked_tree(config: &Path, sections: &[Section<'_>]) -> anyhow::Result<SettingsTree> {
    let tree = unchecked_tree(config)?.check(sections)?;
    private_files::set_access(match tree.group_readable()? {
        true => FileAccess::Group,
        false => FileAccess::Owner,
    });
    Ok(tree)
}

/// Reads the settings without a check, to look for mistakes in them.
pub fn unchecked_tree(config: &Path) -> anyhow::Result<UncheckedSettings> {
    // A variable that is not UTF-8 can't be meant for us.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(UncheckedSettings::load(config, environment)?)
}

/// Runs the program of a stage: reads its plan from these sections of the settings, and then answers for its
/// readiness, checks the plan, or does its work, as the arguments say.
///
/// Everything that the settings say is read before anything is opened. What `check` opens is
/// dropped at its end.
pub fn run_stage<P>(
    args: &StageArgs,
    times: StopTimes,
    sections: &[Section<'_>],
    read: impl FnOnce(SettingsTree) -> anyhow::Result<P>,
    check: impl AsyncFnOnce(&P) -> anyhow::Result<()>,
    work: impl AsyncFnOnce(P, Shutdown) -> anyhow::Result<()>,
) -> ExitCode {
    if args.is_ready {
        return crate::code(args.check_ready());
    }
    let plan = match checked_tree(&args.config, sections).and_then(read) {
        Ok(plan) => plan,
        Err(error) => return crate::code(Err(error)),
    };
    if args.check {
        return crate::run(|_| async move {
            check(&plan).await?;
            args.print_valid();
            Ok(())
        });
    }
    let _logs = args.start_logs();
    crate::run_service(times, |shutdown| async move { work(plan, shutdown).await })
}

/// Does `work` with an open queue, and winds down however it ends. The work hands over its
/// reporter as soon as it has one.
///
/// # Errors
/// Those of the work.
pub async fn with_queue(
    queue: &dyn Lifecycle,
    shutdown: &Shutdown,
    work: impl AsyncFnOnce(&mut Option<ProcessReporter>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reporter = None;
    let result = work(&mut reporter).await;
    wind_down(queue, reporter.as_ref(), result.is_err(), shutdown).await;
    result
}

/// Runs until draining begins.
///
/// # Errors
/// If the queue can't be trusted any more, or a critical task ended on its own.
pub async fn until_stopped(
    queue: &Arc<dyn Lifecycle>,
    work: StageWork,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let readiness_too = readiness.clone();
    shutdown.spawn_detached(async move {
        match work {
            StageWork::Accepting(intake) => ready_to_accept(readiness_too, intake).await,
            StageWork::Delivering(source) => ready_to_deliver(readiness_too, source).await,
        }
    });
    shutdown.spawn_detached(gauges::show_queue(Arc::clone(queue)));
    let draining = shutdown.draining();
    tokio::select! {
        // The end of the queue is the cause of a task's end, and says more.
        biased;
        () = draining.cancelled() => tracing::info!("stopping: what is in flight is finished first, and webhooks are accepted until then"),
        why = queue.failed() => {
            readiness.set(Some(format!("the queue can't be trusted any more ({why})").into()));
            bail!("the queue can't be trusted any more ({why}); restart to begin a new file, then `fluent-webhooks salvage` the old one");
        }
        task = shutdown.critical_task_ended() => {
            readiness.set(Some(format!("{task} ended").into()));
            bail!("{task} ended, and nobody asked this process to stop: it ends, so that it is started anew (the log says why)");
        }
    }
    Ok(())
}

/// Finishes work in flight, writes the process's last report, and closes the queue. A process
/// that `failed` writes no last report, so that it is missed.
async fn wind_down(
    queue: &dyn Lifecycle,
    reporter: Option<&ProcessReporter>,
    failed: bool,
    shutdown: &Shutdown,
) {
    shutdown.finish().await;
    if let Some(reporter) = reporter.filter(|_| !failed) {
        reporter.close().await;
    }
    // Deliveries that are not given back are durable, and come again when their leases run out.
    if timeout(shutdown.remaining(), queue.close()).await.is_err() {
        tracing::warn!(
            "the queue was not closed in time: what is given back late comes by its lease"
        );
    }
    tracing::info!("stopped");
}

async fn ready_to_accept(readiness: Readiness, intake: Arc<dyn Intake>) {
    loop {
        readiness.set(intake.impediment());
        sleep(READY_EVERY).await;
    }
}

async fn ready_to_deliver(readiness: Readiness, source: Arc<dyn Source>) {
    let mut was_ready = true;
    loop {
        let probed = timeout(PROBE_WITHIN, source.probe())
            .await
            .unwrap_or_else(|_| Err(no_answer()));
        match &probed {
            Err(error) if was_ready => {
                tracing::warn!(error = %ErrorChain(error), "not ready: deliveries can't be fetched and settled");
            }
            Ok(()) if !was_ready => tracing::info!("ready: deliveries can be fetched and settled"),
            _ => {}
        }
        was_ready = probed.is_ok();
        let impediment = probed
            .err()
            .map(|error| ErrorChain(&error).to_string().into());
        readiness.set(impediment);
        sleep(PROBE_EVERY).await;
    }
}

/// The line of a process that says why it is not ready. One of an earlier version says nothing.
fn reason(body: &str) -> &str {
    match body.trim() {
        "" => "not ready",
        why => why,
    }
}

fn no_answer() -> QueueError {
    QueueError::unavailable("asking the queue", "no answer in time")
}
