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
            bar.set_length(last.total);
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
    let bar = ProgressBar::new(0).with_message(doing);
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
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
