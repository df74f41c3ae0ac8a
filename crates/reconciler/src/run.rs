//! A comparison: Fluent's log is read hour by hour, and the events that should have been received
//! are compared with those that were, as many hours at once as fit in memory.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Accounts, Clock, SteadyClock, Timestamp};
use fluent_api::Client;
use queue::{MatchFields, QueueError, Stores};
use settings::{ApiAccount, ReconcileSettings, Routes};

use crate::admission::MissingAdmitter;
use crate::comparison::{Comparison, Mode};
use crate::error::ReconcileError;
use crate::fluent_log::{Log, generated};
use crate::received::{Expected, Received};
use crate::record::AccountContext;
use crate::report::{Observer, Summary};
use crate::window::{SKEW, Window, earlier, ensure_drained};

/// Number of logged events that are enough for comparing once, with a few dozen bytes each in
/// memory. An hour is always read to its end.
const ENOUGH: usize = 200_000;

/// Time by which retention may have passed a begin that it was told to be the first: it goes on
/// while somebody begins there.
const LEEWAY: Duration = Duration::from_mins(10);

/// Compares Fluent's log with what was received.
#[derive(Debug)]
pub struct Reconciler<'a> {
    pub(crate) stores: &'a dyn Stores,
    pub(crate) settings: &'a ReconcileSettings,
    apis: &'a fluent_api::Accounts,
    allowed: &'a Accounts,
    /// Matches of the routes that take reconciled events.
    takers: Vec<MatchFields>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) steady: Arc<dyn Clock>,
}

impl<'a> Reconciler<'a> {
    /// Makes a reconciler for these stores, logins and routes.
    pub fn new(
        stores: &'a dyn Stores,
        settings: &'a ReconcileSettings,
        apis: &'a fluent_api::Accounts,
        allowed: &'a Accounts,
        routes: &Routes,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let takers = routes.0.iter().filter(|route| route.takes_reconciled());
        let takers = takers.map(|route| route.terms.clone()).collect();
        let steady = Arc::new(SteadyClock::beginning_with(&*clock));
        Self {
            stores,
            settings,
            apis,
            allowed,
            takers,
            clock,
            steady,
        }
    }

    /// Sets another clock for elapsed time, one that nobody sets back or forward.
    #[must_use]
    pub fn with_steady_clock(self, steady: Arc<dyn Clock>) -> Self {
        Self { steady, ..self }
    }

    /// Returns the time up to which an event that was not received counts as missing, and not
    /// only as late.
    pub fn latest(&self) -> Timestamp {
        earlier(self.clock.now(), self.settings.min_age)
    }

    /// Returns the time since which it is known what was received.
    pub async fn earliest(&self) -> Result<Timestamp, ReconcileError> {
        Ok(self.stores.history().complete_since().await?)
    }

    /// Compares one account in a time that ends at [`Reconciler::latest`] or before. Findings are
    /// reported and counted at once, so that an error does not lose them.
    ///
    /// Fails for a time of which it is not known what was received, and for one whose events may
    /// still be in a spool. What retention removes while Fluent's log is read is left out, and
    /// the summary says so: it goes on all the time, and would be ahead of every comparison that
    /// begins with the oldest.
    pub async fn compare(
        &self,
        account: &ApiAccount,
        window: Window,
        mode: Mode,
        tally: &mut Summary,
        observer: &mut dyn Observer,
    ) -> Result<(), ReconcileError> {
        ensure_drained(self.stores.facts(), window).await?;
        self.ensure_known(window, mode).await?;
        let unknown =
            |what: &str| QueueError::NotFound(format!("{what} for account {}", account.name));
        let name = &account.name;
        let environment = account.environment;
        let client: &Client = self
            .apis
            .of(name, environment.as_str())
            .ok_or_else(|| unknown("login"))?;
        let asked = AccountContext::new(
            name,
            environment,
            self.allowed,
            self.settings.seal.as_deref(),
        )
        .ok_or_else(|| unknown("key"))?;
        let mut ahead = window.chunks().peekable();
        while let Some(first) = ahead.peek() {
            let mut comparing = Comparison {
                account,
                asked,
                log: Log {
                    account: name,
                    client,
                },
                received: Received::new(self.stores, earlier(first.from, SKEW)),
                expected: Expected::default(),
                tally: &mut *tally,
                observer: &mut *observer,
            };
            self.together(&mut comparing, &mut ahead, mode).await?;
        }
        Ok(())
    }

    /// Compares as many hours at once as fit in memory: one missing event makes everything be
    /// read that was received since, up to now. If Fluent stops answering, the part that was read
    /// is still compared.
    async fn together(
        &self,
        comparing: &mut Comparison<'_>,
        ahead: &mut impl Iterator<Item = Window>,
        mode: Mode,
    ) -> Result<(), ReconcileError> {
        let mut slices = Vec::new();
        let mut failed = None;
        while failed.is_none()
            && comparing.expected.len() < ENOUGH
            && let Some(chunk) = ahead.next()
        {
            failed = self.read_chunk(comparing, &mut slices, chunk).await.err();
        }
        self.hold_against(comparing, slices, mode).await?;
        failed.map_or(Ok(()), Err)
    }

    async fn ensure_known(&self, window: Window, mode: Mode) -> Result<(), ReconcileError> {
        let since = self.earliest().await?;
        let is_known = window.from >= earlier(since, LEEWAY) || mode.is_unknown;
        if is_known {
            Ok(())
        } else {
            Err(ReconcileError::Unknown { since })
        }
    }

    /// Reads an hour of Fluent's log, and adds its slices.
    async fn read_chunk(
        &self,
        comparing: &mut Comparison<'_>,
        slices: &mut Vec<Window>,
        chunk: Window,
    ) -> Result<(), ReconcileError> {
        for slice in chunk.slices() {
            self.read(comparing, slices.len(), slice).await?;
            slices.push(slice);
            comparing.observer.read(slice.until);
        }
        Ok(())
    }

    async fn hold_against(
        &self,
        comparing: &mut Comparison<'_>,
        slices: Vec<Window>,
        mode: Mode,
    ) -> Result<(), ReconcileError> {
        let logged = comparing.expected.len();
        comparing
            .received
            .remove_received(&mut comparing.expected)
            .await?;
        comparing.tally.received += (logged - comparing.expected.len()) as u64;
        if !mode.is_unknown {
            self.leave_out_unknown(comparing, &slices).await?;
        }
        for (number, slice) in slices.into_iter().enumerate() {
            if comparing.expected.is_of(number) {
                self.find(comparing, slice, mode).await?;
            }
        }
        Ok(())
    }

    /// Forgets the events of slices from which retention has removed some that were received
    /// while they were read: they would look missing.
    async fn leave_out_unknown(
        &self,
        comparing: &mut Comparison<'_>,
        slices: &[Window],
    ) -> Result<(), ReconcileError> {
        let since = self.earliest().await?;
        let unknown = slices.iter().filter(|slice| slice.from < since).count();
        if let Some(last) = unknown.checked_sub(1) {
            comparing.tally.logged -= comparing.expected.forget_before(unknown) as u64;
            let known_since = slices.get(last).map(|slice| slice.until);
            comparing.tally.known_since = comparing.tally.known_since.max(known_since);
        }
        Ok(())
    }

    /// Adds the events of a slice that should have been received.
    async fn read(
        &self,
        comparing: &mut Comparison<'_>,
        number: usize,
        slice: Window,
    ) -> Result<(), ReconcileError> {
        for name in &self.settings.event_names {
            for record in comparing.log.events(name, slice).await? {
                if comparing.asked.should_have_come(&record)
                    && comparing
                        .expected
                        .add(comparing.asked.key(&record), number)?
                {
                    comparing.tally.logged += 1;
                }
            }
        }
        Ok(())
    }

    /// Reads the records of missing events again: before, only keys were kept, since mostly
    /// nothing is missing.
    async fn find(
        &self,
        comparing: &mut Comparison<'_>,
        slice: Window,
        mode: Mode,
    ) -> Result<(), ReconcileError> {
        let mut records = Vec::new();
        for name in &self.settings.event_names {
            records.extend(comparing.log.events(name, slice).await?);
        }
        records.retain(|record| comparing.expected.has(comparing.asked.key(record)));
        records.sort_by_key(generated);
        let sendings = comparing.log.sendings(slice, &records).await;
        MissingAdmitter {
            stores: self.stores,
            seal: self.settings.seal.as_deref(),
            takers: &self.takers,
            clock: &*self.clock,
            sendings,
            mode,
        }
        .all(records, comparing)
        .await
    }
}
