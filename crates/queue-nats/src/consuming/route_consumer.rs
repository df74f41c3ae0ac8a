//! From a message to a delivery: decoding, looking redeliveries up, handing out.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::{HeaderMap, Message, Subject};
use event_model::{Event, StoredVerdict};
use fail::fail_point;
use queue::{ConditionError, Delivery, Outcome, QueueError, RouteFilter, Ticket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::attempts::NextState;
use crate::consuming::byte_budget::{HeldBytes, RouteBytes};
use crate::consuming::deadline::Deadline;
use crate::consuming::delivery_state::DeliveryState;
use crate::consuming::exclusive_marker::ExclusiveMarker;
use crate::consuming::given_back::{GIVE_BACK, GivenBack};
use crate::consuming::inflight::{AttemptState, InFlightMarker};
use crate::consuming::lease::{NatsLease, dead_letter_crashed, ended, line};
use crate::consuming::settlement_blocks::SettlementBlocks;
use crate::message;
use crate::shared::{Origin, Shared};
use crate::stores::quarantined::{keep_damaged, keep_forged};
use crate::streams::StreamName;
use crate::verification::StoredMessage;

/// Pause before the marker of an attempt is read again, if it can't be read.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Messages of a route that are quarantined at once, and the pause before further ones come again.
pub(crate) const KEPT_TOGETHER: usize = 64;
const KEEP_AGAIN: Duration = Duration::from_secs(1);

/// Time after which a message comes again for which there was no room.
const NO_ROOM_FOR: Duration = Duration::from_secs(1);

/// Channel by which a caller gets its deliveries.
pub(crate) type Answer = oneshot::Sender<Result<Vec<Delivery>, QueueError>>;

/// A route, as its consumer needs it.
#[derive(Debug)]
pub(crate) struct RouteConsumer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) filter: RouteFilter,
    pub(crate) lease: Duration,
    pub(crate) blocked: Arc<SettlementBlocks>,
    /// Deliveries that the route has in hand.
    pub(crate) in_hand: Arc<RouteBytes>,
    /// Places to quarantine messages, which must not keep deliveries waiting.
    pub(crate) keeping: Arc<Semaphore>,
}

/// A decoded message that is leased for this route.
pub(crate) struct PendingDelivery {
    origin: Origin,
    reply: Subject,
    event: Arc<Event>,
    /// State of the delivery, without the coming attempt.
    state: DeliveryState,
    until: Deadline,
    /// Latest time at which the server had the route unpaused, as far as this message shows.
    pub(crate) since: Instant,
    /// Epoch number of the stream when the message was taken.
    epoch_number: u64,
    /// Result of the route's match, if that was evaluated.
    matched: Option<Result<(), ConditionError>>,
    held: HeldBytes,
}

/// Result of decoding a message.
pub(crate) enum Decoded {
    /// It is to be delivered.
    Delivery(Box<PendingDelivery>),
    /// The server has sent it before: what became of that has to be looked up.
    Redelivery(Box<PendingDelivery>),
    /// It can't be verified by the settings here, for this reason: it waits until it can.
    Unverifiable(Box<PendingDelivery>, &'static str),
    /// The route does not match it; it is settled on this subject.
    NotForUs(Subject),
    /// There is no room for it in memory: the server sends it again.
    NoRoom,
    /// It was dealt with.
    Nothing,
}

impl RouteConsumer {
    /// Decodes `message`. One that is not for this route, or is no event any more, is dealt with
    /// here.
    pub(crate) async fn decode(&self, stream: StreamName, message: Message) -> Decoded {
        let until = Deadline::of(self.lease);
        let life = self.shared.monitor.epoch_number();
        let place = message
            .reply
            .clone()
            .and_then(|reply| Some((counts(&reply)?, reply)));
        let Some(((delivered, sequence), reply)) = place else {
            return Decoded::Nothing;
        };
        let headers = message.headers.unwrap_or_default();
        let (event, past) = match read(stream, sequence, &headers, message.payload.clone()) {
            Ok(read) => read,
            Err(why) => {
                let Some(place) = self.place_to_keep(&reply).await else {
                    return Decoded::Nothing;
                };
                if let Some(left_out) = self.shared.verification.damaged_lines.admit() {
                    tracing::error!(route = &*self.route, %stream, sequence, %why, left_out, "a stored message is damaged: kept apart");
                }
                let shared = Arc::clone(&self.shared);
                self.shared.tasks.spawn(async move {
                    keep_damaged(&shared, &headers, message.payload, why, &reply).await;
                    drop(place);
                });
                return Decoded::Nothing;
            }
        };
        let subject = &*message.subject;
        let found = StoredMessage {
            stream,
            subject,
            route: &self.route,
            event: &event,
            past: &past,
        };
        let placed = self.shared.verification.check_place(&found);
        // Messages that waited for their next attempt were matched before.
        let is_asked = placed.is_ok() && stream.shard().is_some();
        let decided = is_asked.then(|| self.filter.decide(&event));
        if decided == Some(Ok(false)) {
            return Decoded::NotForUs(reply);
        }
        let Some(held) = self.in_hand.hold(message.payload.len()) else {
            self.send_later(&reply, NO_ROOM_FOR).await;
            return Decoded::NoRoom;
        };
        let matched = decided.map(|decided| decided.map(drop));
        let disposition = match placed {
            Ok(()) => self.shared.verification.verify(&event),
            Err(forgery) => StoredVerdict::Forged(forgery),
        };
        if let StoredVerdict::Forged(why) = disposition {
            let Some(place) = self.place_to_keep(&reply).await else {
                return Decoded::Nothing;
            };
            if let Some(left_out) = self.shared.verification.forged_lines.admit() {
                tracing::error!(route = &*self.route, %stream, sequence, event.id = %event.id(), %why, left_out, "a stored message is not genuine: kept apart, and not delivered");
            }
            self.shared.verification.count_forged();
            let shared = Arc::clone(&self.shared);
            self.shared.tasks.spawn(async move {
                keep_forged(&shared, &event, why, &reply).await;
                drop(place);
            });
            return Decoded::Nothing;
        }
        let origin = Origin { stream, sequence };
        let event = Arc::new(event);
        let since = Instant::now();
        let taken = Box::new(PendingDelivery {
            origin,
            reply,
            event,
            state: past,
            until,
            since,
            epoch_number: life,
            matched,
            held,
        });
        match disposition.waits_because() {
            Some(why) => Decoded::Unverifiable(taken, why),
            None if delivered > 1 => Decoded::Redelivery(taken),
            None => Decoded::Delivery(taken),
        }
    }

    /// Returns a place to quarantine a message while others go on. If there is none, the server
    /// sends the message again later.
    async fn place_to_keep(&self, reply: &Subject) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.keeping).try_acquire_owned().ok();
        if place.is_none() {
            self.send_later(reply, KEEP_AGAIN).await;
        }
        place
    }

    /// Has the server send a message again after a while.
    async fn send_later(&self, reply: &Subject, after: Duration) {
        let later = format!("-NAK {{\"delay\":{}}}", after.as_nanos());
        let _ = self.shared.link.say(reply.clone(), later).await;
    }

    /// Puts a delivery away until its key may be known. This is no attempt: nothing is called or
    /// counted, and it takes no permit of those that are handed out.
    pub(crate) async fn wait_for_key(self: Arc<Self>, taken: PendingDelivery) {
        let shared = &self.shared;
        let wait = shared
            .verification
            .wait(taken.event.received_at(), shared.monitor.servers_now());
        let at = shared.after(wait);
        fail_point!("key-unknown.before");
        let put_away = shared
            .schedule(&taken.event, &taken.state, &self.route, at, taken.origin)
            .await;
        fail_point!("key-unknown.after");
        match put_away {
            Ok(()) => shared.dismiss(&taken.reply).await,
            // It stays where it is, and comes again when its lease ends.
            Err(_) => {
                let later = format!("-NAK {{\"delay\":{}}}", wait.as_nanos());
                let _ = shared.link.say(taken.reply, later).await;
            }
        }
    }

    /// Finds out what became of a message that was sent before, and extends its lease meanwhile:
    /// one whose marker can't be read may have crashed a process, and is not handed out on a
    /// guess.
    pub(crate) async fn look_up(
        self: Arc<Self>,
        mut taken: PendingDelivery,
        until: CancellationToken,
    ) -> RedeliveryLookup {
        let mut ticks = interval(self.lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_said = false;
        let letter = OnceLock::new();
        loop {
            let mut kept_until = taken.until;
            let died = {
                let mut looking = std::pin::pin!(self.count_crashes(&taken, &letter));
                loop {
                    tokio::select! {
                        died = &mut looking => break Some(died),
                        _ = ticks.tick() => kept_until = self.extend_lease(&taken).await.unwrap_or(kept_until),
                        () = until.cancelled() => break None,
                    }
                }
            };
            taken.until = kept_until;
            let Some(died) = died else {
                return RedeliveryLookup::Unknown(taken);
            };
            match died {
                Ok(RedeliveryDecision::Goes(past)) => {
                    taken.state = past;
                    // It is handed out next, and counts as handed out only then.
                    taken.until = self.extend_lease(&taken).await.unwrap_or(taken.until);
                    return RedeliveryLookup::Delivery(taken);
                }
                Ok(RedeliveryDecision::Buried) => return RedeliveryLookup::Nothing,
                Err(error) if !has_said => {
                    tracing::warn!(route = &*self.route, %error, "what became of an attempt can't be read: it waits for that");
                    has_said = true;
                }
                Err(_) => {}
            }
            if taken.is_lost() {
                return RedeliveryLookup::Nothing;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Counts the crashes of a message that the server sent before and nobody settled. If an
    /// attempt of it began in a process and nothing more was heard of it, that process crashed,
    /// or hung for longer than its lease.
    async fn count_crashes(
        &self,
        taken: &PendingDelivery,
        letter: &OnceLock<u64>,
    ) -> Result<RedeliveryDecision, QueueError> {
        let shared = &self.shared;
        let event = &taken.event;
        let mark = InFlightMarker::read(shared, &self.route, taken.origin, event).await?;
        let past = mark
            .as_ref()
            .map_or(taken.state, |mark| mark.goes_on(taken.state, shared));
        let place = ExclusiveMarker {
            route: &self.route,
            origin: taken.origin,
            event: event.id(),
        };
        if place.read(shared).await? {
            tracing::error!(route = &*self.route, event.id = %event.id(), "an event was alone in flight when the process died: it is a dead letter now");
            dead_letter_crashed(shared, event, &past, &self.route, &taken.reply, letter).await?;
            return Ok(RedeliveryDecision::Buried);
        }
        if mark.is_some_and(|mark| mark.is_crash(shared)) {
            let attempt = ended(shared, Outcome::Died);
            shared
                .attempts
                .record(
                    line(event, &self.route, &past, &attempt, NextState::Back),
                    past.position,
                )
                .await;
        }
        Ok(RedeliveryDecision::Goes(past))
    }

    /// Hands out deliveries, after markers say that their attempts begin: if one crashes the
    /// process, it can be told which.
    pub(crate) async fn deliver_all(self: Arc<Self>, taken: Vec<PendingDelivery>, answer: Answer) {
        let began: Vec<DeliveryState> = taken.iter().map(|taken| self.begin(taken)).collect();
        let marker = |(taken, past): (&PendingDelivery, &DeliveryState)| {
            let mark = InFlightMarker::new(
                &self.shared,
                taken.origin,
                &taken.event,
                past,
                AttemptState::Began,
            );
            (taken.origin, mark)
        };
        let markers: Vec<_> = taken.iter().zip(&began).map(marker).collect();
        let deliveries: Vec<Delivery> = taken
            .into_iter()
            .zip(began)
            .map(|(taken, past)| self.deliver(taken, past))
            .collect();
        fail_point!("mark.before");
        self.shared
            .inflight
            .write(&self.shared, &self.route, markers)
            .await;
        fail_point!("mark.after");
        // If nobody listens any more, dropping them gives them back.
        let _ = answer.send(Ok(deliveries));
    }

    /// Returns the state of a delivery whose next attempt begins.
    fn begin(&self, taken: &PendingDelivery) -> DeliveryState {
        let monitor = &self.shared.monitor;
        let first = taken.state.first_attempt_at;
        DeliveryState {
            attempts: taken.state.attempts + 1,
            first_attempt_at: Some(first.unwrap_or_else(|| monitor.servers_now())),
            ..taken.state
        }
    }

    fn deliver(&self, taken: PendingDelivery, past: DeliveryState) -> Delivery {
        let monitor = &self.shared.monitor;
        let first = past
            .first_attempt_at
            .unwrap_or_else(|| monitor.servers_now());
        let ticket = Ticket::new(NatsLease {
            shared: Arc::clone(&self.shared),
            route: Arc::clone(&self.route),
            origin: taken.origin,
            reply: taken.reply,
            event: Arc::clone(&taken.event),
            past,
            _held: taken.held,
            lease: self.lease,
            until: taken.until,
            life: taken.epoch_number,
            is_over: false,
            was_alone: false,
            is_waiting: false,
            ended: None,
            written: OnceLock::new(),
            marked: Instant::now(),
            blocked: Arc::clone(&self.blocked),
        });
        Delivery {
            event: taken.event,
            position: past.position,
            redrive: past.redrive,
            attempt: past.attempts,
            first_attempt_at: monitor.local_time(first),
            deaths: past.deaths,
            asks_match: past.asks_match,
            asked: past.asked,
            matched: taken.matched,
            ticket,
        }
    }

    /// Extends the lease of a delivery that waits here; returns its new end, or `None` if that
    /// failed.
    pub(crate) async fn extend_lease(&self, taken: &PendingDelivery) -> Option<Deadline> {
        self.shared
            .link
            .say(taken.reply.clone(), "+WPI")
            .await
            .ok()?;
        Some(Deadline::of(self.lease))
    }

    /// Gives back for good a delivery that was handed to nobody.
    pub(crate) fn give_up(&self, taken: PendingDelivery) -> GivenBack {
        GivenBack {
            shared: Arc::clone(&self.shared),
            route: Arc::clone(&self.route),
            origin: taken.origin,
            reply: taken.reply,
            event: taken.event,
            past: taken.state,
            lease: self.lease,
            attempt: None,
            was_alone: false,
        }
    }

    /// Lets the server send a message that was handed to nobody to whoever requests next.
    pub(crate) async fn give_back(&self, reply: Subject) {
        if self.shared.link.say(reply, GIVE_BACK).await.is_err() {
            tracing::debug!(
                route = &*self.route,
                "a message was not given back: it comes by its lease"
            );
        }
    }
}

/// Decision about a redelivery.
enum RedeliveryDecision {
    /// It goes on, with this state.
    Goes(DeliveryState),
    /// It ran exclusively when its process crashed.
    Buried,
}

/// Result of looking a redelivery up.
pub(crate) enum RedeliveryLookup {
    /// It is to be delivered.
    Delivery(PendingDelivery),
    /// There was no time to find out.
    Unknown(PendingDelivery),
    /// It was dealt with.
    Nothing,
}

impl PendingDelivery {
    /// Whether no attempt before this is known.
    pub(crate) fn is_new(&self) -> bool {
        self.state.attempts == 0
    }

    /// Whether another process may have it by now.
    pub(crate) fn is_lost(&self) -> bool {
        self.until.is_over()
    }

    pub(crate) fn kept(&mut self, until: Deadline) {
        self.until = until;
    }

    /// Returns the stream that it came from.
    pub(crate) fn stream(&self) -> StreamName {
        self.origin.stream
    }

    /// Returns the key that it names, for messages to people.
    pub(crate) fn key(&self) -> String {
        self.event.stored().key.to_text()
    }

    pub(crate) fn into_reply(self) -> Subject {
        self.reply
    }
}

fn read(
    stream: StreamName,
    sequence: u64,
    headers: &HeaderMap,
    body: bytes::Bytes,
) -> Result<(Event, DeliveryState), message::NotAnEvent> {
    let event = message::event(headers, body)?;
    let past = match stream.shard() {
        Some(shard) => DeliveryState::none(
            shard
                .position(sequence)
                .map_err(|_| message::NotAnEvent("its sequence is no position"))?,
        ),
        None => DeliveryState::read(headers)?,
    };
    Ok((event, past))
}

/// Reads how often a message was sent and its sequence from an ack subject, by ADR-15
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>....`, with domain and account before the
/// stream if there are eleven tokens or more.
fn counts(reply: &Subject) -> Option<(u32, u64)> {
    let tokens: Vec<&str> = reply.as_str().split('.').collect();
    let first = if tokens.len() >= 11 { 6 } else { 4 };
    Some((
        tokens.get(first)?.parse().ok()?,
        tokens.get(first + 1)?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_ack_subjects_are_read() {
        let old = Subject::from("$JS.ACK.FLUENT_EVENTS.r.2.71.5.1700000000000000000.3");
        let new =
            Subject::from("$JS.ACK.hub.ACCHASH.FLUENT_EVENTS.r.2.71.5.1700000000000000000.3.x");
        assert_eq!((counts(&old), counts(&new)), (Some((2, 71)), Some((2, 71))));
        assert_eq!(counts(&Subject::from("_INBOX.x")), None);
    }
}
