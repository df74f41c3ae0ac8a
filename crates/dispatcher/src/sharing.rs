use dispatch::Shared;
use fluent_api::Accounts;
use grpc::{Door, Routes};
use service::Shutdown;
use settings::Tree;
use subscriptions::{Subscriptions, Switchboard};

use crate::apis;

/// What a process that delivers shares with its dispatchers, and says over gRPC.
#[derive(Debug)]
pub struct Sharing {
    /// For whoever opens dispatchers.
    pub shared: Shared,
    /// The accounts of Fluent that may be asked: one login and one bound each, for everybody here.
    pub apis: Accounts,
    /// Where to listen, if the settings say so.
    pub door: Option<Door>,
    switchboard: Switchboard,
}

impl Sharing {
    /// Binds, where the settings say that somebody may call.
    pub async fn open(tree: &Tree, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let sharing = Self::by(tree)?;
        let door = match tree.operator()? {
            Some(operator) => Some(Door::open(&operator, shutdown).await?),
            None => None,
        };
        Ok(Self { door, ..sharing })
    }

    /// The same without listening: to see whether dispatchers would open.
    pub fn by(tree: &Tree) -> anyhow::Result<Self> {
        let (switchboard, apis) = (Switchboard::default(), apis::accounts(tree)?);
        let shared = Shared::default().with(apis.clone());
        let shared = match tree.operator()? {
            Some(_) => shared.with(switchboard.clone()),
            None => shared,
        };
        Ok(Self { shared, apis, door: None, switchboard })
    }

    /// The services of a process that runs routes.
    pub fn routes(&self, shutdown: &Shutdown) -> Routes {
        Routes::new(Subscriptions::new(self.switchboard.clone(), shutdown.clone()).service())
    }
}
