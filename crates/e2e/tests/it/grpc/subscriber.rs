//! A handler that asks for events, as one in another language would.

use std::net::SocketAddr;

use proto::v1;
use proto::v1::subscribe_request::settle::Outcome;
use proto::v1::subscribe_request::{Credits, Progress, Request, Settle, Start};
use proto::v1::subscribe_response::{Delivered, Response};
use proto::v1::subscriptions_client::SubscriptionsClient;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use crate::pipeline::PATIENCE;

pub(crate) struct Subscriber {
    asks: mpsc::Sender<v1::SubscribeRequest>,
    answers: Streaming<v1::SubscribeResponse>,
    /// Numbers of deliveries that were taken back.
    pub(crate) expired: Vec<u64>,
}

impl Subscriber {
    /// Asks for events of `route`, so many at once.
    pub(crate) async fn join(
        address: SocketAddr,
        route: &str,
        credits: u32,
    ) -> Result<Self, Status> {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_lazy();
        let (asks, asked) = mpsc::channel(16);
        let start = Start {
            route: route.to_owned(),
            subscriber: "a test".to_owned(),
            credits,
        };
        asks.send(request(Request::Start(start))).await.unwrap();
        let answers = SubscriptionsClient::new(channel)
            .subscribe(ReceiverStream::new(asked))
            .await?;
        let mut subscriber = Self {
            asks,
            answers: answers.into_inner(),
            expired: Vec::new(),
        };
        let first = subscriber
            .answers
            .message()
            .await?
            .and_then(|first| first.response);
        assert!(matches!(first, Some(Response::Started(_))), "{first:?}");
        Ok(subscriber)
    }

    pub(crate) async fn say(&self, what: Request) {
        self.asks.send(request(what)).await.unwrap();
    }

    /// The next delivery, within the test's patience; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Delivered>, Status> {
        loop {
            let message = timeout(PATIENCE, self.answers.message())
                .await
                .expect("a word in time")?;
            match message.map(|message| message.response.unwrap()) {
                Some(Response::Delivered(delivered)) => return Ok(Some(delivered)),
                Some(Response::Expired(expired)) => self.expired.extend(expired.numbers),
                Some(Response::Started(_)) => panic!("started twice"),
                None => return Ok(None),
            }
        }
    }

    pub(crate) async fn settle(&self, number: u64, outcome: Outcome) {
        self.say(Request::Settle(Settle {
            number,
            outcome: Some(outcome),
        }))
        .await;
    }

    pub(crate) async fn done(&self, number: u64) {
        self.settle(
            number,
            Outcome::Done(v1::Done {
                status: Some(201),
                ..v1::Done::default()
            }),
        )
        .await;
    }

    pub(crate) async fn progress(&self, number: u64) {
        self.say(Request::Progress(Progress {
            numbers: vec![number],
        }))
        .await;
    }

    pub(crate) async fn set_credits(&self, credits: u32) {
        self.say(Request::Credits(Credits { credits })).await;
    }

    /// Takes no more, and hears the stream out.
    pub(crate) async fn half_close(self) -> Streaming<v1::SubscribeResponse> {
        drop(self.asks);
        self.answers
    }
}

fn request(what: Request) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        request: Some(what),
    }
}

pub(crate) fn reference(delivered: &Delivered) -> String {
    delivered.event.clone().unwrap().entity.unwrap().r#ref
}

pub(crate) fn attempt(delivered: &Delivered) -> u32 {
    delivered.delivery.clone().unwrap().attempt
}
