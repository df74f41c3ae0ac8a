//! Rejected webhooks on their way into the store for them.
//!
//! A webhook that is signed with a key that nobody has added yet looks like a forgery. It is
//! answered 401, and kept for a person. Storing it runs beside the answer, whose timing must not
//! reveal whether an account is listed.

use std::sync::Arc;
use std::time::Duration;

use event_model::{AccountClaim, Accounts, Inbound};
use process::Shutdown;
use queue::{Intake, LineSampler, RejectedWebhook};
use telemetry::ErrorChain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

/// Most webhooks that wait to be stored. A flood of forgeries costs no more memory than these and
/// their bytes. Those beyond it are answered like all others, counted, and not stored.
const WAITING: usize = 64;
const WAITING_BYTES: usize = 4 << 20;

/// Largest body that is stored, far above what Fluent sends.
const LARGEST: usize = 256 << 10;

/// Most bytes a second that are stored: events go through the same writer, and wait for what is
/// before them.
const BYTES_A_SECOND: u32 = 1 << 20;

/// Shortest rest after storing some, which makes at most 640 a second.
const PAUSE: Duration = Duration::from_millis(100);

/// The way of rejected webhooks into the store for them, or nothing where none are stored.
#[derive(Clone, Debug)]
pub struct RejectedCapture(Option<Lanes>);

/// Two lanes, so that forgeries do not take the room of what Fluent signed.
#[derive(Clone, Debug)]
struct Lanes {
    genuine: Lane,
    unproven: Lane,
}

#[derive(Clone, Debug)]
struct Lane {
    sender: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

/// A rejected webhook that waits to be stored.
#[derive(Debug)]
struct Waiting {
    inbound: Inbound,
    reason: &'static str,
    /// True if the signature is Fluent's: then also a name that only resembles a listed one
    /// counts.
    is_genuine: bool,
    _bytes: OwnedSemaphorePermit,
}

impl RejectedCapture {
    /// Stores nothing, for tests and measurements.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Starts to store the webhooks that name a listed account.
    pub(crate) fn start(
        intake: &Arc<dyn Intake>,
        accounts: &Arc<Accounts>,
        shutdown: &Shutdown,
    ) -> Self {
        let lane = || {
            let (sender, inbox) = mpsc::channel(WAITING);
            // Ends with the last connection, which may still be refused something.
            shutdown.spawn_intake(run(inbox, Arc::clone(intake), Arc::clone(accounts)));
            Lane {
                sender,
                bytes: Arc::new(Semaphore::new(WAITING_BYTES)),
            }
        };
        Self(Some(Lanes {
            genuine: lane(),
            unproven: lane(),
        }))
    }

    /// Queues a webhook to be stored. If there is no room, or its body is too large, it is
    /// dropped.
    pub(crate) fn capture(&self, inbound: Inbound, reason: &'static str, is_genuine: bool) {
        let Some(lanes) = self.0.as_ref().filter(|_| inbound.body.len() <= LARGEST) else {
            return;
        };
        let lane = if is_genuine {
            &lanes.genuine
        } else {
            &lanes.unproven
        };
        let Ok(length) = u32::try_from(inbound.body.len()) else {
            return;
        };
        if let Ok(bytes) = Arc::clone(&lane.bytes).try_acquire_many_owned(length) {
            let _ = lane.sender.try_send(Waiting {
                inbound,
                reason,
                is_genuine,
                _bytes: bytes,
            });
        }
    }
}

async fn run(mut inbox: mpsc::Receiver<Waiting>, intake: Arc<dyn Intake>, accounts: Arc<Accounts>) {
    let lines = LineSampler::default();
    while let Some(first) = inbox.recv().await {
        let mut length = first.inbound.body.len();
        let mut some = vec![first];
        while length < LARGEST
            && let Ok(next) = inbox.try_recv()
        {
            length += next.inbound.body.len();
            some.push(next);
        }
        futures::future::join_all(
            some.into_iter()
                .map(|waiting| hold(&*intake, &accounts, waiting, &lines)),
        )
        .await;
        // At a stop nothing more comes, and nobody is kept waiting.
        if !inbox.is_closed() {
            sleep(rest_after(length)).await;
        }
    }
}

/// The rest after storing this many bytes.
fn rest_after(length: usize) -> Duration {
    Duration::from_secs_f64(length as f64 / f64::from(BYTES_A_SECOND)).max(PAUSE)
}

async fn hold(intake: &dyn Intake, accounts: &Accounts, waiting: Waiting, lines: &LineSampler) {
    let Waiting {
        inbound,
        reason,
        is_genuine,
        _bytes,
    } = waiting;
    // A body that names no listed account is not stored.
    let account = match is_genuine {
        false => accounts.claimed_by(&inbound.body),
        true => match accounts.claim(&inbound.body) {
            AccountClaim::Listed(name) | AccountClaim::Alike { listed: name, .. } => Some(name),
            AccountClaim::Unlisted(_) => accounts.claimed_by(&inbound.body),
        },
    };
    let Some(account) = account else { return };
    let webhook = RejectedWebhook {
        id: 0,
        inbound,
        reason: reason.to_owned(),
        account,
    };
    // Where none can be held, as many fail as are refused, and the log may be on the full disk.
    if let Err(error) = intake.capture_rejected(webhook).await
        && let Some(left_out) = lines.admit()
    {
        tracing::warn!(reason, error = %ErrorChain(&error), left_out, "a refused webhook is not held; left out: lines like this since the last");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use event_model::{Account, Clock, Environment, Event, Headers, KeyName, SystemClock};
    use futures::FutureExt;
    use futures::future::{BoxFuture, ready};
    use queue::{Impediment, Quarantined, QueueError, Receipt};
    use queue_embedded::{Embedded, Options};
    use tokio::time::timeout;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Level, Metadata, Subscriber};

    use super::*;

    fn webhook(number: usize, length: usize) -> Inbound {
        let head = format!(r#"{{"accountId":"ACME","number":{number},"pad":""#);
        let body = format!("{head}{}\"}}", "x".repeat(length - head.len() - 2));
        Inbound {
            body: body.into(),
            headers: Headers::default(),
            received_at: SystemClock.now(),
        }
    }

    #[tokio::test]
    async fn forgeries_take_no_room_of_what_fluent_signed() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path().join("queue.db"));
        let queue = Arc::new(Embedded::open(options, Arc::new(SystemClock)).unwrap());
        let intake: Arc<dyn Intake> = Arc::clone(&queue) as _;
        let key = KeyName::new("sydney", Environment::Sandbox);
        let accounts = [Account {
            name: "ACME".to_owned(),
            key,
            retailers: None,
        }];
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let rejected =
            RejectedCapture::start(&intake, &Arc::new(Accounts::new(accounts)), &shutdown);
        for number in 0..WAITING {
            rejected.capture(webhook(number, LARGEST), "signature-mismatch", false);
        }
        let unproven = &rejected.0.as_ref().unwrap().unproven;
        assert_eq!(
            unproven.bytes.available_permits(),
            0,
            "more than is remembered"
        );
        rejected.capture(webhook(0, 100), "unknown-retailer", true);
        let is_held = async {
            loop {
                let held = queue.stores().refused().list(0, 100).await.unwrap();
                if held
                    .iter()
                    .any(|webhook| &*webhook.reason == "unknown-retailer")
                {
                    return held.len();
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let held = timeout(Duration::from_mins(1), is_held).await.unwrap();
        assert!(
            held < WAITING_BYTES / LARGEST,
            "{held}: the flood is not what it waited for"
        );
    }

    /// An intake whose disk is full.
    #[derive(Debug)]
    struct Full;

    impl Intake for Full {
        fn publish(&self, _: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
            ready(Err(QueueError::Full)).boxed()
        }

        fn quarantine(&self, _: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
            ready(Err(QueueError::Full)).boxed()
        }

        fn capture_rejected(&self, _: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
            ready(Err(QueueError::Full)).boxed()
        }

        fn impediment(&self) -> Option<Impediment> {
            Some("it refuses".into())
        }
    }

    /// Counts the warnings that are logged on this thread.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicUsize>);

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[tokio::test]
    async fn on_a_full_disk_refused_webhooks_have_one_line() {
        let lines = Lines::default();
        let _counting = tracing::subscriber::set_default(lines.clone());
        let key = KeyName::new("sydney", Environment::Sandbox);
        let accounts = [Account {
            name: "ACME".to_owned(),
            key,
            retailers: None,
        }];
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let intake: Arc<dyn Intake> = Arc::new(Full);
        let accounts = Arc::new(Accounts::new(accounts));
        let rejected = RejectedCapture::start(&intake, &accounts, &shutdown);
        for number in 0..WAITING {
            rejected.capture(webhook(number, 100), "signature-mismatch", false);
        }
        let unproven = &rejected.0.as_ref().unwrap().unproven;
        let is_done = async {
            while unproven.bytes.available_permits() < WAITING_BYTES {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_mins(1), is_done).await.unwrap();
        assert_eq!(lines.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn many_bytes_are_followed_by_a_long_rest() {
        assert_eq!(rest_after(100), PAUSE);
        assert_eq!(rest_after(1 << 20), Duration::from_secs(1));
        assert_eq!(rest_after(256 << 10), Duration::from_millis(250));
    }
}
