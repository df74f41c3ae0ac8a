//! Catching up: brings an index of events and attempts up to what the streams hold.

use std::sync::Arc;

use event_model::EventId;
use percent_encoding::percent_decode_str;
use queue::{HistoryIndex, IndexedAttempt, IndexedEvent, Log, Position, QueueError};

use crate::api;
use crate::attempts::AttemptRecord;
use crate::connect::NatsConnection;
use crate::message::text;
use crate::names::{ATTEMPTS_LOG, EVENTS_SUBJECT, HEADER_FLUENT_ID, HEADER_ID, HEADER_ROOT};
use crate::stores::scan::{Scan, Stored};
use crate::streams::{ATTEMPTS, Shard};

/// Rows written to the index at once.
const TOGETHER: usize = 8192;

/// Adds to the index what it does not have yet of both streams.
pub(crate) async fn catch_up(
    link: &NatsConnection,
    index: &Arc<dyn HistoryIndex>,
) -> Result<(), QueueError> {
    read(link, index, Log::Events).await?;
    read(link, index, Log::Attempts).await
}

async fn read(
    link: &NatsConnection,
    index: &Arc<dyn HistoryIndex>,
    log: Log,
) -> Result<(), QueueError> {
    let (stream, subject) = match log {
        Log::Events => (Shard::ONLY.events(), EVENTS_SUBJECT),
        Log::Attempts => (ATTEMPTS, ATTEMPTS_LOG),
    };
    let info = api::stream_info(link, stream)
        .await
        .map_err(|error| error.of("looking at what is indexed"))?;
    let life = info.created.unix_timestamp_nanos().to_string();
    let first = Shard::ONLY.position(info.state.first_sequence)?;
    let last = Shard::ONLY.position(info.state.last_sequence)?;
    let mut known = index.known(log)?;
    // Another stream, or one that ends before what was read: the positions in the index are not
    // those of this stream.
    if known.life != life || known.last > last {
        known = index.begin(log, &life, &known)?;
    }
    if known.life != life {
        // Another process has found a stream that is newer than this one.
        return Err(QueueError::unavailable(
            "reading the queue for the index",
            "it was made anew meanwhile",
        ));
    }
    index.trim(log, known.generation, first)?;
    if known.last >= last {
        return Ok(());
    }
    let headers_only = log == Log::Events;
    let scan = Scan {
        stream,
        subject: subject.to_owned(),
        from: known.last.sequence() + 1,
        since: None,
        headers_only,
    };
    let mut rows = Rows {
        index,
        log,
        generation: known.generation,
        events: Vec::new(),
        attempts: Vec::new(),
        failed: None,
    };
    scan.each(link, |stored| rows.take(&stored)).await?;
    // What lies between the last message of this subject and the end is of no use to the index.
    rows.write(last);
    rows.failed.map_or(Ok(()), Err)
}

/// Rows that were read and are not yet in the index.
struct Rows<'i> {
    index: &'i Arc<dyn HistoryIndex>,
    log: Log,
    /// The index that they were read for.
    generation: i64,
    events: Vec<IndexedEvent>,
    attempts: Vec<IndexedAttempt>,
    failed: Option<QueueError>,
}

impl Rows<'_> {
    /// Takes one message; returns whether to go on.
    fn take(&mut self, stored: &Stored) -> bool {
        let position = match Shard::ONLY.position(stored.sequence) {
            Ok(position) => position,
            Err(error) => {
                self.failed = Some(error.into());
                return false;
            }
        };
        match self.log {
            Log::Events => self.events.extend(event(stored, position)),
            Log::Attempts => self.attempts.extend(attempts(stored, position)),
        }
        if self.events.len() + self.attempts.len() >= TOGETHER {
            self.write(position);
        }
        self.failed.is_none()
    }

    fn write(&mut self, last: Position) {
        if self.failed.is_some() {
            return;
        }
        let written = match self.log {
            Log::Events => self.index.add_events(self.generation, &self.events, last),
            Log::Attempts => self
                .index
                .add_attempts(self.generation, &self.attempts, last),
        };
        self.failed = written.err();
        self.events.clear();
        self.attempts.clear();
    }
}

fn event(stored: &Stored, position: Position) -> Option<IndexedEvent> {
    let id: EventId = text(&stored.headers, HEADER_ID)?.parse().ok()?;
    let reference = |name: &'static str| {
        let entity = percent_decode_str(text(&stored.headers, name)?).decode_utf8_lossy();
        entity
            .split_once('/')
            .map(|(_, reference)| reference.to_owned())
    };
    let entity = reference("ce-subject");
    let root = reference(HEADER_ROOT).filter(|root| Some(root) != entity.as_ref());
    let fluent = text(&stored.headers, HEADER_FLUENT_ID);
    let fluent = fluent.map(|id| percent_decode_str(id).decode_utf8_lossy().into_owned());
    Some(IndexedEvent {
        position,
        id,
        entity,
        root,
        fluent,
    })
}

fn attempts(stored: &Stored, position: Position) -> Vec<IndexedAttempt> {
    let lines = stored
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let attempt = |line: &[u8]| {
        let read: AttemptRecord = serde_json::from_slice(line).ok()?;
        let id = read.event.parse().ok()?;
        Some(IndexedAttempt {
            position,
            id,
            line: line.to_vec(),
        })
    };
    lines.filter_map(attempt).collect()
}
