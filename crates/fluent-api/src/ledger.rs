//! The ledger of logins, in which every process that shares a login records the results of its
//! tries.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::error::BoxError;

/// Future result of a ledger.
pub type LedgerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// A small record by login, shared by all processes that use the login, and kept over
/// their restarts. Fluent locks a user after five failed logins, whoever made them.
///
/// ```
/// # use fluent_api::{LoginLedger, MemoryLedger};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let ledger = MemoryLedger::new(|| "2026-11-28T12:00:00Z".parse().unwrap());
/// assert!(ledger.replace("a", b"first".to_vec(), 0).await.unwrap(), "nothing was there");
/// assert!(!ledger.replace("a", b"late".to_vec(), 0).await.unwrap(), "somebody was faster");
/// let (value, version) = ledger.read("a").await.unwrap().unwrap();
/// assert_eq!(value, b"first");
/// assert!(ledger.replace("a", b"second".to_vec(), version).await.unwrap());
/// # });
/// ```
pub trait LoginLedger: fmt::Debug + Send + Sync {
    /// Returns the record of `login` and its version, which changes with every replacement.
    fn read<'a>(&'a self, login: &'a str) -> LedgerFuture<'a, Option<(Vec<u8>, u64)>>;

    /// Replaces the record durably, if its version is still this one; 0 if there is none. Returns
    /// `false` if another process was faster: read it again.
    fn replace<'a>(
        &'a self,
        login: &'a str,
        record: Vec<u8>,
        version: u64,
    ) -> LedgerFuture<'a, bool>;

    /// Returns the time by which records of this ledger are compared.
    fn now(&self) -> Timestamp;

    /// Called when Fluent has refused a login.
    fn on_refused(&self, account: &str, environment: &str) {
        let _ = (account, environment);
    }

    /// Called with the time for which nobody tries this account's login; `None` if it may be
    /// tried.
    fn on_rest(&self, account: &str, environment: &str, rest: Option<Duration>) {
        let _ = (account, environment, rest);
    }
}

/// A record and its version.
type Versioned = (Vec<u8>, u64);

/// A ledger of one process, for as long as it lives: for tests, and for processes that have no
/// queue to keep one in.
#[derive(Clone)]
pub struct MemoryLedger {
    records: Arc<Mutex<HashMap<String, Versioned>>>,
    now: fn() -> Timestamp,
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryLedger(..)")
    }
}

impl MemoryLedger {
    /// Makes an empty ledger, with this clock.
    pub fn new(now: fn() -> Timestamp) -> Self {
        Self {
            records: Arc::default(),
            now,
        }
    }

    /// Returns every record, by login.
    pub fn records(&self) -> Vec<(String, String)> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |(login, (record, _)): (&String, &(Vec<u8>, u64))| {
            (login.clone(), String::from_utf8_lossy(record).into_owned())
        };
        records.iter().map(shown).collect()
    }
}

impl LoginLedger for MemoryLedger {
    fn read<'a>(&'a self, login: &'a str) -> LedgerFuture<'a, Option<(Vec<u8>, u64)>> {
        let found = self
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(login)
            .cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn replace<'a>(
        &'a self,
        login: &'a str,
        record: Vec<u8>,
        version: u64,
    ) -> LedgerFuture<'a, bool> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = records.get(login).map_or(0, |(_, current)| *current) == version;
        if is_current {
            records.insert(login.to_owned(), (record, version + 1));
        }
        Box::pin(std::future::ready(Ok(is_current)))
    }

    fn now(&self) -> Timestamp {
        (self.now)()
    }
}
