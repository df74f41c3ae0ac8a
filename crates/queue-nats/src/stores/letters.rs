//! Dead letters: listing, redriving and discarding them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::HeaderMap;
use event_model::{EventId, Timestamp};
use fail::fail_point;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use percent_encoding::percent_decode_str;
use queue::{
    DeadLetter, DeadLetters, DeadPage, DeadQuery, DeadReason, PAGE_BYTES, QueueError,
    redrive_number,
};
use serde_json::json;

use crate::api;
use crate::consuming::DeliveryState;
use crate::message::{self, parsed, text};
use crate::names::{DEAD_LETTERS, HEADER_BURIED, HEADER_DETAIL, HEADER_REASON, HEADER_ROUTE, dead};
use crate::stores::JetStreamStores;
use crate::stores::scan::{Scan, Stored};
use crate::streams::{DEAD, Shard};

impl DeadLetters for JetStreamStores {
    fn list(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<DeadLetter>, QueueError>> {
        Box::pin(async move { Ok(self.letters(&query, usize::MAX).await?.letters) })
    }

    fn page(
        &self,
        query: DeadQuery,
        examined: usize,
    ) -> BoxFuture<'_, Result<DeadPage, QueueError>> {
        Box::pin(async move { self.letters(&query, examined).await })
    }

    fn last_id(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        Box::pin(async move {
            let info = api::stream_info(&self.0.link, DEAD).await;
            let info = info.map_err(|error| error.of("reading dead letters"))?;
            Ok(info.state.last_sequence)
        })
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, QueueError>> {
        Box::pin(async move { Ok(self.letter(id).await?.0) })
    }

    fn count(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueueError>> {
        Box::pin(async move {
            let counts = api::subjects(&self.0.link, DEAD, DEAD_LETTERS).await;
            let counts = counts.map_err(|error| error.of("counting dead letters"))?;
            let route = |subject: String| subject.rsplit('.').next().unwrap_or_default().to_owned();
            Ok(counts
                .into_iter()
                .map(|(subject, count)| (route(subject), count))
                .collect())
        })
    }

    fn redrive<'a>(
        &'a self,
        ids: &'a [u64],
        to: Option<&'a str>,
    ) -> BoxFuture<'a, Vec<Result<(), QueueError>>> {
        Box::pin(async move {
            let known = Known::default();
            let each: Vec<_> = ids
                .iter()
                .map(|id| self.redrive_one(*id, to, &known).boxed())
                .collect();
            stream::iter(each).buffered(TOGETHER).collect().await
        })
    }

    fn discard<'a>(&'a self, ids: &'a [u64]) -> BoxFuture<'a, Vec<Result<(), QueueError>>> {
        let each = ids.iter().map(async |id| {
            self.letter(*id).await?;
            self.remove(*id).await
        });
        Box::pin(stream::iter(each).buffered(TOGETHER).collect())
    }
}

/// Letters that are redriven or discarded at once.
const TOGETHER: usize = 64;

/// Routes that were found to exist.
#[derive(Debug, Default)]
struct Known(Mutex<HashSet<String>>);

impl Known {
    fn routes(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JetStreamStores {
    /// Lists letters among the next `examined` ones.
    async fn letters(&self, query: &DeadQuery, examined: usize) -> Result<DeadPage, QueueError> {
        let subject = query.route.as_deref();
        let scan = Scan {
            stream: DEAD,
            subject: subject.map_or_else(|| DEAD_LETTERS.to_owned(), dead),
            from: query.after.saturating_add(1),
            since: None,
            headers_only: false,
        };
        let mut page = DeadPage::default();
        let mut bytes = 0;
        let mut looked_at = 0;
        let look = |stored: Stored| {
            if stored.sequence > query.up_to {
                page.next = None;
                return false;
            }
            looked_at += 1;
            page.next = Some(stored.sequence).filter(|_| stored.pending > 0);
            if let Some(letter) = letter(&stored).filter(|letter| query.matches(letter)) {
                bytes += letter.event.body().len();
                page.letters.push(letter);
            }
            page.letters.len() < query.limit && bytes < PAGE_BYTES && looked_at < examined
        };
        if query.limit > 0 {
            scan.each(&self.0.link, look).await?;
        }
        Ok(page)
    }

    /// Publishes the delivery first and then removes the letter: if this process crashes between,
    /// the letter is still here, and publishing it again is a duplicate.
    async fn redrive_one(
        &self,
        id: u64,
        to: Option<&str>,
        known: &Known,
    ) -> Result<(), QueueError> {
        let (letter, past) = self.letter(id).await?;
        let route = to.unwrap_or(&letter.route);
        self.ensure_known(route, known).await?;
        let fresh = DeliveryState {
            // Numbered by the letter's own position, so that publishing it twice gives the same
            // number. A letter of an earlier epoch of the stream may have come from a higher
            // position.
            redrive: redrive_number(id).max(letter.redrive.saturating_add(1)),
            // If a person names another route, that is where it goes, whatever the route matches.
            asks_match: letter.reason == DeadReason::Undecided && route == letter.route,
            ..DeliveryState::none(past.position)
        };
        fail_point!("redrive.before");
        self.0
            .requeue(&letter.event, &fresh, route, None, "redrive")
            .await?;
        fail_point!("redrive.after");
        self.remove(id).await
    }

    async fn ensure_known(&self, route: &str, known: &Known) -> Result<(), QueueError> {
        if known.routes().contains(route) {
            return Ok(());
        }
        match api::consumer_info(&self.0.link, Shard::ONLY.events(), route).await {
            Ok(info) => {
                self.0.note_route_epoch(&info);
                known.routes().insert(route.to_owned());
                Ok(())
            }
            Err(error) if error.is_missing() => Err(QueueError::NotFound(format!("route {route}"))),
            Err(error) => Err(error.of("looking for a route")),
        }
    }

    /// Whether this letter is still there: it may have been redriven or discarded.
    pub(crate) async fn has_letter(
        &self,
        id: u64,
        route: &str,
        event: EventId,
    ) -> Result<bool, QueueError> {
        match self.letter(id).await {
            Ok((letter, _)) => Ok(letter.route == route && letter.event.id() == event),
            Err(QueueError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn letter(&self, id: u64) -> Result<(DeadLetter, DeliveryState), QueueError> {
        let found = api::get_message(&self.0.link, DEAD, &json!({ "seq": id })).await;
        let found = found.map_err(|error| error.of("reading a dead letter"))?;
        let none = || QueueError::NotFound(format!("dead letter {id}"));
        let message = found.ok_or_else(none)?;
        let past = DeliveryState::read(&message.headers).map_err(|_| none())?;
        let stored = Stored {
            sequence: id,
            pending: 0,
            subject: message.subject.to_string(),
            headers: message.headers,
            body: message.payload,
        };
        Ok((letter(&stored).ok_or_else(none)?, past))
    }

    async fn remove(&self, id: u64) -> Result<(), QueueError> {
        let removed = api::delete_message(&self.0.link, DEAD, id).await;
        removed.map_err(|error| error.of("removing a dead letter"))
    }
}

fn letter(stored: &Stored) -> Option<DeadLetter> {
    let headers = &stored.headers;
    let read = || {
        let past = DeliveryState::read(headers).ok()?;
        Some(DeadLetter {
            id: stored.sequence,
            route: text(headers, HEADER_ROUTE)?.to_owned(),
            event: message::event(headers, stored.body.clone()).ok()?,
            reason: DeadReason::from_name(text(headers, HEADER_REASON)?)?,
            detail: detail(headers),
            attempts: past.attempts,
            at: parsed::<Timestamp>(headers, HEADER_BURIED).ok()?,
            redrive: past.redrive,
        })
    };
    let letter = read();
    if letter.is_none() {
        tracing::error!(
            letter = stored.sequence,
            subject = stored.subject,
            "a dead letter can't be read"
        );
    }
    letter
}

fn detail(headers: &HeaderMap) -> Option<String> {
    let encoded = text(headers, HEADER_DETAIL)?;
    Some(percent_decode_str(encoded).decode_utf8_lossy().into_owned())
}
