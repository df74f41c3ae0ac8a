//! Resources that a process shares among its dispatchers.

use std::sync::Arc;

use dispatch::Extensions;
use fluent_api::Accounts;
use grpc::{GrpcServer, Routes};
use process::Shutdown;
use queue::FactAccess;
use settings::SettingsTree;
use subscriptions::{SubscriptionRegistry, Subscriptions};

use crate::fluent_clients;
use crate::login_ledger::RestingLogins;

/// Resources that a process shares among its dispatchers, and its gRPC server.
#[derive(Debug)]
pub struct ProcessResources {
    /// Extensions for opening dispatchers.
    pub shared: Extensions,
    /// Clients of Fluent's accounts: one login and one limit for each, for the whole process.
    pub apis: Accounts,
    /// Logins at Fluent that may not be tried now.
    pub resting: RestingLogins,
    /// Server for gRPC, if the settings say where to listen.
    pub door: Option<GrpcServer>,
    subscription_registry: SubscriptionRegistry,
}

impl ProcessResources {
    /// Binds the gRPC server if the settings have one. Results of logins are kept in the queue's
    /// facts.
    pub async fn open(
        tree: &SettingsTree,
        shutdown: &Shutdown,
        facts: Arc<dyn FactAccess>,
    ) -> anyhow::Result<Self> {
        let resources = Self::with_marks(tree, facts)?;
        let door = match tree.operator()? {
            Some(operator) => Some(GrpcServer::bind(&operator, shutdown).await?),
            None => None,
        };
        Ok(Self { door, ..resources })
    }

    /// Like `bind`, without listening and without a queue: to check whether dispatchers would
    /// open, and for processes that have none.
    pub fn by(tree: &SettingsTree) -> anyhow::Result<Self> {
        Self::with(
            tree,
            fluent_clients::accounts_without_queue(tree)?,
            RestingLogins::default(),
        )
    }

    /// Like `bind`, without listening, with the results of logins in these facts.
    pub fn with_marks(tree: &SettingsTree, facts: Arc<dyn FactAccess>) -> anyhow::Result<Self> {
        let resting = RestingLogins::default();
        Self::with(
            tree,
            fluent_clients::accounts_with(tree, facts, resting.clone())?,
            resting,
        )
    }

    fn with(tree: &SettingsTree, apis: Accounts, resting: RestingLogins) -> anyhow::Result<Self> {
        let subscription_registry = SubscriptionRegistry::default();
        let shared = Extensions::default().with(apis.clone());
        let shared = match tree.operator()? {
            Some(_) => shared.with(subscription_registry.clone()),
            None => shared,
        };
        Ok(Self {
            shared,
            apis,
            resting,
            door: None,
            subscription_registry,
        })
    }

    /// Returns the gRPC services of a process that runs routes.
    pub fn routes(&self, shutdown: &Shutdown) -> Routes {
        Routes::new(
            Subscriptions::new(self.subscription_registry.clone(), shutdown.clone()).service(),
        )
    }
}
