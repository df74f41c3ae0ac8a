//! The frame of every program: a runtime, signals, stopping in steps, health, and exit codes.
//!
//! Start reading at [`run`].

mod client_network;
mod connection_permits;
mod exit;
mod gauges;
mod limits;
mod liveness;
mod observe;
mod pages;
mod process_report;
mod refusal_log;
mod route_digests;
mod shares;
mod shutdown;
mod socket;
mod stage;
mod tls;

use std::process::ExitCode;

pub use mimalloc::MiMalloc as Allocator;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use crate::client_network::{ClientNetwork, ProvenSources};
pub use crate::connection_permits::{ConnectionPermit, ConnectionPermits, ConnectionStage};
pub use crate::exit::{
    FAILED, NEEDED, NeedsAttention, SETTINGS, USAGE, WrongArgument, code, print_errors_as_json,
};
pub use crate::gauges::show_routes;
pub use crate::limits::ProcessLimits;
pub use crate::liveness::{has_died, with_deaths};
pub use crate::observe::ObservabilitySettings;
pub use crate::pages::{Readiness, STOPPING};
pub use crate::process_report::{AddToReport, ProcessReporter, host_name, process_id};
pub use crate::refusal_log::RefusalLog;
pub use crate::route_digests::{RouteDigests, changed_parts, route_digests};
pub use crate::shares::{ShareDenied, SourceShares};
pub use crate::shutdown::{Shutdown, StopTimes};
pub use crate::socket::{inherited_listener, listen};
pub use crate::stage::{
    StageArgs, StageWork, checked_tree, run_stage, tree, unchecked_tree, until_stopped, with_queue,
};
pub use crate::tls::Certificate;

/// Runs a command until it ends or a signal stops it. Errors are printed by [`code`].
pub fn run<F>(work: impl FnOnce(Shutdown) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    drive(|| Shutdown::on_signal(StopTimes::DELIVERING), work)
}

/// Runs a service until it ends or a signal stops it, and then goes through the steps of a stop.
/// SIGHUP does not end it. Errors are printed by [`code`].
pub fn run_service<F>(times: StopTimes, work: impl FnOnce(Shutdown) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    drive(
        || {
            let shutdown = Shutdown::on_signal(times)?;
            shutdown.spawn_detached(hear_hangups(signal(SignalKind::hangup())?));
            Ok(shutdown)
        },
        work,
    )
}

fn drive<F>(
    shutdown: impl FnOnce() -> std::io::Result<Shutdown>,
    work: impl FnOnce(Shutdown) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    quiet_panics();
    private_files::set_umask();
    raise_descriptors();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return code(Err(error.into())),
    };
    let result = runtime.block_on(async {
        let shutdown = shutdown()?;
        let result = work(shutdown.clone()).await;
        shutdown.finish().await;
        shutdown.exit().await;
        result
    });
    // A task that blocks, in a resolver or a handler, must not hold up the end.
    runtime.shutdown_background();
    code(result)
}

/// Logs and ignores SIGHUP: a closed terminal, or `kill -HUP` out of habit after a change.
async fn hear_hangups(mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        tracing::warn!("SIGHUP: settings, keys and templates are not read again: restart");
    }
}

/// Raises the limit of descriptors as far as the system allows: each connection needs one.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// Logs the place of a panic and not its message: messages of failed expectations show values,
/// which may be an event's.
#[expect(
    clippy::print_stderr,
    reason = "the last words of a command without a log"
)]
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        match tracing::enabled!(tracing::Level::ERROR) {
            true => tracing::error!(place, "panicked"),
            false => eprintln!("error: panicked at {place}; please report it"),
        }
    }));
}
