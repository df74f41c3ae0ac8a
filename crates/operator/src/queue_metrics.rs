//! Metrics of the queue's servers and stores, updated for as long as the process lives.

use std::collections::BTreeSet;
use std::time::Duration;

use queue::seen_events::forget_old_seen;
use queue::{ServerState, StoresHealth};
use settings::QueueSettings;
use telemetry::metrics;
use tokio::time::sleep;

use crate::{Operator, silence, status};

/// Interval between two updates: each costs the servers a question for each stream.
const LOOK_EVERY: Duration = Duration::from_secs(30);

impl Operator {
    /// Updates the metrics of servers, usage and silent events again and again.
    pub async fn watch_machinery(self) {
        let mut silent = BTreeSet::new();
        loop {
            if let Ok((health, window)) = self.machinery().await {
                show(&health, window);
            }
            silence::show(self.stores().facts(), &mut silent).await;
            metrics::JOBS_STUCK.set(self.stuck_jobs().await.len() as f64, []);
            // A failure is no problem: the next round tries again.
            let _ = forget_old_seen(self.stores().facts()).await;
            sleep(LOOK_EVERY).await;
        }
    }

    /// The health of servers and stores, and the dedup window of the settings.
    async fn machinery(&self) -> anyhow::Result<(StoresHealth, Duration)> {
        let routes = self.stores().routes().await?;
        let tree = self.settings()?;
        let window = match tree.queue()? {
            QueueSettings::Embedded(settings) => settings.dedup_window,
            QueueSettings::JetStream(settings) => settings.dedup_window,
        };
        let health = status::health(self.stores(), &routes, &tree).await?;
        Ok((health, window))
    }
}

fn show(health: &StoresHealth, dedup_window: Duration) {
    let known_for = health
        .same_ids_known_for
        .map_or(dedup_window, |known_for| known_for.min(dedup_window));
    metrics::SAME_ID_WINDOW.set(known_for.as_secs_f64(), []);
    let count = |is: fn(&ServerState) -> bool| {
        health
            .servers
            .iter()
            .filter(|server| is(&server.state))
            .count() as f64
    };
    metrics::QUEUE_SERVERS.set(count(|state| *state == ServerState::Well), ["well".into()]);
    metrics::QUEUE_SERVERS.set(
        count(|state| matches!(state, ServerState::Behind(_))),
        ["behind".into()],
    );
    metrics::QUEUE_SERVERS.set(count(|state| *state == ServerState::Gone), ["gone".into()]);
    for usage in &health.usage {
        if let Some(share) = usage.share() {
            metrics::QUEUE_USAGE.set(share, [usage.name.clone().into()]);
        }
    }
}
