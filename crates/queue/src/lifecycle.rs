//! The role that whatever is opened has for the process that opened it.

use std::fmt;

use event_model::Timestamp;
use futures::future::BoxFuture;

/// Something that is opened with a process, watched, and closed with it.
///
/// ```
/// use queue::Lifecycle;
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
    /// Resolves when this handle can never again do its work, with the reason;
    /// whoever runs the process should end it and start anew.
    fn failed(&self) -> BoxFuture<'_, String>;

    /// How it does, for whoever watches it. Asked every few seconds.
    fn health(&self) -> BoxFuture<'_, QueueHealth>;

    /// Finishes what was asked, gives back what is held, and stops. Nothing is taken after it.
    fn close(&self) -> BoxFuture<'_, ()>;
}

const _: fn(&dyn Lifecycle) = |_| {};

/// How a queue does, for who watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueHealth {
    /// Whether the queue itself takes events now, whoever else does.
    pub is_reachable: bool,
    /// By how many milliseconds the clock of this process is ahead of the queue's servers;
    /// behind them where it is negative. Unknown where the queue has no clock of its own,
    /// or was not heard of.
    pub clock_ahead_ms: Option<i64>,
    /// For how many seconds an id is known, at least: less than it is to be where a stream
    /// was so crowded that events had to go before their time. Unknown where the queue keeps
    /// ids apart from events.
    pub ids_known_for: Option<u64>,
    /// Stored messages that were not genuine, since this process began; none where it verifies
    /// nothing again.
    pub forged: u64,
    /// How often a delivery waited since its key is not among this process's, since it began.
    pub key_unknown: u64,
    /// The spool before it, if there is one.
    pub spool: Option<SpoolHealth>,
}

/// What a spool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolHealth {
    /// Events that the queue does not have yet.
    pub unsent: u64,
    /// When the oldest of them came in.
    pub oldest_unsent: Option<Timestamp>,
    /// Bytes of everything that is kept.
    pub bytes: u64,
}
