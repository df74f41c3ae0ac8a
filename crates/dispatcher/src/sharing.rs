//! Resources that a process shares among its dispatchers.

use std::sync::Arc;

use dispatch::Shared;
use fluent_api::Accounts;
use grpc::{Door, Routes};
use queue::HasMarks;
use service::Shutdown;
use settings::Tree;
use subscriptions::{Subscriptions, Switchboard};

use crate::apis;
use crate::login_ledger::RestingLogins;

/// Resources that a process shares among its dispatchers, and its gRPC server.
#[derive(Debug)]
pub struct Sharing {
    /// Extensions for opening dispatchers.
    pub shared: Shared,
    /// Clients of Fluent's accounts: one login and one limit for each, for the whole process.
    pub apis: Accounts,
    /// Logins at Fluent that may not be tried now.
    pub resting: RestingLogins,
    /// Server for gRPC, if the settings say where to listen.
    pub door: Option<Door>,
    switchboard: Switchboard,
}

impl Sharing {
    /// Binds the gRPC server if the settings have one. Results of logins are kept in the queue's
    /// facts.
    pub async fn open(tree: &Tree, shutdown: &Shutdown, marks: Arc<dyn HasMarks>) -> anyhow::Result<Self> {
        let sharing = Self::with_marks(tree, marks)?;
        let door = match tree.operator()? {
            Some(operator) => Some(Door::open(&operator, shutdown).await?),
            None => None,
        };
        Ok(Self { door, ..sharing })
    }

    /// Like `open`, without listening and without a queue: to check whether dispatchers would
    /// open, and for processes that have none.
    pub fn by(tree: &Tree) -> anyhow::Result<Self> {
        Self::with(tree, apis::accounts_without_queue(tree)?, RestingLogins::default())
    }

    /// Like `open`, without listening, with the results of logins in these facts.
    pub fn with_marks(tree: &Tree, marks: Arc<dyn HasMarks>) -> anyhow::Result<Self> {
        let resting = RestingLogins::default();
        Self::with(tree, apis::accounts_with(tree, marks, resting.clone())?, resting)
    }

    fn with(tree: &Tree, apis: Accounts, resting: RestingLogins) -> anyhow::Result<Self> {
        let switchboard = Switchboard::default();
        let shared = Shared::default().with(apis.clone());
        let shared = match tree.operator()? {
            Some(_) => shared.with(switchboard.clone()),
            None => shared,
        };
        Ok(Self { shared, apis, resting, door: None, switchboard })
    }

    /// Returns the gRPC services of a process that runs routes.
    pub fn routes(&self, shutdown: &Shutdown) -> Routes {
        Routes::new(Subscriptions::new(self.switchboard.clone(), shutdown.clone()).service())
    }
}
