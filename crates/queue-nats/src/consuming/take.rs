//! From a message to a delivery.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, Subject};
use event_model::Event;
use queue::{Delivery, Filter, Outcome, QueueError, Ticket};
use tokio::time::Instant;

use crate::attempts::Then;
use crate::beside::quarantined::keep_damaged;
use crate::consuming::alone::Place;
use crate::consuming::lease::{GivenBack, NatsLease, bury_crashed, end, ended, line};
use crate::consuming::past::Past;
use crate::message;
use crate::names::EVENTS;
use crate::shared::{Origin, Shared};

/// A route, as its consumer needs it.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) filter: Filter,
    pub(crate) lease: Duration,
}

/// A message that makes sense, and is held for this route.
pub(crate) struct Taken {
    origin: Origin,
    reply: Subject,
    event: Arc<Event>,
    /// This attempt not included.
    past: Past,
    until: Instant,
    /// Of the stream when it was taken.
    life: u64,
}

/// What came of a message.
pub(crate) enum Took {
    /// It is to be delivered.
    Delivery(Box<Taken>),
    /// The route does not match it; to be settled by this word.
    NotForUs(Subject),
    /// It was dealt with.
    Nothing,
}

impl Taking {
    /// Reads `message`. What is not for this route, or not an event any more,
    /// is dealt with here.
    pub(crate) async fn take(&self, stream: &'static str, message: Message) -> Took {
        let (until, life) = (end(self.lease), self.shared.standing.life());
        let place = message.reply.clone().and_then(|reply| Some((counts(&reply)?, reply)));
        let Some(((delivered, sequence), reply)) = place else { return Took::Nothing };
        let headers = message.headers.unwrap_or_default();
        let (event, past) = match read(stream, sequence, &headers, message.payload.clone()) {
            Ok(read) => read,
            Err(why) => {
                tracing::error!(route = &*self.route, stream, sequence, %why, "a stored message is damaged: kept apart");
                keep_damaged(&self.shared, &headers, message.payload, why, &reply).await;
                return Took::Nothing;
            }
        };
        if stream == EVENTS && !self.filter.matches(&event) {
            return Took::NotForUs(reply);
        }
        let origin = Origin { stream, sequence };
        let mut taken = Taken { origin, reply, event: Arc::new(event), past, until, life };
        if delivered > 1 {
            match self.died(&mut taken, delivered - 1).await {
                Ok(true) => return Took::Nothing,
                Ok(false) => {}
                // It may be what a process died of: not handed out on a guess.
                Err(error) => {
                    tracing::warn!(route = &*self.route, %error, "what became of an attempt can't be read: it comes again after its lease");
                    return Took::Nothing;
                }
            }
        }
        Took::Delivery(Box::new(taken))
    }

    /// The server sent it before, and nobody settled it: a process died, or hung
    /// for longer than its lease. Says whether it was buried.
    async fn died(&self, taken: &mut Taken, deaths: u32) -> Result<bool, QueueError> {
        taken.past.attempts += deaths;
        taken.past.deaths += deaths;
        let lease = self.lease.saturating_mul(deaths);
        let began = self.shared.clock.now().saturating_sub(lease).ok();
        taken.past.first_attempt_at = taken.past.first_attempt_at.or(began);
        let (shared, event, past) = (&self.shared, &taken.event, &taken.past);
        let place = Place { route: &self.route, origin: taken.origin, event: event.id() };
        if place.is_marked(shared).await? {
            tracing::error!(route = &*self.route, event.id = %event.id(), "an event was alone in flight when the process died: it is a dead letter now");
            bury_crashed(shared, event, past, &self.route, &taken.reply).await?;
            return Ok(true);
        }
        let attempt = ended(shared, Outcome::Died);
        let line = line(event, &self.route, past, &attempt, Then::Back);
        if let Err(error) = shared.attempts.record(line).await {
            tracing::warn!(route = &*self.route, %error, "an attempt is missing in the history");
        }
        Ok(false)
    }

    /// Hands it out.
    pub(crate) fn deliver(&self, taken: Taken) -> Delivery {
        let Taken { origin, reply, event, mut past, until, life } = taken;
        past.attempts += 1;
        let first = *past.first_attempt_at.get_or_insert_with(|| self.shared.clock.now());
        let ticket = Ticket::new(NatsLease {
            shared: Arc::clone(&self.shared),
            route: Arc::clone(&self.route),
            origin,
            reply,
            event: Arc::clone(&event),
            past,
            lease: self.lease,
            until,
            life,
            is_over: false,
        });
        Delivery {
            event,
            position: past.position,
            redrive: past.redrive,
            attempt: past.attempts,
            first_attempt_at: first,
            deaths: past.deaths,
            asks_match: past.asks_match,
            ticket,
        }
    }

    /// Says that what waits here is alive.
    pub(crate) async fn keep(&self, taken: &mut Taken) {
        if self.shared.link.say(taken.reply.clone(), "+WPI").await.is_ok() {
            taken.until = end(self.lease);
        }
    }

    /// Gives back what nobody took.
    pub(crate) fn give_back(&self, taken: Taken) -> GivenBack {
        GivenBack {
            shared: Arc::clone(&self.shared),
            route: Arc::clone(&self.route),
            origin: taken.origin,
            reply: taken.reply,
            event: taken.event,
            past: taken.past,
            was_handed_out: false,
        }
    }
}

impl Taken {
    /// Whether somebody else may have it by now.
    pub(crate) fn is_lost(&self) -> bool {
        Instant::now() >= self.until
    }
}

fn read(
    stream: &str,
    sequence: u64,
    headers: &HeaderMap,
    body: bytes::Bytes,
) -> Result<(Event, Past), message::NotAnEvent> {
    let event = message::event(headers, body)?;
    let past = if stream == EVENTS { Past::none(sequence) } else { Past::read(headers)? };
    Ok((event, past))
}

/// How often it was sent, and where it is stored: of an ack subject, by ADR-15
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>....`, with domain and
/// account before the stream where there are eleven tokens or more.
fn counts(reply: &Subject) -> Option<(u32, u64)> {
    let tokens: Vec<&str> = reply.as_str().split('.').collect();
    let first = if tokens.len() >= 11 { 6 } else { 4 };
    Some((tokens.get(first)?.parse().ok()?, tokens.get(first + 1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_ack_subjects_are_read() {
        let old = Subject::from("$JS.ACK.FLUENT_EVENTS.r.2.71.5.1700000000000000000.3");
        let new = Subject::from("$JS.ACK.hub.ACCHASH.FLUENT_EVENTS.r.2.71.5.1700000000000000000.3.x");
        assert_eq!((counts(&old), counts(&new)), (Some((2, 71)), Some((2, 71))));
        assert_eq!(counts(&Subject::from("_INBOX.x")), None);
    }
}
