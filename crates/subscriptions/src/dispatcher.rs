//! The dispatcher `subscription`: hands each event to a subscriber of the route.

use std::sync::Arc;
use std::time::Duration;

use dispatch::{
    BoxError, Context, DispatchError, Dispatcher, Done, Event, Excerpt, OpenContext, Role,
    TraceParent, TraceState, watch,
};
use proto::v1::subscribe_request::settle::Outcome;
use proto::v1::subscribe_response::Delivered;
use tokio::time::{Instant, timeout, timeout_at};

use crate::pool::{Outstanding, SubscriberPool};
use crate::registry::SubscriptionRegistry;
use crate::settings::SubscriptionSettings;

/// Longest wait for a handler's room, which was there a moment ago.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

const ACTION: &str = "handling by a subscriber";

/// Hands each event to a handler that has asked for some.
#[derive(Debug)]
pub struct SubscriptionDispatcher {
    line: Arc<SubscriberPool>,
    settings: SubscriptionSettings,
}

impl Dispatcher for SubscriptionDispatcher {
    const KIND: &'static str = "subscription";
    type Settings = SubscriptionSettings;

    async fn open(settings: SubscriptionSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        if settings.timeout() > settings.longest() {
            return Err("subscription.timeout: expected no longer than `max-duration`".into());
        }
        let subscription_registry = cx.extension::<SubscriptionRegistry>();
        let none = "nobody could subscribe: expected `operator.grpc`, where to listen for them";
        Ok(Self {
            line: subscription_registry.ok_or(none)?.open(&cx.route, settings),
            settings,
        })
    }

    fn capacity(&self) -> Option<watch::Receiver<usize>> {
        Some(self.line.capacity())
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let call = cx.call(Role::Producer, "hand to a subscriber");
        let answer = self.hand_over(event, cx, call.trace()).await;
        match &answer {
            Ok(_) => call.answered(Vec::new),
            Err(_) => call.failed("not-done", Vec::new),
        }
        answer
    }

    /// The longest time for an attempt in all. Without a sign of progress, `dispatch` itself ends
    /// it earlier.
    fn timeout(&self) -> Duration {
        self.settings.longest()
    }
}

impl SubscriptionDispatcher {
    async fn hand_over(
        &self,
        event: &Event,
        cx: &Context,
        trace: Option<TraceParent>,
    ) -> Result<Done, DispatchError> {
        let mut in_hand = match self.line.assign(self.delivered(event, cx, trace)) {
            Ok(in_hand) => in_hand,
            Err(delivered) => self.give_later(*delivered).await?,
        };
        let mut until = Instant::now() + self.settings.timeout();
        loop {
            match timeout_at(until, &mut in_hand.outcome).await {
                Ok(Ok(outcome)) => return answer(outcome),
                Ok(Err(_)) => {
                    return Err(DispatchError::interrupted(
                        ACTION,
                        "the subscriber went away",
                    ));
                }
                Err(_) => {
                    let said = in_hand.progress().map(|at| at + self.settings.timeout());
                    let Some(later) = said.filter(|later| *later > until) else {
                        return Err(DispatchError::transient(ACTION, "not settled in time"));
                    };
                    until = later;
                }
            }
        }
    }

    /// Waits until a subscriber has room, for a bounded time, and hands the delivery to it.
    async fn give_later(&self, mut delivered: Delivered) -> Result<Outstanding, DispatchError> {
        let giving = async {
            loop {
                let changed = self.line.changed();
                match self.line.assign(delivered) {
                    Ok(in_hand) => return in_hand,
                    Err(back) => delivered = *back,
                }
                changed.await;
            }
        };
        let given = timeout(WAIT_FOR_ROOM, giving).await;
        given.map_err(|_| DispatchError::interrupted(ACTION, "nobody has room for it now"))
    }

    fn delivered(&self, event: &Event, cx: &Context, trace: Option<TraceParent>) -> Delivered {
        let mut delivery = grpc::delivery(
            &cx.delivery_id,
            &cx.route,
            cx.attempt,
            &cx.idempotency_key,
            cx.started_at,
            self.settings.timeout(),
            trace,
        );
        let state = trace.and(cx.trace_state.as_ref()).map(TraceState::as_str);
        delivery.tracestate = state.unwrap_or_default().to_owned();
        delivery.enriched = grpc::enriched(cx.enriched.as_ref());
        Delivered {
            number: 0,
            event: Some(grpc::event(event)),
            delivery: Some(delivery),
        }
    }
}

fn answer(outcome: Outcome) -> Result<Done, DispatchError> {
    let number = |status: Option<u32>| status.and_then(|status| u16::try_from(status).ok());
    match outcome {
        Outcome::Done(done) => {
            let remark = Some(shortened(done.remark)).filter(|remark| !remark.is_empty());
            Ok(Done {
                status: number(done.status),
                remark,
            })
        }
        Outcome::Transient(transient) => Err(DispatchError::Transient {
            action: ACTION,
            retry_after: transient.retry_after.as_ref().and_then(grpc::duration_of),
            status: number(transient.status),
            source: said(transient.detail),
        }),
        Outcome::Permanent(permanent) => Err(DispatchError::Permanent {
            action: ACTION,
            status: number(permanent.status),
            source: said(permanent.detail),
        }),
    }
}

/// A handler's explanation. It may contain anybody's data, so it is stored with the attempt and
/// never logged.
fn said(detail: String) -> BoxError {
    let detail = shortened(detail);
    Excerpt(if detail.is_empty() {
        "it said no more".to_owned()
    } else {
        detail
    })
    .into()
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(grpc::MAX_DETAIL));
    text
}
