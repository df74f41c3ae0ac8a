//! The command line: every command with its arguments.

#[cfg(test)]
mod documented;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dispatch::Registry;
use process::Shutdown;

use crate::api::ServerArgs;
use crate::commands::letters::LetterChoice;
use crate::{commands, demo, local_commands, output, serve};

/// Receives Fluent Commerce's webhooks, verifies them, makes them durable, and
/// delivers each to the systems that need it.
#[derive(Debug, Parser)]
#[command(name = "fluent-webhooks", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The arguments of every command that reads settings.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonArgs {
    /// The settings file
    #[arg(long, default_value = "config/application.yml", global = true)]
    pub(crate) config: PathBuf,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole pipeline at work, on real signed webhooks
    Demo(demo::Args),
    /// Receive, queue and deliver, in one process
    Serve {
        #[command(flatten)]
        common: CommonArgs,
        /// Log at this level, in the syntax of RUST_LOG
        #[arg(long, default_value = "info")]
        log: String,
    },
    /// Check the settings, and say in words what would run
    Check {
        #[command(flatten)]
        common: CommonArgs,
        /// Compare the routes with those that the queue knows: what a restart
        /// with these settings would begin, leave behind and match anew
        #[arg(long)]
        against: bool,
        /// Take routes whose dispatcher this binary does not have as another's
        #[arg(long)]
        partly: bool,
        /// Log in once at the API of each account that has one, and say what Fluent
        /// answered
        #[arg(long, conflicts_with = "against")]
        online: bool,
    },
    /// Write a settings file to begin with
    Init(commands::init::Args),
    /// Make certificates for the operator's API: an authority, the server's, and a caller's
    Certificate(commands::certificate::Args),
    /// Say which key signed a webhook, or why none did
    Verify {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        args: commands::verify::Args,
    },
    /// Say at a glance whether it is well: exit code 0 if it is, 3 if somebody is needed
    /// now, 1 if it could not be asked
    Status {
        #[command(flatten)]
        common: CommonArgs,
        /// Exit with 3 also for what can wait until there is time
        #[arg(long)]
        strict: bool,
    },
    /// The processes of the product, as they describe themselves
    Processes {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::processes::Command,
    },
    /// Attempts that have ended, the newest first; `retry` tries one event now
    Deliveries {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        args: commands::deliveries::Args,
    },
    /// Show attempts as they end, until told to stop
    Tail {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        filter: commands::deliveries::Filter,
    },
    /// What happened to events
    Events {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::events::Command,
    },
    /// Deliveries that no further attempt can help
    DeadLetters {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::letters::Command,
    },
    /// Events that no route matched
    Unrouted {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::letters::Command,
    },
    /// Genuine webhooks that are not events
    Quarantine {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::quarantine::Command,
    },
    /// Webhooks of listed accounts that were refused, perhaps wrongly
    Refused {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::refused::Command,
    },
    /// Deliver what was received in a time to one route once more
    Replay {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        args: commands::replay::Args,
    },
    /// Bulk acts that a server works off: see, pause, resume and cancel them
    Jobs {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::jobs::Command,
    },
    /// Find what Fluent logged and never came, and admit it
    Reconcile {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        args: commands::reconcile::Args,
    },
    /// Reconcile again and again, as a service beside a cluster
    Reconciler(process::StageArgs),
    /// What people have changed, the newest first
    Audit {
        #[command(flatten)]
        common: CommonArgs,
        /// At most so many, up to 1000
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Serve the operator's API, beside a cluster
    Operator(process::StageArgs),
    /// Where every route stands
    Routes {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::routes::Command,
    },
    /// Bring over what a queue file holds that was set aside; not while serving
    Salvage {
        #[command(flatten)]
        common: CommonArgs,
        /// The file that was set aside
        file: PathBuf,
    },
    /// Copy the queue's file and the audit log to a new folder, beside a running server
    Backup {
        #[command(flatten)]
        common: CommonArgs,
        /// The folder; it is made, and must be empty if it is there
        to: PathBuf,
    },
    /// The streams of a NATS cluster: make them, or compare them with what they are to be
    Cluster {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::cluster::Command,
    },
    /// A gateway's spool: look into it, or empty one whose gateway is gone
    Spool {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: commands::spool::Command,
    },
    /// Print what makes a shell complete these commands: `source <(fluent-webhooks
    /// completion bash)`
    Completion {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// Print the JSON Schema of the settings
    #[command(hide = true)]
    Schema,
}

impl Cli {
    pub(crate) fn run(self, registry: &Registry) -> ExitCode {
        match self.command {
            Command::Demo(args) => demo::run(args),
            Command::Serve { common, log } => serve::run(&common, &log, registry),
            Command::Check {
                common,
                against: false,
                partly,
                online,
            } => asked(
                |_| async move { commands::check::run(&common, partly, online, registry).await },
            ),
            Command::Check {
                common,
                against: true,
                ..
            } => asked(|_| commands::changes::run(common)),
            Command::Init(args) => process::code(commands::init::run(&args, registry)),
            Command::Certificate(args) => process::code(commands::certificate::run(&args)),
            Command::Verify { common, args } => commands::verify::run(&common, &args),
            // That one goes on until a signal, which is no failure.
            Command::Events { common, command } if command.follows() => {
                process::run(|shutdown| commands::events::run(common, command, shutdown))
            }
            Command::Events { common, command } => {
                asked(|shutdown| commands::events::run(common, command, shutdown))
            }
            Command::Status { common, strict } => {
                asked(|shutdown| commands::status::run(common, strict, shutdown))
            }
            Command::Processes { common, command } => {
                asked(|_| commands::processes::run(common, command))
            }
            Command::Deliveries { common, args } => {
                asked(|shutdown| commands::deliveries::run(common, args, shutdown))
            }
            Command::Tail { common, filter } => {
                process::run(|shutdown| commands::deliveries::tail(common, filter, shutdown))
            }
            Command::DeadLetters { common, command } => asked(|shutdown| {
                commands::letters::run(common, command, LetterChoice::Dead, shutdown)
            }),
            Command::Unrouted { common, command } => asked(|shutdown| {
                commands::letters::run(common, command, LetterChoice::Unrouted, shutdown)
            }),
            Command::Quarantine { common, command } => {
                asked(|shutdown| commands::quarantine::run(common, command, shutdown))
            }
            Command::Refused { common, command } => {
                asked(|shutdown| commands::refused::run(common, command, shutdown))
            }
            Command::Replay { common, args } => {
                asked(|shutdown| commands::replay::run(common, args, shutdown))
            }
            Command::Jobs { common, command } => {
                asked(|shutdown| commands::jobs::run(common, command, shutdown))
            }
            Command::Reconcile { common, args } => {
                asked(|_| commands::reconcile::run(common, args))
            }
            Command::Reconciler(args) => commands::reconciler::run(&args),
            Command::Audit { common, limit } => {
                asked(|shutdown| commands::audit::run(common, limit, shutdown))
            }
            Command::Operator(args) => commands::operate::run(&args),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(
                    shell,
                    &mut local_commands::command_line(),
                    "fluent-webhooks",
                    &mut script,
                );
                // A shell script is printed as it is, without the replacement of unsafe
                // characters.
                output::bytes(&script);
                ExitCode::SUCCESS
            }
            Command::Routes { common, command } => {
                asked(|shutdown| commands::routes::run(common, command, registry, shutdown))
            }
            Command::Salvage { common, file } => asked(|_| commands::salvage::run(common, file)),
            Command::Backup { common, to } => process::code(commands::backup::run(&common, &to)),
            Command::Cluster { common, command } => {
                asked(|_| commands::cluster::run(common, command))
            }
            Command::Spool { common, command } => asked(|_| commands::spool::run(common, command)),
            Command::Schema => process::code(commands::schema::run(registry)),
        }
    }
}

/// Runs a command that a person waits for, so that a signal ends it at once.
fn asked<F>(work: impl FnOnce(Shutdown) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    process::run(|shutdown| async move {
        let draining = shutdown.draining();
        let ended = draining.run_until_cancelled(work(shutdown)).await;
        ended.unwrap_or_else(|| Err(anyhow::anyhow!("ended by a signal: what was done stays so")))
    })
}
