//! The common part of the services among the commands.

use std::process::ExitCode;
use std::time::Duration;

use process::{Readiness, Shutdown, StageArgs, StopTimes};
use settings::SettingsTree;
use tokio::time::sleep;

/// Interval at which the queue is checked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The arguments of a program that is only one of these services.
pub(crate) fn args() -> StageArgs {
    #[derive(clap::Parser)]
    #[command(version)]
    struct Args {
        #[command(flatten)]
        stage: StageArgs,
    }
    <Args as clap::Parser>::parse().stage
}

/// Reads a plan from the settings, and checks it or runs it, as the arguments say.
pub(crate) fn run<P>(
    args: &StageArgs,
    read: impl FnOnce(SettingsTree) -> anyhow::Result<P>,
    check: impl FnOnce(&P) -> anyhow::Result<()>,
    work: impl AsyncFnOnce(P, Shutdown) -> anyhow::Result<()>,
) -> ExitCode {
    if args.is_ready {
        return process::code(args.check_ready());
    }
    let plan = match process::tree(&args.config).and_then(read) {
        Ok(plan) => plan,
        Err(error) => return process::code(Err(error)),
    };
    if args.check {
        return process::code(check(&plan).map(|()| args.print_valid()));
    }
    let _logs = args.start_logs();
    process::run_service(StopTimes::DELIVERING, |shutdown| async move {
        work(plan, shutdown).await
    })
}

/// Updates the readiness until the future is dropped.
pub(crate) async fn be_ready(readiness: &Readiness, is_well: impl AsyncFn() -> bool) {
    loop {
        readiness.set(is_well().await);
        sleep(LOOK_EVERY).await;
    }
}
