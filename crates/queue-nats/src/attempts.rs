//! The log of attempts. Attempts that end at the same time are written together: one message for
//! all of them, and one answer for everybody who waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use event_model::{Bytes, Timestamp};
use queue::{
    Attempt, DeadReason, EndedAttempt, EventSummary, Outcome, Position, QueueError, StoryStep,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::history_outage::{HistoryOutage, PATIENCE};
use crate::names::ATTEMPTS_LOG;
use crate::publishing::Publisher;
use crate::stream_monitor::StreamMonitor;

/// Most attempts that wait in memory to be written; further callers wait until there is room.
const WAITING: usize = 4096;

/// Most attempts of one message.
const GROUP: usize = 512;

/// Approximate number of bytes of one message, which may be exceeded by one attempt: far below
/// the stream's largest message, which is 3 MiB.
const GROUP_BYTES: usize = 1 << 20;

/// One line of the log. Other programs may read it: names are a public format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AttemptRecord {
    pub(crate) event: String,
    pub(crate) route: String,
    pub(crate) redrive: u32,
    pub(crate) attempt: u32,
    pub(crate) started_at: Timestamp,
    pub(crate) took_ns: u64,
    pub(crate) outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// The event's name, its account, its `entityType/entityRef`, and the ref of the entity that
    /// it belongs to: a search finds it by these.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_ref: Option<String>,
    /// State of the delivery after the attempt.
    pub(crate) then: NextState,
}

/// State of a delivery after an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NextState {
    /// The route is finished with it.
    Done,
    /// It waits for its next attempt.
    Waiting {
        /// Earliest time of the next attempt.
        due: Timestamp,
    },
    /// It is a dead letter.
    Dead {
        /// The dead letter's number.
        letter: u64,
        /// The reason for which it is dead.
        reason: DeadReason,
    },
    /// It comes again by itself, when its lease ends.
    Back,
}

impl AttemptRecord {
    /// Returns the attempt as commands and the API show it, with its place in the log.
    pub(crate) fn ended(self, place: u64) -> Option<EndedAttempt> {
        let id = self.event.parse().ok()?;
        let record = self.attempt();
        let step = StoryStep {
            route: self.route,
            redrive: self.redrive,
            attempt: self.attempt,
            record,
        };
        let about = EventSummary {
            name: self.name,
            account: self.account,
            entity: self.entity,
            root_ref: self.root_ref,
        };
        Some(EndedAttempt {
            id,
            about,
            step,
            place,
        })
    }

    pub(crate) fn attempt(&self) -> Attempt {
        Attempt {
            started_at: self.started_at,
            took: Duration::from_nanos(self.took_ns),
            outcome: self.outcome,
            status: self.status,
            detail: self.detail.clone(),
        }
    }
}

/// Returns the latest state of an event on a route: that of a delivery that is still on its way,
/// or else the newest. A letter that is redriven late has a lower number than a replay before it.
pub(crate) fn latest<'l>(
    lines: impl Iterator<Item = &'l AttemptRecord>,
) -> Option<&'l AttemptRecord> {
    let mut last: BTreeMap<u32, &AttemptRecord> = BTreeMap::new();
    for line in lines {
        let known = last.entry(line.redrive).or_insert(line);
        if (line.attempt, line.started_at) >= (known.attempt, known.started_at) {
            *known = line;
        }
    }
    let is_open =
        |line: &&&AttemptRecord| matches!(line.then, NextState::Waiting { .. } | NextState::Back);
    let open = last.values().rev().find(is_open);
    open.or_else(|| {
        last.values()
            .max_by_key(|line| (line.started_at, line.redrive))
    })
    .copied()
}

/// Reports that a line is written.
type Answer = oneshot::Sender<()>;

/// Pause before a failed write is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Handle by which attempts are handed to the writer of the log.
#[derive(Clone, Debug)]
pub(crate) struct Attempts {
    lines: mpsc::Sender<(AttemptRecord, Answer)>,
    pub(crate) outage: Arc<HistoryOutage>,
}

impl Attempts {
    /// Begins to write. The task ends when the last handle is dropped.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends when its senders are dropped"
    )]
    pub(crate) fn start(publisher: Publisher, monitor: Arc<StreamMonitor>) -> Self {
        let (lines, inbox) = mpsc::channel(WAITING);
        let outage = Arc::new(HistoryOutage::new(monitor));
        tokio::spawn(run(inbox, publisher, Arc::clone(&outage)));
        Self { lines, outage }
    }

    /// Writes one attempt of the event at `position`, with whatever else ends now, and waits for
    /// that. A history that can't be written stops no delivery: the line is then written later, as
    /// far as there is room.
    pub(crate) async fn record(&self, line: AttemptRecord, position: Position) {
        let route = line.route.clone();
        let (answer, mut answered) = oneshot::channel();
        let send = |line| self.lines.try_send(line).is_ok();
        let Some(line) = self
            .outage
            .hand_over(&route, position, (line, answer), send)
        else {
            return;
        };
        let mut is_lost = true;
        let written = async {
            if self.lines.send(line).await.is_ok() {
                is_lost = false;
                let _ = (&mut answered).await;
            }
        };
        if timeout(PATIENCE, written).await.is_err() {
            let is_written = || answered.try_recv().is_ok();
            self.outage
                .begin(&route, is_lost.then_some(position), is_written);
        }
    }
}

async fn run(
    mut inbox: mpsc::Receiver<(AttemptRecord, Answer)>,
    publisher: Publisher,
    outage: Arc<HistoryOutage>,
) {
    let mut group = Vec::with_capacity(GROUP);
    // Lines that nobody waits for: as long as there are any, a crash would lose them.
    let mut unanswered = 0usize;
    while !group.is_empty() || inbox.recv_many(&mut group, GROUP).await > 0 {
        let (body, count) = message(&group);
        while let Err(error) = write(&publisher, body.clone()).await {
            tracing::debug!(%error, "the history is not written, this time");
            if inbox.is_closed() {
                let missing = group.len() + inbox.len();
                return tracing::error!(
                    missing,
                    "attempts are missing in the history: it can't be written"
                );
            }
            sleep(AGAIN).await;
        }
        for (_, answer) in group.drain(..count) {
            let _ = answer.send(());
        }
        unanswered = outage
            .end(|| group.len() + inbox.len())
            .unwrap_or_else(|| unanswered.saturating_sub(count));
        if unanswered == 0 {
            outage.close();
        }
    }
}

/// Encodes as many lines as one message may have, and returns their number.
fn message(group: &[(AttemptRecord, Answer)]) -> (Bytes, usize) {
    let mut body = Vec::with_capacity(group.len() * 256);
    let mut count = 0;
    for (line, _) in group {
        // A line of strings and numbers always has a form in JSON.
        let _ = serde_json::to_writer(&mut body, line);
        body.push(b'\n');
        count += 1;
        if body.len() >= GROUP_BYTES {
            break;
        }
    }
    (body.into(), count)
}

async fn write(publisher: &Publisher, body: Bytes) -> Result<(), QueueError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        NATS_MESSAGE_ID,
        format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
    );
    publisher
        .put_bounded(ATTEMPTS_LOG.to_owned(), headers, body)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(redrive: u32, attempt: u32, second: i64, then: NextState) -> AttemptRecord {
        AttemptRecord {
            event: String::new(),
            route: "r".to_owned(),
            redrive,
            attempt,
            started_at: Timestamp::from_second(second).unwrap(),
            took_ns: 0,
            outcome: Outcome::Done,
            status: None,
            detail: None,
            name: String::new(),
            account: String::new(),
            entity: None,
            root_ref: None,
            then,
        }
    }

    #[test]
    fn a_message_is_bounded_in_bytes_and_every_line_is_in_one() {
        let entity = Some("\u{1}".repeat(queue::MAX_REF));
        let line = |attempt| AttemptRecord {
            entity: entity.clone(),
            ..line(0, attempt, 1, NextState::Done)
        };
        let mut group: Vec<_> = (0..GROUP as u32)
            .map(|attempt| (line(attempt), oneshot::channel().0))
            .collect();
        let mut written = Vec::new();
        while !group.is_empty() {
            let (body, count) = message(&group);
            assert!(body.len() < 2 * GROUP_BYTES, "{} bytes", body.len());
            let lines = body
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty());
            written.extend(lines.map(|line| {
                serde_json::from_slice::<AttemptRecord>(line)
                    .unwrap()
                    .attempt
            }));
            group.drain(..count);
        }
        assert!(written.into_iter().eq(0..GROUP as u32));
    }

    #[test]
    fn a_letter_that_is_redriven_after_a_replay_has_the_last_word() {
        let due = Timestamp::UNIX_EPOCH;
        let mut lines = vec![line(
            0,
            1,
            1,
            NextState::Dead {
                letter: 1,
                reason: DeadReason::Exhausted,
            },
        )];
        let said = |lines: &[AttemptRecord]| latest(lines.iter()).map(|line| line.then.clone());
        lines.push(line(2, 1, 2, NextState::Done));
        assert_eq!(said(&lines), Some(NextState::Done));
        lines.push(line(1, 1, 3, NextState::Waiting { due }));
        assert_eq!(said(&lines), Some(NextState::Waiting { due }));
        lines.push(line(
            1,
            2,
            4,
            NextState::Dead {
                letter: 3,
                reason: DeadReason::Permanent,
            },
        ));
        assert_eq!(
            said(&lines),
            Some(NextState::Dead {
                letter: 3,
                reason: DeadReason::Permanent
            })
        );
        assert_eq!(said(&[]), None);
    }
}
