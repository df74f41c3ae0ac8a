use std::sync::Arc;
use std::time::Duration;

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, Excerpt, OpenContext, watch};
use tokio::time::timeout;
use wire::v1;
use wire::v1::subscribe_request::settle::Outcome;
use wire::v1::subscribe_response::{Delivered, Response};

use crate::line::{InHand, Line, Said};
use crate::settings::SubscriptionSettings;
use crate::switchboard::Switchboard;

/// How long an event waits for a handler that had room a moment ago.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

const ACTION: &str = "handling by a subscriber";

/// Gives each event to a handler that has asked for some.
#[derive(Debug)]
pub struct SubscriptionDispatcher {
    line: Arc<Line>,
    settings: SubscriptionSettings,
}

impl Dispatcher for SubscriptionDispatcher {
    const KIND: &'static str = "subscription";
    type Settings = SubscriptionSettings;

    async fn open(settings: SubscriptionSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        if settings.timeout > settings.longest {
            return Err("subscription.timeout: expected no longer than `longest`".into());
        }
        let switchboard = cx.shared::<Switchboard>();
        let none = "nobody could subscribe: expected `operator.grpc`, where to listen for them";
        Ok(Self { line: switchboard.ok_or(none)?.open(&cx.route, settings), settings })
    }

    fn capacity(&self) -> Option<watch::Receiver<usize>> {
        Some(self.line.capacity())
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let given = timeout(WAIT_FOR_ROOM, self.give(event, cx)).await;
        let Ok(mut in_hand) = given else {
            return Err(DispatchError::interrupted(ACTION, "nobody has room for it now"));
        };
        loop {
            match timeout(self.settings.timeout, in_hand.said.recv()).await {
                Ok(Some(Said::Progress)) => {}
                Ok(Some(Said::Settled(outcome))) => return answer(outcome),
                Ok(None) => return Err(DispatchError::interrupted(ACTION, "the subscriber went away")),
                Err(_) => {
                    in_hand.expire();
                    return Err(DispatchError::transient(ACTION, "not settled in time"));
                }
            }
        }
    }

    /// In all; without a word it is shorter, and kept here.
    fn timeout(&self) -> Duration {
        let SubscriptionSettings { longest, .. } = self.settings;
        longest
    }
}

impl SubscriptionDispatcher {
    async fn give(&self, event: &Event, cx: &Context) -> InHand {
        loop {
            let changed = self.line.changed();
            match self.line.give(|number| self.delivered(number, event, cx)) {
                Some(in_hand) => return in_hand,
                None => changed.await,
            }
        }
    }

    fn delivered(&self, number: u64, event: &Event, cx: &Context) -> v1::SubscribeResponse {
        let delivery = grpc::delivery(
            &cx.delivery_id,
            &cx.route,
            cx.attempt,
            &cx.idempotency_key,
            cx.started_at,
            self.settings.timeout,
            cx.trace,
        );
        let delivered = Delivered { number, event: Some(grpc::event(event)), delivery: Some(delivery) };
        v1::SubscribeResponse { response: Some(Response::Delivered(delivered)) }
    }
}

fn answer(outcome: Outcome) -> Result<Done, DispatchError> {
    let number = |status: Option<u32>| status.and_then(|status| u16::try_from(status).ok());
    match outcome {
        Outcome::Done(done) => Ok(Done { status: number(done.status) }),
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

/// What a handler says may be anybody's data: kept with the attempt, never logged.
fn said(mut detail: String) -> BoxError {
    detail.truncate(detail.floor_char_boundary(grpc::MAX_DETAIL));
    Excerpt(if detail.is_empty() { "it said no more".to_owned() } else { detail }).into()
}
