//! Comparing with Fluent's log, from the settings.

use std::sync::Arc;

use anyhow::Context;
use event_model::{Accounts, SystemClock};
use queue::Stores;
use reconciler::Reconciler;
use settings::{ReconcileSettings, Routes, Tree};

/// What it needs.
#[derive(Debug)]
pub(crate) struct Reconciling {
    pub(crate) settings: ReconcileSettings,
    allowed: Accounts,
    routes: Routes,
}

impl Reconciling {
    /// Nothing where the settings have no `reconcile`.
    pub(crate) fn read(tree: &Tree) -> anyhow::Result<Option<Self>> {
        let routes = tree.routes(None)?;
        let Some(settings) = tree.reconcile(&routes)? else { return Ok(None) };
        let allowed = tree.gateway()?.accounts;
        Ok(Some(Self { settings, allowed, routes }))
    }

    /// The same where it is asked for.
    pub(crate) fn required(tree: &Tree) -> anyhow::Result<Self> {
        let missing =
            "expected `fluent-connect.reconcile`: the names of the events that Fluent sends as webhooks";
        Self::read(tree)?.context(missing)
    }

    /// Works on these stores, with these logins.
    pub(crate) fn on<'a>(&'a self, stores: &'a dyn Stores, apis: &'a fluent_api::Accounts) -> Reconciler<'a> {
        let clock = Arc::new(SystemClock);
        Reconciler::new(stores, &self.settings, apis, &self.allowed, &self.routes, clock)
    }

    /// Compares again and again, until it is dropped.
    pub(crate) async fn serve(&self, stores: &dyn Stores, apis: &fluent_api::Accounts) {
        reconciler::serve(&self.on(stores, apis), stores, &self.settings).await;
    }

    /// Routes that will not get what is reconciled though they ask for it, in words.
    pub(crate) fn warnings(&self) -> Vec<String> {
        warnings(&self.routes)
    }
}

/// Routes that ask for what is reconciled, and for fields that it does not have.
pub(crate) fn warnings(routes: &Routes) -> Vec<String> {
    let of_route = |route: &settings::RouteSettings| {
        let fields = route.not_in_the_log();
        let said = format!(
            "route {} matches on {}, which Fluent's log does not have: what is reconciled will not reach it",
            route.name,
            fields.join(" and ")
        );
        (!fields.is_empty()).then_some(said)
    };
    routes.0.iter().filter_map(of_route).collect()
}
