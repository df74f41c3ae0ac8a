//! One comparison: what is missing, and what becomes of it.

use std::sync::Arc;

use event_model::{Accounts, Clock, Event, Timestamp};
use fluent_api::{Client, EventRecord};
use queue::marks::set_reconciled;
use queue::{Stores, Terms};
use serde::Serialize;
use settings::{ApiAccount, ReconcileSettings, RouteSettings, Routes};
use telemetry::{Attribute, Cause, Ended, Kind, Span, metrics};

use crate::error::ReconcileError;
use crate::log::{Log, Sent, generated};
use crate::received::Received;
use crate::record::{Asked, event};
use crate::window::{SKEW, Window, check, earlier};

/// Compares what Fluent logged with what came.
#[derive(Debug)]
pub struct Reconciler<'a> {
    stores: &'a dyn Stores,
    settings: &'a ReconcileSettings,
    apis: &'a fluent_api::Accounts,
    allowed: &'a Accounts,
    /// What routes match that take what is reconciled.
    takers: Vec<Terms>,
    clock: Arc<dyn Clock>,
}

/// An event that Fluent logged and that never came.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Missing {
    /// Fluent's id of it.
    pub fluent_id: String,
    /// Its name.
    pub name: String,
    /// `<entityType>/<entityRef>`, where the log says so.
    pub entity: Option<String>,
    /// When Fluent logged it.
    pub logged_at: Option<Timestamp>,
    /// What Fluent says of sending it.
    #[serde(flatten)]
    pub sent: Sent,
    /// What becomes of it.
    pub then: Gap,
}

/// What becomes of what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "then", content = "why")]
pub enum Gap {
    /// It would be admitted.
    Admissible,
    /// It was admitted, under this id.
    Admitted(String),
    /// It stays out: no route that takes what is reconciled matches it.
    NoRoute,
    /// It stays out: it may not come in, for this reason.
    Refused(String),
}

/// How many of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// Events that Fluent logged.
    pub logged: u64,
    /// Of these, those that came.
    pub received: u64,
    /// Those that did not.
    pub missing: u64,
    /// Of these, those that were admitted.
    pub admitted: u64,
    /// And those that can't be: no route takes them, or the door refuses them.
    pub kept_out: u64,
}

/// Hears what is found, and how far it is.
pub trait Told {
    /// One that is missing.
    fn missing(&mut self, missing: Missing);

    /// Everything before this time is compared.
    fn compared(&mut self, until: Timestamp, tally: &Tally);
}

impl<'a> Reconciler<'a> {
    /// Works on these stores, with these logins, for these routes.
    pub fn new(
        stores: &'a dyn Stores,
        settings: &'a ReconcileSettings,
        apis: &'a fluent_api::Accounts,
        allowed: &'a Accounts,
        routes: &Routes,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let takers = routes.0.iter().filter(|route| route.takes_reconciled());
        let takers = takers.map(|route: &RouteSettings| route.terms.clone()).collect();
        Self { stores, settings, apis, allowed, takers, clock }
    }

    /// Up to when something that did not come is missing, and not only late.
    pub fn latest(&self) -> Timestamp {
        earlier(self.clock.now(), self.settings.delay)
    }

    /// Since when it is known what came.
    pub async fn earliest(&self) -> Result<Timestamp, ReconcileError> {
        Ok(self.stores.history().complete_since().await?)
    }

    /// Compares one account in a time that ends at [`Reconciler::latest`] or before, and
    /// tells of what is missing; with `admit`, it is admitted.
    ///
    /// Refuses a time of which it is not known what came, but where `is_unknown` is meant:
    /// then whatever is not here counts as missing.
    pub async fn compare(
        &self,
        account: &ApiAccount,
        window: Window,
        admit: bool,
        is_unknown: bool,
        told: &mut (dyn Told + Send),
    ) -> Result<Tally, ReconcileError> {
        let since = self.earliest().await?;
        if window.from < since && !is_unknown {
            return Err(ReconcileError::Unknown { since });
        }
        check(self.stores, window).await?;
        let began = earlier(window.from, SKEW);
        let mut received = Received::new(self.stores, &self.settings.events, began);
        received.catch_up().await?;
        let mut tally = Tally::default();
        for slice in window.slices() {
            for missing in self.slice(account, slice, admit, &mut received, &mut tally).await? {
                told.missing(missing);
            }
            told.compared(slice.until, &tally);
        }
        Ok(tally)
    }

    async fn slice(
        &self,
        account: &ApiAccount,
        slice: Window,
        admit: bool,
        received: &mut Received<'_>,
        tally: &mut Tally,
    ) -> Result<Vec<Missing>, ReconcileError> {
        let log = Log { account: &account.name, client: self.client(account)? };
        let mut absent = Vec::new();
        for name in &self.settings.events {
            for record in log.events(name, slice).await? {
                // The end of one slice is the beginning of the next.
                if generated(&record).is_some_and(|at| at < slice.until) {
                    tally.logged += 1;
                    absent.push(record);
                }
            }
        }
        let logged = absent.len();
        // Asked after the log: what came in between has come.
        received.catch_up().await?;
        absent.retain(|record| !received.has(self.key(account, record)));
        tally.received += (logged - absent.len()) as u64;
        if absent.is_empty() {
            return Ok(Vec::new());
        }
        absent.sort_by_key(generated);
        let mut sent = log.sent(slice).await?;
        let mut found = Vec::new();
        for record in absent {
            tally.missing += 1;
            let sent = sent.remove(&record.id).map_or(Sent::Unlogged, Sent::Logged);
            let then = self.one(account, &record, admit, received).await?;
            match then {
                Gap::Admitted(_) => tally.admitted += 1,
                Gap::NoRoute | Gap::Refused(_) => tally.kept_out += 1,
                Gap::Admissible => {}
            }
            found.push(missing(record, sent, then));
        }
        Ok(found)
    }

    async fn one(
        &self,
        account: &ApiAccount,
        record: &EventRecord,
        admit: bool,
        received: &mut Received<'_>,
    ) -> Result<Gap, ReconcileError> {
        let (name, environment) = (&account.name, account.environment);
        let asked = Asked { account: name, environment, allowed: self.allowed };
        let span = Span::begin(Kind::Producer, "reconcile", Cause::Nothing);
        let found = match event(record, asked, self.clock.now(), Some(span.context())) {
            Ok(event) => event,
            Err(unfit) => {
                span.forget();
                return Ok(Gap::Refused(unfit.to_string()));
            }
        };
        // Two rules may have sent one event: what is told once is admitted once.
        received.add(&found);
        if !self.takers.iter().any(|terms| terms.hold(&found)) {
            span.forget();
            return Ok(Gap::NoRoute);
        }
        if !admit {
            span.forget();
            return Ok(Gap::Admissible);
        }
        let admitted = self.admit(&found).await;
        let ended = if admitted.is_ok() { Ended::Well } else { Ended::Failed("queue") };
        span.end(ended, || vec![Attribute::new("fluent.event.id", found.id().to_string())]);
        admitted?;
        metrics::RECONCILED.add(1, [environment.as_str().into(), name.clone().into()]);
        tracing::info!(event.id = %found.id(), account = name, "never came, and is admitted from Fluent's log");
        Ok(Gap::Admitted(found.id().to_string()))
    }

    /// Marked first: a webhook that comes late must find out.
    async fn admit(&self, found: &Event) -> Result<(), ReconcileError> {
        set_reconciled(self.stores.marks(), found.fluent_key(), found.id()).await?;
        Ok(self.stores.admit(found.clone()).await.map(drop)?)
    }

    fn client(&self, account: &ApiAccount) -> Result<&Client, ReconcileError> {
        let client = self.apis.of(&account.name, account.environment.as_str());
        client
            .ok_or_else(|| queue::QueueError::NotFound(format!("login for account {}", account.name)).into())
    }

    fn key(&self, account: &ApiAccount, record: &EventRecord) -> event_model::FluentKey {
        event_model::FluentKey::of(account.environment, &account.name, &record.id, &record.name)
    }
}

fn missing(record: EventRecord, sent: Sent, then: Gap) -> Missing {
    let logged_at = generated(&record);
    let context = record.context;
    let entity = context
        .entity_ref
        .map(|reference| format!("{}/{reference}", context.entity_type.unwrap_or_default()));
    Missing { fluent_id: record.id, name: record.name, entity, logged_at, sent, then }
}
