//! The progress of long work on a terminal.

use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use proto::v1;
use tonic::{Response, Status, Streaming};

use crate::cli::CommonArgs;
use crate::json::BulkResult;
use crate::output;

/// A message in the stream of answers of a long call.
pub(crate) trait ProgressMessage {
    fn progress(self) -> Option<v1::BulkProgress>;
}

macro_rules! tells {
    ($($message:ident,)*) => {
        $(impl ProgressMessage for v1::$message {
            fn progress(self) -> Option<v1::BulkProgress> {
                self.progress
            }
        })*
    };
}

tells! { RedriveDeadLettersResponse, DiscardDeadLettersResponse, RecheckRefusedResponse, ReplayResponse, }

/// Shows the progress of a long call, and returns its last message.
pub(crate) async fn follow<T: ProgressMessage>(
    common: &CommonArgs,
    answer: Result<Response<Streaming<T>>, Status>,
    doing: &'static str,
) -> anyhow::Result<v1::BulkProgress> {
    let mut tallies = output::answered(answer)?;
    let bar = bar(common, doing);
    let mut last = v1::BulkProgress::default();
    loop {
        match tallies.message().await {
            Ok(Some(message)) => last = message.progress().unwrap_or_default(),
            Ok(None) => break,
            Err(status) => {
                bar.abandon();
                bail!("{}, after {}", output::said(&status), last.succeeded);
            }
        }
        if last.total > 0 {
            set_length(&bar, last.total);
        }
        bar.set_position(last.succeeded + last.failed + last.skipped + last.unknown);
    }
    bar.finish_and_clear();
    Ok(last)
}

/// A progress bar on standard error, hidden for `--json` and without a terminal.
pub(crate) fn bar(common: &CommonArgs, doing: &'static str) -> ProgressBar {
    if common.json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length().with_message(doing);
    style(&bar, COUNTER);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar, where it is known how much there is.
const BAR: &str = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";

/// What is shown where that is not known.
const COUNTER: &str = "{msg} {spinner} {human_pos}";

/// Sets how much there is.
pub(crate) fn set_length(bar: &ProgressBar, length: u64) {
    if bar.length().is_none() {
        style(bar, BAR);
    }
    bar.set_length(length);
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// Prints the result of a long call.
///
/// # Errors
/// If some items could not be changed.
pub(crate) fn ended(
    common: &CommonArgs,
    counts: &v1::BulkProgress,
    what: &str,
    place: &str,
    hint: &str,
) -> anyhow::Result<()> {
    if common.json {
        output::json(&BulkResult::new(what, counts))?;
    } else {
        let skipped = if counts.skipped > 0 {
            format!(", {} left out", counts.skipped)
        } else {
            String::new()
        };
        let succeeded = counts.succeeded;
        output::line(format!("{succeeded} {what}{skipped}, {place}{hint}"));
    }
    if counts.failed > 0 {
        bail!(
            "{} could not be {what}, and stay as they were; the first: {}",
            counts.failed,
            counts.first_error
        );
    }
    Ok(())
}
