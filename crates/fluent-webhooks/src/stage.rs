//! The common part of the services among the commands.

use std::time::Duration;

use process::{Readiness, StageArgs};
use queue::QueueError;
use telemetry::ErrorChain;
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

/// Updates the readiness until the future is dropped: `ask` asks the queue something.
pub(crate) async fn be_ready<T>(
    readiness: &Readiness,
    ask: impl AsyncFn() -> Result<T, QueueError>,
) {
    loop {
        let asked = ask().await.err();
        readiness.set(asked.map(|error| ErrorChain(&error).to_string().into()));
        sleep(LOOK_EVERY).await;
    }
}
