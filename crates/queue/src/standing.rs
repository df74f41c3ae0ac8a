use event_model::Timestamp;

/// How a queue does, for who watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
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
    pub spool: Option<SpoolStanding>,
}

/// What a spool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStanding {
    /// Events that the queue does not have yet.
    pub unsent: u64,
    /// When the oldest of them came in.
    pub oldest_unsent: Option<Timestamp>,
    /// Bytes of everything that is kept.
    pub bytes: u64,
}
