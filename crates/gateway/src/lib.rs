//! Accepts webhooks over HTTP, verifies them, and makes them durable.
//!
//! ```text
//! connection ─▶ router ─▶ receive: body ─▶ Verifier ─▶ Event::admit ─▶ Intake ─▶ 200
//!    bounds                  bounds          401          403, or         503
//!                                                      quarantine, 200
//! ```
//!
//! The answer is 200 only after the queue has the event: until then Fluent
//! still has it, and after that it never sends it again.
//!
//! Start reading at [`start`] and [`router`], then `receive.rs`.

mod receive;

mod body;
mod bounds;
mod byte_budget;
mod client_address;
mod connection;
mod framing;
mod known_senders;
mod listen;
mod main_sender;
mod proxy_protocol;
mod quarantine;
mod refused_accounts;
mod rejected_capture;
mod request_telemetry;
mod response;
mod same_ids;
mod seen;
mod senders;
mod serve_one;
mod stage;

use std::sync::Arc;

use axum::Router;
use event_model::{Accounts, Clock};
use queue::Intake;
use settings::OnMalformed;
use verifier::Verifier;

pub use crate::bounds::Bounds;
pub use crate::listen::serve;
pub use crate::main_sender::MainSender;
pub use crate::refused_accounts::RefusedAccounts;
pub use crate::rejected_capture::RejectedCapture;
pub use crate::seen::SeenEventsRecorder;
pub use crate::senders::Senders;
pub use crate::stage::{main, ports, start};

/// Everything that receiving a webhook needs.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Verifies signatures.
    pub verifier: Arc<dyn Verifier>,
    /// The accounts that may send.
    pub accounts: Arc<Accounts>,
    /// The queue that admitted events go to.
    pub intake: Arc<dyn Intake>,
    /// The clock that stamps arrivals.
    pub clock: Arc<dyn Clock>,
    /// The names of headers that may carry a signature, in lowercase.
    pub signature_headers: Arc<[String]>,
    /// The endpoint's path.
    pub path: Arc<str>,
    /// The treatment of genuine bodies that are not events.
    pub malformed: OnMalformed,
    /// Facts about those who send.
    pub senders: Senders,
    /// The capture of rejected webhooks.
    pub rejected: RejectedCapture,
    /// The accounts of genuine webhooks that were refused.
    pub refused: RefusedAccounts,
    /// The hours in which each kind of event came.
    pub seen: SeenEventsRecorder,
}

/// The gateway's HTTP interface: one endpoint, and 404 for everything else.
pub fn router(ports: Ports, bounds: &Bounds) -> Router {
    let state = receive::ReceiveState::new(ports, bounds);
    Router::new()
        .fallback(receive::receive)
        .with_state(Arc::new(state))
}
