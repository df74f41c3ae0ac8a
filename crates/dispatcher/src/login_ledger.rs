//! The ledger of logins at Fluent in the queue's stores: every process reads the same, and after
//! every restart.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_model::{Clock, SystemClock, Timestamp};
use fluent_api::{BoxError, LedgerFuture, LoginLedger};
use queue::processes::{ProcessReport, RestingLogin};
use queue::{FactAccess, facts};
use telemetry::metrics;

/// Logins that may not be tried now, as far as this process knows. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct RestingLogins(Arc<Mutex<BTreeMap<(String, String), Timestamp>>>);

impl RestingLogins {
    fn set(&self, account: &str, environment: &str, until: Option<Timestamp>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let whose = (account.to_owned(), environment.to_owned());
        match until {
            Some(until) => drop(known.insert(whose, until)),
            None => drop(known.remove(&whose)),
        }
    }

    /// Adds the logins to the process report.
    pub fn add_to(&self, report: &mut ProcessReport) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = known
            .iter()
            .map(|((account, environment), rests_until)| RestingLogin {
                account: account.clone(),
                environment: environment.clone(),
                rests_until: *rests_until,
            });
        report.logins = resting.collect();
    }
}

/// A ledger in these facts, which also notes which logins may not be tried.
pub(crate) struct QueueLedger {
    pub(crate) facts: Arc<dyn FactAccess>,
    pub(crate) resting: RestingLogins,
}

impl fmt::Debug for QueueLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueLedger(..)")
    }
}

impl LoginLedger for QueueLedger {
    fn read<'a>(&'a self, login: &'a str) -> LedgerFuture<'a, Option<(Vec<u8>, u64)>> {
        Box::pin(async move {
            let found = facts::login(self.facts.facts(), login)
                .await
                .map_err(BoxError::from)?;
            Ok(found.map(|(record, version)| (record.to_vec(), version)))
        })
    }

    fn replace<'a>(
        &'a self,
        login: &'a str,
        record: Vec<u8>,
        version: u64,
    ) -> LedgerFuture<'a, bool> {
        Box::pin(async move {
            let replaced = facts::replace_login(self.facts.facts(), login, record.into(), version);
            replaced.await.map_err(BoxError::from)
        })
    }

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn on_refused(&self, account: &str, environment: &str) {
        metrics::LOGIN_REFUSED.add(1, labels(account, environment));
    }

    fn on_rest(&self, account: &str, environment: &str, rest: Option<Duration>) {
        let until = rest.and_then(|rest| SystemClock.now().saturating_add(rest).ok());
        self.resting.set(account, environment, until);
        let until = until.map_or(0, Timestamp::as_second);
        metrics::LOGIN_BLOCKED_UNTIL.set(until as f64, labels(account, environment));
    }
}

fn labels(account: &str, environment: &str) -> [telemetry::Label; 2] {
    [environment.to_owned().into(), account.to_owned().into()]
}
