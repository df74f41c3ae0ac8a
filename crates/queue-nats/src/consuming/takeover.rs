//! Take-over: whose match decides after a dispatcher has joined with another one, how the version
//! before takes the route back, and how a lost consumer is made again.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::consumer::Info;
use bytes::Bytes;
use queue::Position;
use tokio::time::{Instant, sleep};

use crate::consuming::ensure_consumers::ensure_consumers;
use crate::consuming::fetcher::Fetcher;
use crate::consuming::match_change::{JOINED_FOR, held_until, is_joined_as, joined_as, present};
use crate::streams::StreamName;

/// Number of ticks without anybody who takes events after which a match is taken back.
const ABANDONED: u32 = 3;

/// Number of times that the server must say that a consumer is gone, and the pause between.
const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Fetcher {
    /// Settles messages that this route does not match, unless another dispatcher has joined it
    /// with another match since, or is about to: then that one decides.
    pub(super) async fn dismiss(&mut self) {
        if self.not_for_us.is_empty() {
            return;
        }
        if self
            .joined_known
            .is_none_or(|at| at.elapsed() >= JOINED_FOR)
        {
            let asked = Instant::now();
            // Without an answer it is tried again with the next messages; their leases last.
            let Ok(info) =
                crate::api::consumer_info(&self.link(), self.events.stream, &self.route.name).await
            else {
                return;
            };
            self.joined_known = Some(asked);
            self.observe_filter_owner(&info).await;
        }
        let is_held = self
            .held_until
            .is_some_and(|at| at > self.taking.shared.monitor.servers_now());
        let decides = !self.is_superseded && !is_held;
        let word = if decides {
            "+ACK"
        } else {
            "-NAK {\"delay\": 1000000000}"
        };
        for reply in self.not_for_us.drain(..) {
            let _ = self.taking.shared.link.say(reply, word).await;
        }
    }

    /// Asks the server who joined last.
    pub(super) async fn see_who_joined(&mut self) {
        let asked = Instant::now();
        // Without an answer, the next tick asks again.
        if let Ok(info) =
            crate::api::consumer_info(&self.link(), self.events.stream, &self.route.name).await
        {
            self.joined_known = Some(asked);
            self.observe_filter_owner(&info).await;
        }
    }

    /// Applies what the server says of the last dispatcher to join: its match is the route's.
    /// This one takes no events for another match than its own, and so idles while a new version
    /// takes over: an event that moves to another route would be delivered by both.
    pub(super) async fn observe_filter_owner(&mut self, info: &Info) {
        self.taking.shared.note_route_epoch(info);
        self.held_until = held_until(info);
        let was = std::mem::replace(&mut self.is_superseded, !is_joined_as(info, &self.route));
        match (was, self.is_superseded) {
            (false, true) => {
                tracing::warn!(
                    route = self.route.name,
                    "another dispatcher has joined this route with another match: new events are left to it, and only what waits for a retry is delivered here"
                );
                self.leave_to_others().await;
            }
            (true, false) => {
                tracing::warn!(route = self.route.name, "this route has our match again")
            }
            _ => {}
        }
        self.note_conflict();
    }

    /// Whether messages of this stream are for dispatchers that joined with another match.
    pub(super) fn is_left_to_others(&self, stream: StreamName) -> bool {
        self.is_superseded && stream == self.events.stream
    }

    /// Takes the route back when the version that was to take over is gone, even if it had not
    /// changed anything yet.
    pub(super) async fn reclaim(&mut self, info: &Info) {
        let now = self.taking.shared.monitor.servers_now();
        let held_until = held_until(info);
        if held_until.is_some_and(|until| until > now) {
            // Somebody is at it.
            self.abandoned = 0;
            return;
        }
        if held_until.is_some()
            && is_joined_as(info, &self.route)
            && let Err(error) = ensure_consumers(&self.taking.shared, &self.route, None, true).await
        {
            tracing::warn!(route = self.route.name, %error, "the server still sends what the route does not match");
        }
        // Deliveries of a version that was killed stay unsettled as long as nobody fetches: they
        // do not show that anybody is there.
        let is_asked = info.num_waiting > 0;
        self.abandoned = if self.is_superseded && !is_asked {
            self.abandoned + 1
        } else {
            0
        };
        if self.abandoned >= ABANDONED && self.confirm_absent(info).await {
            tracing::warn!(
                route = self.route.name,
                "nobody takes events with the other match: joining with ours"
            );
            if let Err(error) =
                ensure_consumers(&self.taking.shared, &self.route, None, false).await
            {
                tracing::error!(route = self.route.name, %error, "the route is not joined again");
            }
        }
    }

    /// Whether no process has joined with the match that the route has now.
    async fn confirm_absent(&self, info: &Info) -> bool {
        let Some(digest) = joined_as(info) else {
            return true;
        };
        let link = self.link();
        let there = present(&self.link(), &self.route.name, digest);
        // A process that is there does not answer; only the server answers, if there is none.
        let asked = link.client.request(there, Bytes::new()).await;
        asked.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
    }

    /// Whether the server says repeatedly that it has no such consumer: while it starts it may
    /// say so of one that exists, and one that is made again delivers again what was settled
    /// since its state was last read.
    async fn confirm_gone(&self, stream: StreamName) -> bool {
        for looked in 0..LOOKS {
            if looked > 0 {
                sleep(LOOK_AGAIN).await;
            }
            match crate::api::consumer_info(&self.link(), stream, &self.route.name).await {
                Err(error) if error.is_missing() => {}
                // It exists, or nobody can say: the next tick looks again.
                _ => return false,
            }
        }
        true
    }

    /// Makes a consumer again whose position on the server is gone: it goes on at what was
    /// settled.
    pub(super) async fn rejoin(&mut self, stream: StreamName) {
        if !self.confirm_gone(stream).await {
            return;
        }
        // Positions of another epoch of the stream say nothing about this one: all of it is for a
        // route that was here before, wherever that once started.
        let _ = self.taking.shared.monitor.refresh().await;
        let is_same = self.life == self.taking.shared.monitor.epoch_number();
        let resume = if is_same {
            self.settled
        } else {
            Some(Position::START)
        };
        match ensure_consumers(&self.taking.shared, &self.route, resume, false).await {
            Ok(()) => tracing::error!(
                route = self.route.name,
                %stream,
                resume = resume.map(tracing::field::display),
                "the route's consumer was deleted on the server, and was made again"
            ),
            Err(error) => {
                tracing::error!(route = self.route.name, %stream, %error, "the route's consumer is gone")
            }
        }
    }
}
