//! The time to find out what happened to an order, with a million events stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::SystemClock;
use history_index::Index;
use queue::{Lifecycle, Stores};
use queue_embedded::SqliteStores;
use queue_nats::Options;

use crate::report::Report;
use crate::stages::{backlog, disk, events, runtime};

/// Longest time for an answer.
const WANTED: Duration = Duration::from_secs(1);

/// Measures the queue's file, read beside the process that serves it.
pub(crate) fn embedded(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(disk()?)?;
    runtime()?.block_on(async {
        let queue = backlog(folder.path(), count).await?;
        let stores = SqliteStores::open(&folder.path().join("queue.db"), None)?;
        report.time(
            &format!("events show, {count} events kept"),
            found(&stores, count).await?,
            WANTED,
        );
        queue.close().await;
        Ok(())
    })
}

/// Measures a cluster, with an index that begins empty.
pub(crate) fn on_nats(
    report: &mut Report,
    options: &Options,
    publish: impl FnOnce(usize) -> anyhow::Result<()>,
    count: usize,
) -> anyhow::Result<()> {
    publish(count)?;
    let folder = tempfile::tempdir_in(disk()?)?;
    let index = Index::open(&folder.path().join("index.db"))?;
    let options = Options {
        index: Some(Arc::new(index)),
        ..options.clone()
    };
    runtime()?.block_on(async {
        let stores = queue_nats::open_stores(&options, Arc::new(SystemClock)).await?;
        let began = Instant::now();
        stores.history().catch_up().await?;
        report.time(
            &format!("index of {count} events, from nothing"),
            began.elapsed(),
            Duration::MAX,
        );
        report.time(
            &format!("events show on a cluster, {count} events kept"),
            found(&*stores, count).await?,
            WANTED,
        );
        Ok(())
    })
}

/// The longest of several searches, each for another order.
async fn found(stores: &dyn Stores, count: usize) -> anyhow::Result<Duration> {
    let mut longest = Duration::ZERO;
    for number in [0, count / 2, count - 1] {
        let Some(event) = events(number + 1).nth(number) else {
            continue;
        };
        let reference = event.fields().entity_ref.clone().unwrap_or_default();
        let began = Instant::now();
        let stories = stores.history().find(&reference, 20).await?;
        longest = longest.max(began.elapsed());
        anyhow::ensure!(
            stories.iter().any(|story| story.id == event.id()),
            "{reference} is not found"
        );
    }
    Ok(longest)
}
