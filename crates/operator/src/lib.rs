//! The operator's side of every promise: see what happened, and repeat it.
//!
//! ```text
//! person ─command─▶ Operator ─▶ stores of the queue
//!   │                  ├──▶ settings, read at each call: present keys and routes
//!   └── another's gRPC ┘└──▶ audit log, before and after whatever changes something
//! ```
//!
//! The role for a method is checked before a call comes here (`grpc::Access`). It is checked here
//! only where the message decides it: a request for a body.
//!
//! Start reading at [`Operator`], then `service.rs`, which has every method.

mod service;

mod accepted;
mod deliveries;
mod events;
mod jobs;
mod letters;
mod quarantined;
mod refused;
mod replay;
mod routes;
mod silence;
mod status;
mod status_lines;

mod audit;
mod diagnosis;
mod failure;
mod filters;
mod names;
mod naming;
mod pages;
mod progress;
mod queue_metrics;
mod viewers;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ::process::Shutdown;
use event_model::Clock;
use futures::future::BoxFuture;
use proto::v1;
use proto::v1::operator_server::OperatorServer;
use queue::{QueueError, Stores};
use settings::SettingsTree;
use tonic::Status;

use crate::viewers::Viewers;

pub use crate::audit::{Audit, OLD_AUDIT_LOGS, OpenEntry};
pub use crate::diagnosis::{WebhookDiagnosis, diagnose_webhook};
pub use crate::status_lines::CERTIFICATE_ENDS_SOON;

/// Reads the settings as they are now.
pub type ReadSettings = Arc<dyn Fn() -> anyhow::Result<SettingsTree> + Send + Sync>;

/// Sends test events. A port, since this crate knows no dispatcher.
pub trait TestSender: fmt::Debug + Send + Sync {
    /// Sends what the request says to the destination of its route.
    ///
    /// # Errors
    /// If there is no such route, its dispatcher can't be opened here, or the body is no event.
    fn send(
        &self,
        request: v1::SendTestEventRequest,
    ) -> BoxFuture<'_, Result<v1::SendTestEventResponse, Status>>;
}

/// The operator's API.
#[derive(Clone)]
pub struct Operator(Arc<Inner>);

struct Inner {
    stores: Arc<dyn Stores>,
    settings: ReadSettings,
    audit: Audit,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    viewers: Viewers,
    test_sender: OnceLock<Arc<dyn TestSender>>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("stores", &self.0.stores)
            .finish_non_exhaustive()
    }
}

impl Operator {
    /// Serves these stores. Changes are written to the file `audit`, which is created when there
    /// is something to write.
    pub fn new(
        stores: Arc<dyn Stores>,
        settings: ReadSettings,
        audit: PathBuf,
        clock: Arc<dyn Clock>,
        shutdown: Shutdown,
    ) -> Self {
        let audit = Audit::new(audit, Arc::clone(&clock));
        Self(Arc::new(Inner {
            stores,
            settings,
            audit,
            clock,
            shutdown,
            viewers: Viewers::default(),
            test_sender: OnceLock::new(),
        }))
    }

    /// Lets test events be sent. Without it they are refused.
    #[must_use]
    pub fn with_test_sender(self, sender: Arc<dyn TestSender>) -> Self {
        // Set once, where the operator is made.
        let _ = self.0.test_sender.set(sender);
        self
    }

    /// Asks the queue something, and returns why it does not answer.
    pub async fn check_well(&self) -> Result<(), QueueError> {
        self.stores().routes().await.map(drop)
    }

    /// The service for tonic.
    pub fn service(self) -> OperatorServer<Self> {
        OperatorServer::new(self).max_encoding_message_size(grpc::MAX_MESSAGE)
    }

    fn stores(&self) -> &dyn Stores {
        &*self.0.stores
    }

    fn settings(&self) -> Result<SettingsTree, Status> {
        (self.0.settings)().map_err(|error| failure::settings(&error))
    }
}
