//! The state of a delivery before this attempt. The server counts how often it sent a message;
//! what happened to earlier messages of the same delivery is handed on in headers.

use async_nats::HeaderMap;
use event_model::{Event, Timestamp};
use queue::Position;

use crate::message::{self, NotAnEvent, parsed, text};
use crate::names::{
    HEADER_ASKED, HEADER_ASKS_MATCH, HEADER_ATTEMPTS, HEADER_DEATHS, HEADER_FIRST, HEADER_POSITION,
    HEADER_REDRIVE, HEADER_ROUTE,
};

/// State of a delivery over all of its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryState {
    /// Position of the event in the stream of events, where it is or was.
    pub(crate) position: Position,
    /// Number of the redrive; 0 if there was none.
    pub(crate) redrive: u32,
    /// Attempts begun so far.
    pub(crate) attempts: u32,
    /// Number of these that ended with a crash of the process.
    pub(crate) deaths: u32,
    /// Number of these that called the destination.
    pub(crate) asked: u32,
    /// Time at which the first one began, by the servers' clock: each dispatcher has its own.
    pub(crate) first_attempt_at: Option<Timestamp>,
    /// Whether the route's match is evaluated again.
    pub(crate) asks_match: bool,
}

impl DeliveryState {
    /// Returns the state of an event that nobody has attempted.
    pub(crate) fn none(position: Position) -> Self {
        Self {
            position,
            redrive: 0,
            attempts: 0,
            deaths: 0,
            asked: 0,
            first_attempt_at: None,
            asks_match: false,
        }
    }

    /// Reads the state from a message in the stream of retries.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, NotAnEvent> {
        Ok(Self {
            position: parsed(headers, HEADER_POSITION)?,
            redrive: parsed(headers, HEADER_REDRIVE)?,
            attempts: parsed(headers, HEADER_ATTEMPTS)?,
            deaths: parsed(headers, HEADER_DEATHS)?,
            asked: parsed(headers, HEADER_ASKED)?,
            first_attempt_at: text(headers, HEADER_FIRST).and_then(|time| time.parse().ok()),
            asks_match: headers.get(HEADER_ASKS_MATCH).is_some(),
        })
    }

    /// Returns the headers for the next message of the delivery.
    pub(crate) fn headers(&self, event: &Event, route: &str) -> HeaderMap {
        let mut headers = message::headers(event);
        headers.insert(HEADER_ROUTE, route);
        headers.insert(HEADER_POSITION, self.position.to_string());
        headers.insert(HEADER_REDRIVE, self.redrive.to_string());
        headers.insert(HEADER_ATTEMPTS, self.attempts.to_string());
        headers.insert(HEADER_DEATHS, self.deaths.to_string());
        headers.insert(HEADER_ASKED, self.asked.to_string());
        if self.asks_match {
            headers.insert(HEADER_ASKS_MATCH, "1");
        }
        if let Some(first) = self.first_attempt_at {
            headers.insert(HEADER_FIRST, first.to_string());
        }
        headers
    }

    /// Returns the state without the last attempt, which does not count: it was cut off, and the
    /// process that made it has given the delivery back.
    pub(crate) fn without_last_attempt(self) -> Self {
        let attempts = self.attempts.saturating_sub(1);
        let first_attempt_at = self.first_attempt_at.filter(|_| attempts > 0);
        Self {
            attempts,
            first_attempt_at,
            ..self
        }
    }

    /// Names the delivery in subjects and message ids.
    pub(crate) fn delivery(&self, event: &Event) -> String {
        format!("{}.{}", event.id(), self.redrive)
    }
}
