//! What every binary's `main` does: a runtime, signals, stopping in two steps,
//! health, and exit codes.
//!
//! Start reading at [`run`].

mod exit;
mod gauges;
mod observe;
mod pages;
mod shutdown;
mod stage;
mod tls;

use std::process::ExitCode;

pub use mimalloc::MiMalloc as Allocator;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use crate::exit::{FAILED, SETTINGS, code};
pub use crate::gauges::{HasStores, show_routes};
pub use crate::observe::Observed;
pub use crate::pages::Readiness;
pub use crate::shutdown::Shutdown;
pub use crate::stage::{StageArgs, Work, tree, until_stopped, wind_down};
pub use crate::tls::Certificate;

/// Runs `work` until it ends or a signal says so, then waits for what is in
/// flight. Errors are printed by [`code`].
pub fn run<F>(work: impl FnOnce(Shutdown) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    quiet_panics();
    raise_descriptors();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return code(Err(error.into())),
    };
    let result = runtime.block_on(async {
        let shutdown = Shutdown::on_signal()?;
        let result = work(shutdown.clone()).await;
        shutdown.finish().await;
        shutdown.say_last().await;
        result
    });
    code(result)
}

/// As many descriptors as the system lets us have: a connection is one.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Says where a panic was and not what it said: messages of failed
/// expectations show values, which may be an event's.
#[expect(clippy::print_stderr, reason = "the last words of a command without a log")]
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        match tracing::enabled!(tracing::Level::ERROR) {
            true => tracing::error!(place, "panicked"),
            false => eprintln!("error: panicked at {place}; please report it"),
        }
    }));
}
