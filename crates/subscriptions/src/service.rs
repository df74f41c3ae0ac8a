//! The gRPC service: one stream for each subscriber.

use std::pin::pin;
use std::time::Duration;

use grpc::{Caller, MAX_MESSAGE};
use process::Shutdown;
use proto::v1;
use proto::v1::subscribe_request::{Request as Asked, Start};
use proto::v1::subscribe_response::{Response as Answered, Started};
use proto::v1::subscriptions_server::SubscriptionsServer;
use settings::Role;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::pool::{Answer, MAX_CREDITS, SubscriberHandle};
use crate::registry::SubscriptionRegistry;

/// Longest time from the beginning of a stream to its first message.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Interval at which a draining stream is checked for deliveries in progress.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longest name of a subscriber, in bytes.
const MAX_NAME: usize = 128;

/// Most numbers of one sign of progress.
const MAX_NUMBERS: usize = MAX_CREDITS as usize;

/// The service by which handlers ask for events.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    subscription_registry: SubscriptionRegistry,
    shutdown: Shutdown,
}

impl Subscriptions {
    /// Serves the routes in `subscription_registry`.
    pub fn new(subscription_registry: SubscriptionRegistry, shutdown: Shutdown) -> Self {
        Self {
            subscription_registry,
            shutdown,
        }
    }

    /// The service for tonic.
    pub fn service(self) -> SubscriptionsServer<Self> {
        SubscriptionsServer::new(self).max_encoding_message_size(MAX_MESSAGE)
    }

    fn join(
        &self,
        caller: &Caller,
        start: &Start,
    ) -> Result<(SubscriberHandle, ReceiverStream<Answer>), Status> {
        let Start {
            route,
            subscriber,
            credits,
        } = start;
        caller.must(&Role::Consume(route.clone()))?;
        if !(1..=MAX_CREDITS).contains(credits) {
            return Err(Status::invalid_argument(
                "start.credits: expected 1 to 1000",
            ));
        }
        if subscriber.len() > MAX_NAME {
            return Err(Status::invalid_argument(
                "start.subscriber: expected at most 128 bytes",
            ));
        }
        let none = "start.route: this process runs no such route with `dispatcher: subscription`";
        let line = self
            .subscription_registry
            .pool(route)
            .ok_or_else(|| Status::not_found(none))?;
        let full =
            || Status::resource_exhausted("256 subscribers of this route are connected here");
        let (handle, received) = line.join(*credits).ok_or_else(full)?;
        tracing::info!(
            route,
            subscriber,
            caller = caller.name,
            credits,
            "subscribed"
        );
        let times = line.times();
        let started = Started {
            timeout: Some(grpc::duration(times.0)),
            max_duration: Some(grpc::duration(times.1)),
        };
        let _ = handle.answers.try_send(Ok(v1::SubscribeResponse {
            response: Some(Answered::Started(started)),
        }));
        Ok((handle, ReceiverStream::new(received)))
    }
}

#[tonic::async_trait]
impl v1::subscriptions_server::Subscriptions for Subscriptions {
    type SubscribeStream = ReceiverStream<Answer>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        let mut asked = request.into_inner();
        let first = timeout(START_WITHIN, asked.message()).await;
        let late = |_| Status::deadline_exceeded("expected `start` within 10 s");
        let Some(Asked::Start(start)) = first.map_err(late)??.and_then(|first| first.request)
        else {
            return Err(Status::invalid_argument("expected `start` first"));
        };
        let (handle, answers) = self.join(&caller, &start)?;
        let shutdown = self.shutdown.clone();
        let route = start.route;
        self.shutdown.spawn(async move {
            let why = listen(handle, asked, &shutdown).await;
            tracing::info!(
                route,
                subscriber = start.subscriber,
                why,
                "subscription ended"
            );
        });
        Ok(Response::new(answers))
    }
}

/// Reads a subscriber's messages until it is gone, or until this server stops and all its
/// deliveries are settled. Returns the reason for the log.
async fn listen(
    handle: SubscriberHandle,
    mut asked: Streaming<v1::SubscribeRequest>,
    shutdown: &Shutdown,
) -> &'static str {
    let draining = shutdown.draining();
    let patience = shutdown.hard_stop();
    let answers = handle.answers.clone();
    let mut drains = pin!(draining.cancelled());
    let mut gone = pin!(answers.closed());
    let mut over = pin!(patience.cancelled());
    let mut unread = pin!(handle.given_up.notified());
    let mut takes_more = true;
    while takes_more || !handle.is_empty() {
        tokio::select! {
            message = asked.message() => match message {
                Ok(Some(message)) => {
                    if let Err(status) = hear(&handle, message.request, takes_more) {
                        let _ = handle.answers.try_send(Err(status));
                        return "it did not keep to the contract";
                    }
                    continue;
                }
                // The subscriber can settle nothing more: its deliveries come again.
                Ok(None) => return "it asked for no more",
                Err(_) => return "its connection broke",
            },
            () = &mut gone => return "it went away",
            () = &mut unread => return "it reads nothing",
            () = &mut over => return "this server stops now",
            () = &mut drains, if takes_more => {}
            // Deliveries in progress are settled by messages, so only the loop's condition is
            // checked.
            () = sleep(LOOK_EVERY), if !takes_more => continue,
        }
        takes_more = false;
        handle.set_credits(0);
    }
    let _ = handle
        .answers
        .try_send(Err(Status::unavailable("this server stops: ask again")));
    "this server stops"
}

fn hear(handle: &SubscriberHandle, asked: Option<Asked>, takes_more: bool) -> Result<(), Status> {
    match asked {
        Some(Asked::Start(_)) => Err(Status::invalid_argument(
            "`start` is for the first message only",
        )),
        Some(Asked::Credits(credits)) if credits.credits > MAX_CREDITS => {
            Err(Status::invalid_argument("credits: expected at most 1000"))
        }
        Some(Asked::Credits(credits)) => {
            if takes_more {
                handle.set_credits(credits.credits);
            }
            Ok(())
        }
        Some(Asked::Settle(settle)) => {
            let missing = || {
                Status::invalid_argument("settle.outcome: expected done, transient or permanent")
            };
            handle.settle(settle.number, settle.outcome.ok_or_else(missing)?);
            Ok(())
        }
        Some(Asked::Progress(progress)) => {
            progress
                .numbers
                .iter()
                .take(MAX_NUMBERS)
                .for_each(|number| handle.progress(*number));
            Ok(())
        }
        // A message of a newer contract is no reason to end the stream.
        None => Ok(()),
    }
}
