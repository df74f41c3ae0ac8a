//! Deliveries that are not handed out: given back to the server, or put away until their key is
//! known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use event_model::StoredVerdict;
use queue::QueueError;
use serde_json::json;
use tokio::time::Instant;

use crate::api;
use crate::consuming::fetcher::Fetcher;
use crate::consuming::route_consumer::{PendingDelivery, RedeliveryLookup};
use crate::message;
use crate::names::EVENTS_SUBJECT;

/// Interval at which an unknown key is logged.
const SAID_EVERY: Duration = Duration::from_mins(1);

impl Fetcher {
    /// Puts a delivery away until its key may be known. If nothing but such deliveries come in a
    /// stream, probably the keys here are wrong, and the rest of it is better left there.
    pub(super) async fn key_unknown(&mut self, taken: PendingDelivery, why: &str) {
        if self.key_said.is_none_or(|said| said.elapsed() > SAID_EVERY) {
            let route = &self.route.name;
            let key = taken.key();
            tracing::error!(
                route,
                key,
                "a delivery waits, since {why}: it goes on when this process's settings have that"
            );
            self.key_said = Some(Instant::now());
        }
        let stream = taken.stream();
        if self.source(stream).note_unknown() {
            match stream == self.events.stream && self.newest_is_known().await {
                true => self.events.note_known(),
                false => {
                    let until = Instant::now() + self.taking.shared.verification.retry();
                    self.source(stream).rest(until);
                }
            }
        }
        // This semaphore is never closed.
        let permit = Arc::clone(&self.put_away).acquire_owned().await;
        let taking = Arc::clone(&self.taking);
        self.taking.shared.tasks.spawn(async move {
            taking.wait_for_key(taken).await;
            drop(permit);
        });
    }

    /// Whether the newest event can be verified: then many of another key only stand before it.
    async fn newest_is_known(&self) -> bool {
        let newest = json!({ "last_by_subj": EVENTS_SUBJECT });
        let found = api::get_message(&self.link(), self.events.stream, &newest).await;
        let Ok(Some(found)) = found else { return false };
        let event = message::event(&found.headers, found.payload);
        event.is_ok_and(|event| {
            self.taking.shared.verification.judge(&event) == StoredVerdict::Verified
        })
    }

    /// Gives back whatever is held, and ends.
    pub(super) async fn wind_down(mut self) {
        self.is_superseded = false;
        self.note_conflict();
        if let Some(want) = self.want.take() {
            let _ = want.answer.send(Err(QueueError::Closed));
        }
        self.looking.cancel();
        while let Some(looked_up) = self.lookups.join_next().await {
            match looked_up {
                Ok(RedeliveryLookup::Delivery(taken)) => self.waiting.push_back(taken),
                Ok(RedeliveryLookup::Unknown(taken)) => self.redelivered.push_back(taken),
                Ok(RedeliveryLookup::Nothing) | Err(_) => {}
            }
        }
        let (retries, events) = tokio::join!(self.retries.wind_down(), self.events.wind_down());
        for (stream, rest) in [(self.retries.stream, retries), (self.events.stream, events)] {
            for message in rest {
                self.take(stream, message).await;
            }
        }
        self.dismiss().await;
        // Nobody knows yet what became of redeliveries.
        for taken in self.redelivered.drain(..) {
            self.taking.give_back(taken.into_reply()).await;
        }
        let back = self
            .waiting
            .drain(..)
            .map(|taken| self.taking.give_up(taken).run());
        futures::future::join_all(back).await;
        if self.link().is_connected()
            && let Ok(info) =
                api::consumer_info(&self.link(), self.events.stream, &self.route.name).await
        {
            self.note_floor(&info, true);
        }
    }

    /// Takes a redelivery that was looked up, unless it is for others by now.
    pub(super) async fn looked_up(&mut self, taken: PendingDelivery) {
        match self.is_left_to_others(taken.stream()) {
            true => self.taking.give_back(taken.into_reply()).await,
            false => self.waiting.push_back(taken),
        }
    }

    /// Gives back events that nobody has taken, and cancels a long request for more.
    pub(super) async fn leave_to_others(&mut self) {
        let stream = self.events.stream;
        let mut replies: Vec<Subject> = Vec::new();
        for held in [&mut self.waiting, &mut self.redelivered] {
            let (events, retries): (VecDeque<PendingDelivery>, _) = std::mem::take(held)
                .into_iter()
                .partition(|taken| taken.stream() == stream);
            *held = retries;
            replies.extend(events.into_iter().map(PendingDelivery::into_reply));
        }
        if self.events.has_asked() && !self.events.is_brief() {
            let link = self.link();
            let mut rest = self.events.wind_down().await;
            rest.extend(self.events.reset(&link).await.unwrap_or_default());
            replies.extend(rest.into_iter().filter_map(|message| message.reply));
        }
        for reply in replies {
            self.taking.give_back(reply).await;
        }
    }

    /// Gives back all deliveries that nobody has taken, and cancels long requests.
    pub(super) async fn give_back(&mut self) {
        let held = self
            .waiting
            .drain(..)
            .chain(self.redelivered.drain(..))
            .map(PendingDelivery::into_reply);
        let mut replies: Vec<Subject> = held.chain(self.not_for_us.drain(..)).collect();
        let link = self.link();
        for source in [&mut self.retries, &mut self.events] {
            if source.has_asked() && !source.is_brief() {
                let mut rest = source.wind_down().await;
                rest.extend(source.reset(&link).await.unwrap_or_default());
                replies.extend(rest.into_iter().filter_map(|message| message.reply));
            }
        }
        for reply in replies {
            self.taking.give_back(reply).await;
        }
        self.unwanted = None;
    }
}
