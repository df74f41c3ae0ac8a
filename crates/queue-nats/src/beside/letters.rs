use async_nats::HeaderMap;
use event_model::Timestamp;
use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;
use queue::{DeadLetter, DeadLetters, DeadQuery, DeadReason, QueueError};
use serde_json::json;

use crate::api;
use crate::beside::Beside;
use crate::beside::scan::{Scan, Stored};
use crate::consuming::Past;
use crate::message::{self, parsed, text};
use crate::names::{
    DEAD, DEAD_SUBJECT, EVENTS, HEADER_BURIED, HEADER_DETAIL, HEADER_REASON, HEADER_ROUTE, dead,
};

impl DeadLetters for Beside {
    fn list(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<DeadLetter>, QueueError>> {
        Box::pin(async move {
            let subject = query.route.as_deref().map_or_else(|| DEAD_SUBJECT.to_owned(), dead);
            let scan = Scan { stream: DEAD, subject, from: query.after + 1, headers_only: false };
            let mut found = Vec::new();
            let look = |stored: Stored| {
                if let Some(letter) = letter(&stored).filter(|letter| asked_for(letter, &query)) {
                    found.push(letter);
                }
                found.len() < query.limit
            };
            if query.limit > 0 {
                scan.each(&self.0.link, look).await?;
            }
            Ok(found)
        })
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, QueueError>> {
        Box::pin(async move { Ok(self.letter(id).await?.0) })
    }

    fn count(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueueError>> {
        Box::pin(async move {
            let counts = api::subjects(&self.0.link, DEAD, DEAD_SUBJECT).await;
            let counts = counts.map_err(|error| error.of("counting dead letters"))?;
            let route = |subject: String| subject.rsplit('.').next().unwrap_or_default().to_owned();
            Ok(counts.into_iter().map(|(subject, count)| (route(subject), count)).collect())
        })
    }

    /// Handed over first, then removed: should this process die in between, the
    /// letter is still here, and handing it over again is a duplicate.
    fn redrive<'a>(&'a self, id: u64, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let (letter, past) = self.letter(id).await?;
            match api::consumer_info(&self.0.link, EVENTS, route).await {
                Ok(_) => {}
                Err(error) if error.is_missing() => {
                    return Err(QueueError::NotFound(format!("route {route}")));
                }
                Err(error) => return Err(error.of("looking for a route")),
            }
            let fresh =
                Past { redrive: letter.redrive + 1, attempts: 0, deaths: 0, first_attempt_at: None, ..past };
            self.0.requeue(&letter.event, &fresh, route, "redrive").await?;
            self.remove(id).await
        })
    }

    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            self.letter(id).await?;
            self.remove(id).await
        })
    }
}

impl Beside {
    async fn letter(&self, id: u64) -> Result<(DeadLetter, Past), QueueError> {
        let found = api::get_message(&self.0.link, DEAD, &json!({ "seq": id })).await;
        let found = found.map_err(|error| error.of("reading a dead letter"))?;
        let none = || QueueError::NotFound(format!("dead letter {id}"));
        let message = found.ok_or_else(none)?;
        let past = Past::read(&message.headers).map_err(|_| none())?;
        let stored = Stored {
            sequence: id,
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
        let past = Past::read(headers).ok()?;
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
        tracing::error!(letter = stored.sequence, subject = stored.subject, "a dead letter can't be read");
    }
    letter
}

fn detail(headers: &HeaderMap) -> Option<String> {
    let encoded = text(headers, HEADER_DETAIL)?;
    Some(percent_decode_str(encoded).decode_utf8_lossy().into_owned())
}

fn asked_for(letter: &DeadLetter, query: &DeadQuery) -> bool {
    let fields = letter.event.fields();
    let of = |reference: &String| {
        [&fields.entity_ref, &fields.root_entity_ref].into_iter().flatten().any(|found| found == reference)
    };
    query.not_route.as_ref().is_none_or(|route| *route != letter.route)
        && query.reference.as_ref().is_none_or(of)
}
