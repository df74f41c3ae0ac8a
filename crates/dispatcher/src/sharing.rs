//! What a process that delivers shares among its dispatchers.

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

/// What a process that delivers shares with its dispatchers, and says over gRPC.
#[derive(Debug)]
pub struct Sharing {
    /// For whoever opens dispatchers.
    pub shared: Shared,
    /// The accounts of Fluent that may be asked: one login and one bound each, for everybody here.
    pub apis: Accounts,
    /// Logins at Fluent that may not be tried now.
    pub resting: RestingLogins,
    /// Where to listen, if the settings say so.
    pub door: Option<Door>,
    switchboard: Switchboard,
}

impl Sharing {
    /// Binds, where the settings say that somebody may call. How logins went is kept in the
    /// queue's marks.
    pub async fn open(tree: &Tree, shutdown: &Shutdown, marks: Arc<dyn HasMarks>) -> anyhow::Result<Self> {
        let sharing = Self::with_marks(tree, marks)?;
        let door = match tree.operator()? {
            Some(operator) => Some(Door::open(&operator, shutdown).await?),
            None => None,
        };
        Ok(Self { door, ..sharing })
    }

    /// The same without listening and without a queue: to see whether dispatchers would
    /// open, and for processes that have none.
    pub fn by(tree: &Tree) -> anyhow::Result<Self> {
        Self::with(tree, apis::accounts_without_queue(tree)?, RestingLogins::default())
    }

    /// The same without listening, with what these marks say of logins.
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

    /// The services of a process that runs routes.
    pub fn routes(&self, shutdown: &Shutdown) -> Routes {
        Routes::new(Subscriptions::new(self.switchboard.clone(), shutdown.clone()).service())
    }
}
