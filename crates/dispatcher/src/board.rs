//! How every route of this process stands, for whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_model::Clock;
use queue::{Look, Working};

use crate::breaker::Breaker;

/// One route's entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) route: String,
    pub(crate) breaker: Arc<Breaker>,
    /// Its rate holds attempts back.
    pub(crate) throttled: Arc<AtomicBool>,
}

/// The entries of all routes that run here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Vec<Entry>>>);

impl Board {
    pub(crate) fn enter(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// What to show to others.
    pub(crate) fn look(&self, clock: Arc<dyn Clock>) -> Look {
        let (board, process) = (self.clone(), process());
        let closing = self.clone();
        let close = move |route: &str| closing.close_breaker(route);
        let now = move || {
            let entries = board.0.lock().unwrap_or_else(PoisonError::into_inner);
            let said = entries.iter().map(|entry| Working {
                route: entry.route.clone(),
                process: process.clone(),
                breaker: entry.breaker.standing(&*clock),
                throttled: entry.throttled.load(Ordering::Relaxed),
            });
            said.collect()
        };
        Look::new(now, close)
    }

    /// Asks a route's destination at once: a person says that it is mended.
    fn close_breaker(&self, route: &str) {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|entry| entry.route == route).for_each(|entry| entry.breaker.close());
    }
}

fn process() -> String {
    format!("{}:{}", service::host_name(), std::process::id())
}
