//! Attempts that have ended, the newest first: the log is read from its end.

use queue::{AttemptPage, AttemptQuery, EndedAttempt, QueueError};

use crate::api;
use crate::attempts::AttemptRecord;
use crate::names::ATTEMPTS_LOG;
use crate::stores::JetStreamStores;
use crate::stores::scan::{Scan, Stored};
use crate::streams::ATTEMPTS;

/// Messages read at once, at first and at most. Each has up to 512 attempts.
const MESSAGES: u64 = 8;
const MOST_MESSAGES: u64 = 256;

/// Most messages that are read for one query.
const LOOK: u64 = 4096;

impl JetStreamStores {
    pub(crate) async fn ended(&self, query: &AttemptQuery) -> Result<AttemptPage, QueueError> {
        let info = api::stream_info(&self.0.link, ATTEMPTS).await;
        let state = info.map_err(|error| error.of("reading attempts"))?.state;
        let mut page = AttemptPage::default();
        let mut before = query
            .before
            .unwrap_or(u64::MAX)
            .min(state.last_sequence + 1);
        let mut messages = MESSAGES;
        let mut left = LOOK;
        while left > 0 && before > state.first_sequence && page.attempts.len() < query.limit.max(1)
        {
            let from = before.saturating_sub(messages).max(state.first_sequence);
            let read = self.between(from, before).await?;
            let is_old = read
                .last()
                .is_some_and(|(_, attempts)| is_over(query, attempts));
            page.next = self
                .take(query, read, &mut page.attempts)
                .or((!is_old).then_some(from));
            if is_old {
                return Ok(page);
            }
            left = left.saturating_sub(before - from);
            before = from;
            messages = (messages * 2).min(MOST_MESSAGES);
        }
        page.next = page.next.filter(|next| *next > state.first_sequence);
        Ok(page)
    }

    /// Takes messages, the newest first, until there is enough; returns where to go on.
    fn take(
        &self,
        query: &AttemptQuery,
        read: Vec<(u64, Vec<EndedAttempt>)>,
        into: &mut Vec<EndedAttempt>,
    ) -> Option<u64> {
        for (sequence, attempts) in read {
            into.extend(
                attempts
                    .into_iter()
                    .filter(|attempt| query.matches(attempt)),
            );
            if into.len() >= query.limit.max(1) {
                return Some(sequence);
            }
        }
        None
    }

    /// Returns the messages of a part of the log, the newest first, and so the attempts in each.
    async fn between(
        &self,
        from: u64,
        before: u64,
    ) -> Result<Vec<(u64, Vec<EndedAttempt>)>, QueueError> {
        let subject = ATTEMPTS_LOG.to_owned();
        let scan = Scan {
            stream: ATTEMPTS,
            subject,
            from,
            since: None,
            headers_only: false,
        };
        let mut read = Vec::new();
        let look = |stored: Stored| {
            if stored.sequence < before {
                let attempts = attempts(&stored.body, stored.sequence + 1);
                read.push((stored.sequence, attempts));
            }
            stored.sequence + 1 < before
        };
        scan.each(&self.0.link, look).await?;
        read.reverse();
        Ok(read)
    }
}

/// Whether everything before is older than the query wants. A message is written within seconds
/// of the ends of its attempts.
fn is_over(query: &AttemptQuery, attempts: &[EndedAttempt]) -> bool {
    const SLACK: std::time::Duration = std::time::Duration::from_mins(2);
    let newest = attempts.iter().map(EndedAttempt::ended_at).max();
    let newest = newest.and_then(|newest| newest.checked_add(SLACK).ok());
    newest
        .zip(query.since)
        .is_some_and(|(newest, since)| newest < since)
}

/// The attempts of one message, the newest first.
fn attempts(body: &[u8], place: u64) -> Vec<EndedAttempt> {
    let lines = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let mut attempts: Vec<_> = lines
        .filter_map(|line| {
            let record: AttemptRecord = serde_json::from_slice(line).ok()?;
            record.ended(place)
        })
        .collect();
    attempts.reverse();
    attempts
}
