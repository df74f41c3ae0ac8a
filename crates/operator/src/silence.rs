//! Kinds of events that came on each of the last seven days at this time, and do not come
//! today.

use std::collections::{BTreeMap, BTreeSet};

use event_model::{Clock, SystemClock, Timestamp};
use queue::FactStore;
use queue::seen_events::seen_by_all;
use telemetry::metrics;

use crate::status_lines::{SilentEvent, plain};

/// The kinds of events that are silent now. None if the facts can't be read.
pub(crate) async fn silent(facts: &dyn FactStore, now: Timestamp) -> Vec<SilentEvent> {
    let seen = seen_by_all(facts).await.unwrap_or_default();
    let silent = seen
        .silent(now)
        .into_iter()
        .map(|(kind, last_at)| SilentEvent {
            account: kind.account,
            environment: kind.environment,
            name: plain(&kind.name),
            last_at,
        });
    silent.collect()
}

/// Sets the number of silent kinds for each account, and 0 for one that has none any more.
pub(crate) async fn show(facts: &dyn FactStore, shown: &mut BTreeSet<(String, String)>) {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    for SilentEvent {
        environment,
        account,
        ..
    } in silent(facts, SystemClock.now()).await
    {
        *counts.entry((environment, account)).or_default() += 1;
    }
    shown.extend(counts.keys().cloned());
    for whose in shown.iter() {
        let count = counts.get(whose).copied().unwrap_or_default();
        metrics::SILENT.set(
            f64::from(count),
            [whose.0.clone().into(), whose.1.clone().into()],
        );
    }
}
