//! The state of a process, its queue and its routes, read every few seconds into metrics.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use event_model::{Clock, SystemClock, Timestamp};
use queue::{BreakerState, Lifecycle, Position, QueueHealth, RouteState, Stores, UNROUTED};
use telemetry::{ErrorChain, Label, metrics};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::Readiness;

/// Interval between two readings of a process and its queue.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Interval between two readings of the routes: each costs the queue a few questions a route.
const ROUTES_EVERY: Duration = Duration::from_secs(15);

/// Updates the metrics of this process for as long as it lives.
pub(crate) async fn show_process(readiness: Readiness) {
    metrics::STARTED_AT.set(seconds(SystemClock.now()), []);
    loop {
        metrics::READY.set(as_gauge(readiness.get()), []);
        show_runtime();
        sleep(LOOK_EVERY).await;
    }
}

/// Updates the metrics of its queue for as long as the process lives.
pub(crate) async fn show_queue(queue: Arc<dyn Lifecycle>) {
    let mut before = QueueHealth::default();
    loop {
        let health = queue.health().await;
        show_health(&health, SystemClock.now());
        metrics::FORGED.add(health.forged.saturating_sub(before.forged), []);
        metrics::KEY_UNKNOWN.add(health.key_unknown.saturating_sub(before.key_unknown), []);
        before = health;
        sleep(LOOK_EVERY).await;
    }
}

fn show_health(health: &QueueHealth, now: Timestamp) {
    metrics::QUEUE_REACHABLE.set(as_gauge(health.is_reachable), []);
    if let Some(ahead) = health.clock_ahead_ms {
        metrics::CLOCK_SKEW.set(ahead as f64 / 1e3, []);
    }
    if let Some(known_for) = health.ids_known_for {
        metrics::DEDUP_WINDOW.set(known_for as f64, []);
    }
    let Some(spool) = health.spool else { return };
    metrics::SPOOL_EVENTS.set(spool.unsent as f64, []);
    metrics::SPOOL_BYTES.set(spool.bytes as f64, []);
    metrics::SPOOL_AGE.set(age(spool.oldest_unsent, now), []);
}

fn show_runtime() {
    let runtime = Handle::current().metrics();
    metrics::TASKS.set(runtime.num_alive_tasks() as f64, []);
    metrics::RUNTIME_QUEUE_DEPTH.set(runtime.global_queue_depth() as f64, []);
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|pages| pages.split(' ').nth(1)?.parse::<f64>().ok());
    if let Some(resident) = resident {
        metrics::MEMORY.set(resident * rustix::param::page_size() as f64, []);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::DESCRIPTORS.set(open.count() as f64, []);
    }
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    metrics::CPU_TIME.set(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9, []);
}

/// Updates the metrics of the named routes, or of all, for as long as the process lives. Values
/// that the queue does not report are not shown.
pub async fn show_routes(stores: Arc<dyn Stores>, named: Option<HashSet<String>>) {
    let mut has_failed = false;
    let mut shown = HashSet::new();
    loop {
        match stores.recent_routes().await {
            Ok(routes) => {
                let is_ours = |route: &&RouteState| {
                    named
                        .as_ref()
                        .is_none_or(|named| named.contains(&route.name))
                };
                let ours: Vec<_> = routes.iter().filter(is_ours).collect();
                ours.iter()
                    .for_each(|route| show_route(route, SystemClock.now()));
                let now: HashSet<_> = ours.iter().map(|route| route.name.clone()).collect();
                // A forgotten route is shown with zeros once, so that no alert goes on for it.
                shown
                    .difference(&now)
                    .for_each(|name: &String| show_route(&forgotten(name), SystemClock.now()));
                shown = now;
                has_failed = false;
            }
            Err(error) if !has_failed => {
                tracing::warn!(error = %ErrorChain(&error), "how routes stand is not known: their metrics are old");
                has_failed = true;
            }
            Err(_) => {}
        }
        // A process that runs only some routes of a cluster may not read what else is stored.
        if named.is_none() {
            show_held(&*stores).await;
        }
        sleep(ROUTES_EVERY).await;
    }
}

fn forgotten(name: &str) -> RouteState {
    RouteState {
        name: name.to_owned(),
        position: Position::START,
        oldest: None,
        behind: 0,
        kept: 0,
        waiting: 0,
        in_flight: 0,
        dead: 0,
        paused: false,
        pause: None,
        filter: None,
        working: Vec::new(),
    }
}

fn show_route(route: &RouteState, now: Timestamp) {
    let label = || [Label::from(route.name.clone())];
    for (gauge, value) in [
        (&metrics::ROUTE_BEHIND, route.behind as f64),
        (&metrics::ROUTE_WAITING, route.waiting as f64),
        (&metrics::ROUTE_IN_FLIGHT, route.in_flight as f64),
        (&metrics::ROUTE_OLDEST, age(route.oldest, now)),
        (&metrics::ROUTE_DEAD, route.dead as f64),
        (&metrics::ROUTE_PAUSED, as_gauge(route.paused)),
    ] {
        gauge.set(value, label());
    }
    // `unrouted` has no destination, so no process reports on working for it.
    if route.name != UNROUTED {
        show_process_status(route, now);
    }
}

fn show_process_status(route: &RouteState, now: Timestamp) {
    let working = || route.working.iter();
    let in_conflict = working().filter(|working| working.is_in_conflict(now));
    let asked = working()
        .map(|working| asks(working.breaker))
        .fold(0.0, f64::max);
    for (gauge, value) in [
        (&metrics::ROUTE_WORKING, route.working.len() as f64),
        (&metrics::ROUTE_BREAKER, asked),
        (
            &metrics::ROUTE_THROTTLED,
            as_gauge(working().any(|working| working.throttled)),
        ),
        (&metrics::ROUTE_CONFLICT, in_conflict.count() as f64),
    ] {
        gauge.set(value, [Label::from(route.name.clone())]);
    }
}

async fn show_held(stores: &dyn Stores) {
    if let Ok(count) = stores.quarantine().count().await {
        metrics::PENDING_REVIEW.set(count as f64, ["quarantine".into()]);
    }
    if let Ok(refused) = stores.refused().count().await {
        metrics::PENDING_REVIEW.set(refused.webhooks as f64, ["refused".into()]);
    }
}

fn asks(breaker: BreakerState) -> f64 {
    match breaker {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open { .. } => 2.0,
    }
}

fn age(then: Option<Timestamp>, now: Timestamp) -> f64 {
    then.map_or(0.0, |then| now.duration_since(then).as_secs_f64().max(0.0))
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn as_gauge(it: bool) -> f64 {
    f64::from(u8::from(it))
}
