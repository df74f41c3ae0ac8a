use dispatch::Shared;
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
        let (switchboard, shared) = (Switchboard::default(), Shared::default().with(apis::accounts(tree)?));
        let shared = match tree.operator()? {
            Some(_) => shared.with(switchboard.clone()),
            None => shared,
        };
        Ok(Self { shared, door: None, switchboard })
    }

    /// The services of a process that runs routes.
    pub fn routes(&self, shutdown: &Shutdown) -> Routes {
        Routes::new(Subscriptions::new(self.switchboard.clone(), shutdown.clone()).service())
    }
}
