//! Notes gaps of the history as facts, which outlive this process.

use std::sync::Arc;
use std::time::Duration;

use queue::note_history_gap;
use tokio::time::{Instant, sleep};

use crate::history_outage::HistoryOutage;
use crate::shared::Shared;
use crate::stores::JetStreamStores;

/// Interval at which a gap is noted again while it lasts, or could not be noted.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// Longest time for which a closing queue still notes gaps, of what is settled meanwhile.
const CLOSING_WITHIN: Duration = Duration::from_secs(8);

/// Interval at which a closing queue looks whether anything is still settled.
const CLOSING_EVERY: Duration = Duration::from_millis(100);

/// Notes gaps until the queue closes. What could not be noted is noted as soon as it can be.
pub(crate) async fn note_gaps(shared: Arc<Shared>) {
    let outage = Arc::clone(&shared.attempts.outage);
    let facts = JetStreamStores(Arc::clone(&shared));
    loop {
        tokio::select! {
            () = shared.closing.cancelled() => break,
            () = outage.changed.notified() => {}
            () = sleep(NOTE_EVERY), if !outage.is_idle() => {}
        }
        note(&outage, &facts).await;
    }
    // Others still settle what they have.
    let began = Instant::now();
    while !outage.is_idle() && began.elapsed() < CLOSING_WITHIN {
        note(&outage, &facts).await;
        if shared.tasks.len() <= 1 {
            break;
        }
        sleep(CLOSING_EVERY).await;
    }
}

async fn note(outage: &HistoryOutage, facts: &JetStreamStores) {
    let writer = format!("{:016x}", facts.0.instance);
    let (is_open, routes) = outage.known();
    for (route, known) in routes {
        let now = facts.0.monitor.servers_now();
        let gap = known.gap(is_open.then_some(now), &writer);
        let noted = match gap {
            None if !known.is_noted => Ok(()),
            gap => note_history_gap(facts, &route, &writer, gap.as_ref()).await,
        };
        match noted {
            Ok(()) => outage.noted(&route, is_open, &known),
            Err(error) => {
                tracing::debug!(route, %error, "a gap of the history is not noted, this time");
            }
        }
    }
}
