//! A sender under load that never retries, and knows what it was promised.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use event_model::{Environment, EventId};
use simulator::{Events, Retry};
use tokio::task::JoinSet;

use crate::pipeline::{Pipeline, SANDBOX};

/// What was sent, and which of it was answered 200.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) sent: Mutex<HashSet<String>>,
    pub(crate) accepted: Mutex<HashSet<String>>,
    stop: AtomicBool,
}

/// Senders at work.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    tasks: JoinSet<()>,
}

static SEED: AtomicU64 = AtomicU64::new(1);

impl Load {
    /// Starts this many senders; each sends one different event after another.
    pub(crate) fn start(pipeline: &Pipeline, senders: usize) -> Self {
        let ledger = Arc::new(Ledger::default());
        let mut tasks = JoinSet::new();
        for _ in 0..senders {
            let (sender, ledger) = (pipeline.sender(Retry::Never), Arc::clone(&ledger));
            let seed = SEED.fetch_add(1, Ordering::Relaxed);
            tasks.spawn(async move {
                let mut events = Events::new("ACME", 34, seed);
                while !ledger.stop.load(Ordering::Relaxed) {
                    let signed = SANDBOX.sign(events.any().body).unwrap();
                    let id = EventId::of(Environment::Sandbox, &signed.body).to_string();
                    ledger.sent.lock().unwrap().insert(id.clone());
                    let answer = sender.send(&signed).await.answer;
                    if answer.is_some_and(|answer| answer.status == 200) {
                        ledger.accepted.lock().unwrap().insert(id);
                    }
                }
            });
        }
        Self { ledger, tasks }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.ledger.accepted.lock().unwrap().len()
    }

    /// Stops sending; what was sent and what was accepted.
    pub(crate) async fn stop(mut self) -> (HashSet<String>, HashSet<String>) {
        self.ledger.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let sent = self.ledger.sent.lock().unwrap().clone();
        let accepted = self.ledger.accepted.lock().unwrap().clone();
        (sent, accepted)
    }
}
