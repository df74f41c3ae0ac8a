//! A sender of load that keeps account of every answer.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_model::{Environment, EventId};
use simulator::{Events, Retry, Sender};
use tokio::task::JoinSet;

use crate::SANDBOX;

/// The events that were sent, and those that were answered 200.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Ids of events, each noted before it was sent.
    pub sent: Mutex<HashSet<String>>,
    /// Ids of events, each noted after it was answered 200.
    pub accepted: Mutex<HashSet<String>>,
    /// The duration of each request, answered or not.
    pub took: Mutex<Vec<Duration>>,
    /// Shortest time between two events of one sender.
    pause: Duration,
    stop: AtomicBool,
}

/// Senders that are running.
#[derive(Debug)]
pub struct Load {
    /// The account so far.
    pub ledger: Arc<Ledger>,
    tasks: JoinSet<()>,
}

static SEED: AtomicU64 = AtomicU64::new(1);

impl Load {
    /// Starts this many senders, spread over the endpoints; each sends one
    /// different event after another, and none of them twice.
    pub fn start(urls: &[String], senders: usize) -> Self {
        Self::paced(urls, senders, Duration::ZERO)
    }

    /// Starts senders with at least `pause` between two events of each.
    pub fn paced(urls: &[String], senders: usize, pause: Duration) -> Self {
        Self::repeating(urls, senders, pause, Retry::Never)
    }

    /// Starts senders that also retry, as `retry` says.
    pub fn repeating(urls: &[String], senders: usize, pause: Duration, retry: Retry) -> Self {
        let ledger = Arc::new(Ledger {
            pause,
            ..Ledger::default()
        });
        let mut tasks = JoinSet::new();
        for number in 0..senders {
            let url = urls[number % urls.len()].clone();
            let sender = Sender::new(url, retry).unwrap();
            let ledger = Arc::clone(&ledger);
            let pause = ledger.pause;
            let seed = SEED.fetch_add(1, Ordering::Relaxed);
            tasks.spawn(async move {
                let mut events = Events::new("ACME", 34, seed);
                while !ledger.stop.load(Ordering::Relaxed) {
                    let signed = SANDBOX.sign(events.any().body).unwrap();
                    let id = EventId::of(Environment::Sandbox, &signed.body).to_string();
                    ledger.sent.lock().unwrap().insert(id.clone());
                    let began = Instant::now();
                    let answer = sender.send(&signed).await.answer;
                    ledger.took.lock().unwrap().push(began.elapsed());
                    if answer.is_some_and(|answer| answer.status == 200) {
                        ledger.accepted.lock().unwrap().insert(id);
                    }
                    tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
                }
            });
        }
        Self { ledger, tasks }
    }

    /// The number of events that were answered 200 so far.
    pub fn accepted(&self) -> usize {
        self.ledger.accepted.lock().unwrap().len()
    }

    /// How many were sent so far, answered or not.
    pub fn sent(&self) -> usize {
        self.ledger.sent.lock().unwrap().len()
    }

    /// Stops sending; what was sent and what was accepted.
    pub async fn stop(mut self) -> (HashSet<String>, HashSet<String>) {
        self.ledger.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let sent = self.ledger.sent.lock().unwrap().clone();
        let accepted = self.ledger.accepted.lock().unwrap().clone();
        (sent, accepted)
    }
}

/// The time within which this share of the requests was answered, in percent.
pub fn percentile(took: &[Duration], percent: usize) -> Duration {
    let mut took = took.to_vec();
    took.sort_unstable();
    took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
