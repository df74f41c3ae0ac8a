//! Accepted events, the newest first: the stream is read from its end.

use event_model::Event;
use queue::{AcceptedPage, AcceptedQuery, PAGE_BYTES, QueueError};

use crate::api;
use crate::message;
use crate::names::EVENTS_SUBJECT;
use crate::stores::JetStreamStores;
use crate::stores::scan::{Scan, Stored};
use crate::streams::Shard;

/// Messages read at once, at first and at most.
const TOGETHER: u64 = 64;
const MOST_TOGETHER: u64 = 1024;

const READING: &str = "reading accepted events";

impl JetStreamStores {
    pub(crate) async fn newest(&self, query: &AcceptedQuery) -> Result<AcceptedPage, QueueError> {
        let info = api::stream_info(&self.0.link, Shard::ONLY.events()).await;
        let state = info.map_err(|error| error.of(READING))?.state;
        let first = state.first_sequence.max(query.after.saturating_add(1));
        let mut page = AcceptedPage::default();
        let mut before = query.before.unwrap_or(u64::MAX);
        before = before.min(state.last_sequence + 1);
        let mut together = TOGETHER;
        let mut left = query.examined as u64;
        let mut bytes = 0;
        while left > 0 && before > first {
            let from = before.saturating_sub(together.min(left)).max(first);
            let read = self.accepted_between(from, before, query).await?;
            for (place, event) in read.found {
                let Some(event) = event else {
                    page.unreadable += 1;
                    continue;
                };
                bytes += event.body().len();
                page.events.push((place, event));
                if page.events.len() >= query.limit || bytes >= PAGE_BYTES {
                    page.next = Some(place).filter(|next| *next > first);
                    return Ok(page);
                }
            }
            left = left.saturating_sub(before - from);
            before = from;
            together = match read.bytes > PAGE_BYTES {
                true => TOGETHER,
                false => (together * 2).min(MOST_TOGETHER),
            };
        }
        page.next = Some(before).filter(|before| *before > first);
        Ok(page)
    }

    /// The events of a part of the stream that the query wants, the newest first.
    async fn accepted_between(
        &self,
        from: u64,
        before: u64,
        query: &AcceptedQuery,
    ) -> Result<ReadPart, QueueError> {
        let scan = Scan {
            stream: Shard::ONLY.events(),
            subject: EVENTS_SUBJECT.to_owned(),
            from,
            since: None,
            headers_only: false,
        };
        let mut read = ReadPart::default();
        let look = |stored: Stored| {
            if stored.sequence < before {
                read.bytes += stored.body.len();
                let event = message::event(&stored.headers, stored.body).ok();
                if event.as_ref().is_none_or(|event| query.matches(event)) {
                    read.found.push((stored.sequence, event));
                }
            }
            stored.sequence + 1 < before
        };
        scan.each(&self.0.link, look).await?;
        read.found.reverse();
        Ok(read)
    }
}

/// What was read of a part of the stream.
#[derive(Default)]
struct ReadPart {
    /// With `None` for one that can't be read.
    found: Vec<(u64, Option<Event>)>,
    /// Bytes of all bodies in it.
    bytes: usize,
}
