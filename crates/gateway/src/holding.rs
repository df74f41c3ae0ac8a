//! Refused webhooks on their way into the hold.
//!
//! A webhook that is signed with a key that nobody has added yet looks like a
//! forgery; it is answered 401, and held for a person. Beside the answer, which
//! must not tell by its time whether an account is listed.

use std::sync::Arc;
use std::time::Duration;

use event_model::{AccountClaim, Accounts, Inbound};
use queue::{EventQueue, RefusedWebhook};
use service::Shutdown;
use telemetry::Chain;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Most webhooks that wait to be held, and bytes of the largest: a flood of forgeries
/// costs no more memory than that. Beyond it they are refused like all others, and
/// counted only.
const WAITING: usize = 64;
const LARGEST: usize = 256 << 10;

/// How long to rest after holding those: at most 640 a second.
const PAUSE: Duration = Duration::from_millis(100);

/// The way into the hold.
#[derive(Clone, Debug)]
pub struct Holding(Option<mpsc::Sender<Waiting>>);

/// What waits to be held.
#[derive(Debug)]
struct Waiting {
    inbound: Inbound,
    reason: &'static str,
    /// Its signature is Fluent's: then a name that is like a listed one counts, too.
    is_genuine: bool,
}

impl Holding {
    /// Holds nothing.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// Holds what names a listed account.
    pub(crate) fn start(queue: Arc<dyn EventQueue>, accounts: Arc<Accounts>, shutdown: &Shutdown) -> Self {
        let (sender, inbox) = mpsc::channel(WAITING);
        // Ends with the last connection, which may still be refused something.
        shutdown.spawn_intake(run(inbox, queue, accounts));
        Self(Some(sender))
    }

    /// Holds it, if there is room.
    pub(crate) fn hold(&self, refused: Inbound, reason: &'static str, is_genuine: bool) {
        if let Some(sender) = self.0.as_ref().filter(|_| refused.body.len() <= LARGEST) {
            let _ = sender.try_send(Waiting { inbound: refused, reason, is_genuine });
        }
    }
}

async fn run(mut inbox: mpsc::Receiver<Waiting>, queue: Arc<dyn EventQueue>, accounts: Arc<Accounts>) {
    let mut some = Vec::with_capacity(WAITING);
    while inbox.recv_many(&mut some, WAITING).await > 0 {
        let holding = some.drain(..).map(|waiting| hold(&*queue, &accounts, waiting));
        futures::future::join_all(holding).await;
        sleep(PAUSE).await;
    }
}

async fn hold(queue: &dyn EventQueue, accounts: &Accounts, waiting: Waiting) {
    let Waiting { inbound, reason, is_genuine } = waiting;
    // A stranger's body is kept nowhere.
    let account = match is_genuine {
        false => accounts.claimed_by(&inbound.body),
        true => match accounts.claim(&inbound.body) {
            AccountClaim::Listed(name) | AccountClaim::Alike { listed: name, .. } => Some(name),
            AccountClaim::Unlisted(_) => accounts.claimed_by(&inbound.body),
        },
    };
    let Some(account) = account else { return };
    let webhook = RefusedWebhook { id: 0, inbound, reason: reason.to_owned(), account };
    if let Err(error) = queue.stores().refused().hold(webhook).await {
        tracing::warn!(reason, error = %Chain(&error), "a refused webhook is not held");
    }
}
