//! The record of who sent genuine webhooks lately, kept over a restart: if a key changes while a
//! gateway restarts, what is refused from a known sender still pages.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Clock, SystemClock, Timestamp};
use process::{ClientNetwork, ProvenSources, Shutdown};
use queue::known_senders::{KnownSender, known_senders, set_known_senders};
use queue::{FactAccess, FactStore, QueueError};
use telemetry::ErrorChain;
use tokio::time::{sleep, timeout};

/// Time between two looks at the record.
const EVERY: Duration = Duration::from_mins(1);

/// Longest time that a stop waits for the record: less than connections are given.
const LAST_WITHIN: Duration = Duration::from_millis(200);

/// Age at which the time of a sender is written anew: an hour does not matter within a day.
const WRITTEN_AFTER: Duration = Duration::from_hours(1);

/// Reads the record, and then keeps it up to date.
pub(crate) fn keep(proven: ProvenSources, facts: Arc<dyn FactAccess>, shutdown: &Shutdown) {
    let closing = shutdown.closing();
    shutdown.spawn_intake(async move {
        let keeping = async {
            loop {
                if let Err(error) = exchange(&proven, facts.facts(), SystemClock.now()).await {
                    tracing::debug!(error = %ErrorChain(&error), "who sends is not written down");
                }
                sleep(EVERY).await;
            }
        };
        closing.run_until_cancelled(keeping).await;
        // Who became known since the last time is known after a restart, too.
        let last = exchange(&proven, facts.facts(), SystemClock.now());
        if !matches!(timeout(LAST_WITHIN, last).await, Ok(Ok(()))) {
            tracing::debug!("who sent last is not written down");
        }
    });
}

/// Learns what other gateways know, or this one knew before it started, and writes what is new. If
/// another gateway writes meanwhile, the next time does it.
async fn exchange(
    proven: &ProvenSources,
    facts: &dyn FactStore,
    now: Timestamp,
) -> Result<(), QueueError> {
    let (written, version) = known_senders(facts).await?;
    for sender in &written {
        let Some(source) = ClientNetwork::named(&sender.network) else {
            continue;
        };
        // A clock that was ahead makes nobody known for longer.
        let age = now.duration_since(sender.at).unsigned_abs();
        proven.remember(source, age);
    }
    let known: Vec<KnownSender> = proven
        .known()
        .into_iter()
        .map(|(source, age)| KnownSender {
            network: source.to_string(),
            at: now.checked_sub(age).unwrap_or(now),
        })
        .collect();
    let is_written = |sender: &KnownSender| {
        let is_this = |it: &&KnownSender| it.network == sender.network;
        let found = written.iter().find(is_this);
        found.is_some_and(|it| {
            Duration::try_from(sender.at.duration_since(it.at))
                .is_ok_and(|newer| newer < WRITTEN_AFTER)
                || it.at >= sender.at
        })
    };
    if known.iter().all(is_written) {
        return Ok(());
    }
    set_known_senders(facts, known, version).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use queue_embedded::{Embedded, Options};

    use super::*;

    #[tokio::test]
    async fn a_gateway_that_has_just_started_knows_who_sent_before() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path().join("queue.db"));
        let queue = Embedded::open(options, Arc::new(SystemClock)).unwrap();
        let source = |text: &str| ClientNetwork::from(text.parse::<IpAddr>().unwrap());
        let now = SystemClock.now();
        let before = ProvenSources::default();
        before.note(source("192.0.2.1"));
        before.note(source("2001:db8:1:2::3"));
        exchange(&before, queue.facts(), now).await.unwrap();
        let beside = ProvenSources::default();
        beside.note(source("192.0.2.9"));
        exchange(&beside, queue.facts(), now).await.unwrap();

        let after = ProvenSources::default();
        exchange(&after, queue.facts(), now).await.unwrap();
        for known in ["192.0.2.1", "2001:db8:1:2::", "192.0.2.9"] {
            assert!(after.has_known(source(known)), "{known}");
            // It takes no room from others by what a store says.
            assert!(!after.has(source(known)), "{known}");
        }
        assert!(!after.has_known(source("192.0.2.2")));
        let late = ProvenSources::default();
        let tomorrow = now.checked_add(Duration::from_hours(25)).unwrap();
        exchange(&late, queue.facts(), tomorrow).await.unwrap();
        assert!(!late.has_known(source("192.0.2.1")));
        let (written, version) = known_senders(queue.facts()).await.unwrap();
        assert_eq!(written.len(), 3);
        exchange(&after, queue.facts(), now).await.unwrap();
        let (_, same) = known_senders(queue.facts()).await.unwrap();
        assert_eq!(same, version, "nothing new is not written");
    }
}
