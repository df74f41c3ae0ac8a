//! The role of a queue or spool for the process that opened it.

use std::fmt;

use event_model::Timestamp;
use futures::future::BoxFuture;

/// Something that is opened with a process, watched, and closed with it.
///
/// ```
/// use fluent_queue::Lifecycle;
///
/// async fn run(queue: &dyn Lifecycle, stopped: impl Future<Output = ()> + Unpin) {
///     let ended = futures::future::select(queue.failed(), stopped).await;
///     if let futures::future::Either::Left((why, _)) = ended {
///         println!("this process must be started anew: {why}");
///     }
///     queue.close().await;
/// }
/// ```
pub trait Lifecycle: fmt::Debug + Send + Sync {
    /// Resolves with the reason when this handle can never do its work again; the process should
    /// then end, and be restarted.
    fn failed(&self) -> BoxFuture<'_, String>;

    /// Reports the health, for monitoring. Called every few seconds.
    fn health(&self) -> BoxFuture<'_, QueueHealth>;

    /// Finishes what was asked, gives back open deliveries, and stops. No call is accepted
    /// afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}

const _: fn(&dyn Lifecycle) = |_| {};

/// Health of a queue, for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueHealth {
    /// Whether the queue itself accepts events now; a spool before it may accept them anyway.
    pub is_reachable: bool,
    /// Milliseconds by which this process's clock is ahead of the queue's servers; negative if it
    /// is behind. Where the servers' clocks differ more from each other, that difference. `None` if
    /// the queue has no clock of its own, or has not answered.
    pub clock_ahead_ms: Option<i64>,
    /// Seconds for which an id is known, at least: shorter than configured if a stream was so
    /// full that events had to be removed early. `None` if the queue stores ids apart from
    /// events.
    pub ids_known_for: Option<u64>,
    /// Number of stored messages that were not genuine, since this process began; 0 if the queue
    /// does not reverify.
    pub forged: u64,
    /// Number of times that a delivery had to wait since this process began, because its key is
    /// not among this process's keys.
    pub key_unknown: u64,
    /// The spool before the queue, if there is one.
    pub spool: Option<SpoolHealth>,
}

/// Fill level of a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolHealth {
    /// Events that the queue does not have yet.
    pub unsent: u64,
    /// Arrival of the oldest of them.
    pub oldest_unsent: Option<Timestamp>,
    /// Bytes of everything that the spool stores.
    pub bytes: u64,
}
