//! The common part of the services among the commands.

use std::time::Duration;

use process::{Readiness, StageArgs};
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

/// Updates the readiness until the future is dropped.
pub(crate) async fn be_ready(readiness: &Readiness, is_well: impl AsyncFn() -> bool) {
    loop {
        readiness.set(is_well().await);
        sleep(LOOK_EVERY).await;
    }
}
