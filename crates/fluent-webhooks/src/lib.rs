//! All stages in one process, and every command.
//!
//! A binary with dispatchers of one's own is three lines:
//!
//! ```no_run
//! # type MyDispatcher = dispatch_log::LogDispatcher;
//! fn main() -> std::process::ExitCode {
//!     fluent_webhooks::main(fluent_webhooks::registry().with::<MyDispatcher>())
//! }
//! ```
//!
//! Start reading at [`main`], then `serve.rs`.

mod cli;
mod serve;

mod api;
mod connecting;
mod json;
mod local_commands;
mod progress;
mod reconciling;
mod sample_event;
mod test_sender;
mod when;

mod commands;
mod demo;
mod open;
mod output;
mod stage;

use std::process::ExitCode;

use dispatch::Registry;

pub use dispatch;

/// The dispatchers that come with the product.
pub fn registry() -> Registry {
    dispatcher::registry()
}

/// Runs the command that the arguments name, with these dispatchers.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 78 settings.
pub fn main(registry: Registry) -> ExitCode {
    private_files::set_umask();
    match local_commands::parse() {
        Ok(cli) => cli.run(&registry),
        Err(code) => code,
    }
}

/// Runs the reconciler as a process of its own.
pub fn reconciler_main() -> ExitCode {
    commands::reconciler::run(&stage::args())
}

/// Runs the operator's API as a process of its own.
pub fn operator_main() -> ExitCode {
    commands::operate::run(&stage::args())
}
