use dispatch::Shared;
use grpc::{Door, Routes};
use service::Shutdown;
use settings::OperatorSettings;
use subscriptions::{Subscriptions, Switchboard};

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
    pub async fn open(operator: Option<&OperatorSettings>, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let Some(operator) = operator else { return Ok(Self::by(None)) };
        let door = Door::open(operator, shutdown).await?;
        Ok(Self { door: Some(door), ..Self::by(Some(operator)) })
    }

    /// The same without listening: to see whether dispatchers would open.
    pub fn by(operator: Option<&OperatorSettings>) -> Self {
        let switchboard = Switchboard::default();
        let shared = match operator {
            Some(_) => Shared::default().with(switchboard.clone()),
            None => Shared::default(),
        };
        Self { shared, door: None, switchboard }
    }

    /// The services of a process that runs routes.
    pub fn routes(&self, shutdown: &Shutdown) -> Routes {
        Routes::new(Subscriptions::new(self.switchboard.clone(), shutdown.clone()).service())
    }
}
