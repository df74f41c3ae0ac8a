//! The reconciler, set up from the settings.

use std::sync::Arc;

use event_model::{Accounts, SystemClock};
use queue::Stores;
use reconciler::Reconciler;
use settings::{ReconcileSettings, Routes, SettingsTree};

/// The settings, routes and accounts of a reconciler.
#[derive(Debug)]
pub(crate) struct ReconcilerTask {
    pub(crate) settings: ReconcileSettings,
    pub(crate) routes: Routes,
    allowed: Accounts,
}

impl ReconcilerTask {
    /// Reads them. `None` if the settings have no `reconcile`.
    pub(crate) fn read(tree: &SettingsTree) -> anyhow::Result<Option<Self>> {
        let routes = tree.routes(None)?;
        let Some(settings) = tree.reconcile(&routes)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            settings,
            routes,
            allowed: tree.gateway()?.accounts,
        }))
    }

    /// Reads them.
    ///
    /// # Errors
    /// If the settings have no `reconcile`, or it is not valid.
    pub(crate) fn required(tree: &SettingsTree) -> anyhow::Result<Self> {
        let routes = tree.routes(None)?;
        Ok(Self {
            settings: tree.required_reconcile(&routes)?,
            routes,
            allowed: tree.gateway()?.accounts,
        })
    }

    /// A reconciler on these stores, with these logins.
    pub(crate) fn on<'a>(
        &'a self,
        stores: &'a dyn Stores,
        apis: &'a fluent_api::Accounts,
    ) -> Reconciler<'a> {
        let clock = Arc::new(SystemClock);
        Reconciler::new(
            stores,
            &self.settings,
            apis,
            &self.allowed,
            &self.routes,
            clock,
        )
    }

    /// Compares again and again until the future is dropped.
    pub(crate) async fn serve(&self, stores: &dyn Stores, apis: &fluent_api::Accounts) {
        reconciler::serve(&self.on(stores, apis)).await;
    }
}
