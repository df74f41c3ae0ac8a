//! The cost of handlers in other processes, beside bare calls and streams of the same bytes; and
//! the time to redrive dead letters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dispatch::{AnyDispatcher, Context, Dispatcher, Event, Extensions, OpenContext};
use dispatch_grpc::{Remote, Server};
use event_model::SystemClock;
use grpc::{GrpcServer, Routes};
use operator::Operator;
use process::{Readiness, Shutdown};
use proto::v1;
use proto::v1::dispatcher_client::DispatcherClient;
use proto::v1::dispatcher_server::DispatcherServer;
use proto::v1::subscribe_request::settle::Outcome as Settled;
use proto::v1::subscribe_request::{Request as Asked, Settle, Start as Begin};
use proto::v1::subscribe_response::{Delivered, Response as Answered};
use proto::v1::subscriptions_client::SubscriptionsClient;
use proto::v1::subscriptions_server::SubscriptionsServer;
use queue::{
    Attempt, DeadReason, Disposition, Lifecycle, MatchFields, Outcome, Route, Settlement, Source,
    StartPosition,
};
use serde_json::json;
use settings::OperatorSettings;
use subscriptions::{SubscriptionDispatcher, SubscriptionRegistry, Subscriptions};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

use crate::cpu;
use crate::report::{Report, Row};
use crate::stages::{CONCURRENCY, Noop, backlog, disk, each, each_of, events, runtime};

/// Events that a subscriber may have in progress: as many as the dispatcher attempts at once.
const CREDITS: u32 = CONCURRENCY as u32;

pub(crate) fn measure(report: &mut Report, scale: usize) -> anyhow::Result<()> {
    let count = 100_000 / scale;
    let floor = report.add("floor: bare tonic unary call", bare_calls(count)?);
    let called = remote(count)?.of_floor(floor.cpu_us);
    report.add("Dispatch, Remote to Server", called.wanted(0.0, 1.5));
    let floor = report.add(
        "floor: bare tonic stream, there and back",
        bare_stream(count)?,
    );
    let streamed = subscription(count)?.of_floor(floor.cpu_us);
    report.add("Subscribe, one subscriber", streamed.wanted(0.0, 1.4));
    redrive(report, 100_000 / scale)
}

fn here() -> OperatorSettings {
    OperatorSettings {
        grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: None,
        tokens: Vec::new(),
        certificates: Vec::new(),
        audit: std::path::PathBuf::new(),
    }
}

async fn serve(routes: Routes, shutdown: &Shutdown) -> anyhow::Result<SocketAddr> {
    let door = GrpcServer::bind(&here(), shutdown).await?;
    let address = door.address()?;
    door.serve(routes, Readiness::new(shutdown), shutdown)?;
    Ok(address)
}

fn shutdown() -> Shutdown {
    Shutdown::manual(Duration::from_secs(1))
}

fn request(event: &Event) -> v1::DispatchRequest {
    let id = event.id().to_string();
    let now = event.received_at();
    let delivery = grpc::delivery(&id, "route", 1, &id, now, Duration::from_secs(10), None);
    v1::DispatchRequest {
        event: Some(grpc::event(event)),
        delivery: Some(delivery),
    }
}

/// A handler that only answers.
struct Bare;

#[tonic::async_trait]
impl v1::dispatcher_server::Dispatcher for Bare {
    async fn dispatch(
        &self,
        _: Request<v1::DispatchRequest>,
    ) -> Result<Response<v1::DispatchResponse>, Status> {
        Ok(Response::new(v1::DispatchResponse::default()))
    }
}

/// Runs a server without TLS, access rules or bounds.
async fn serve_bare(routes: Routes) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the measurement's runtime"
    )]
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(incoming),
    );
    Ok(address)
}

fn bare_calls(count: usize) -> anyhow::Result<Row> {
    let events: Vec<Event> = events(count).collect();
    runtime()?.block_on(async {
        let address = serve_bare(Routes::new(DispatcherServer::new(Bare))).await?;
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .connect()
            .await?;
        each(events, move |event| {
            let mut client = DispatcherClient::new(channel.clone());
            async move { Ok(client.dispatch(request(&event)).await.map(drop)?) }
        })
        .await
    })
}

fn remote(count: usize) -> anyhow::Result<Row> {
    let events: Vec<Event> = events(count).collect();
    runtime()?.block_on(async {
        let shutdown = shutdown();
        let server = Server::new(AnyDispatcher::of(Noop), shutdown.clone());
        let address = serve(Routes::new(server.service()), &shutdown).await?;
        let settings =
            serde_json::from_value(json!({ "endpoints": [format!("http://{address}")] }))?;
        let opened = Remote::open(settings, &OpenContext::new("route", ".")).await;
        let remote = Arc::new(opened.map_err(anyhow::Error::from_boxed)?);
        each(events, move |event| {
            let remote = Arc::clone(&remote);
            async move {
                let cx = Context::new("route", event.id().to_string(), remote.timeout());
                Ok(remote.dispatch(&event, &cx).await.map(drop)?)
            }
        })
        .await
    })
}

/// A service that sends its events, never more than there are credits, and counts what is
/// settled.
struct BareStream {
    events: std::sync::Mutex<Option<Vec<Event>>>,
    settled: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl v1::subscriptions_server::Subscriptions for BareStream {
    type SubscribeStream = ReceiverStream<Result<v1::SubscribeResponse, Status>>;

    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the measurement's runtime"
    )]
    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let events = self
            .events
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let (mut asked, (to, answers)) = (request.into_inner(), mpsc::channel(CREDITS as usize));
        let room = Arc::new(tokio::sync::Semaphore::new(CREDITS as usize));
        let settled = Arc::clone(&self.settled);
        let freed = Arc::clone(&room);
        tokio::spawn(async move {
            while let Ok(Some(_)) = asked.message().await {
                settled.fetch_add(1, Ordering::Relaxed);
                freed.add_permits(1);
            }
        });
        tokio::spawn(async move {
            for (number, event) in events.into_iter().flatten().enumerate() {
                let Ok(place) = room.acquire().await else {
                    return;
                };
                place.forget();
                let v1::DispatchRequest { event, delivery } = self::request(&event);
                let delivered = Delivered {
                    number: number as u64,
                    event,
                    delivery,
                };
                let response = Some(Answered::Delivered(delivered));
                let _ = to.send(Ok(v1::SubscribeResponse { response })).await;
            }
            std::future::pending::<()>().await
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Settles every delivery as done, at once.
async fn subscribe(address: SocketAddr) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect()
        .await?;
    let (asks, asked) = mpsc::channel(CREDITS as usize);
    let begin = Begin {
        route: "route".to_owned(),
        subscriber: "bench".to_owned(),
        credits: CREDITS,
    };
    asks.send(v1::SubscribeRequest {
        request: Some(Asked::Start(begin)),
    })
    .await?;
    let mut answers = SubscriptionsClient::new(channel)
        .subscribe(ReceiverStream::new(asked))
        .await?
        .into_inner();
    while let Some(answer) = answers.next().await {
        if let Some(Answered::Delivered(delivered)) = answer?.response {
            let outcome = Some(Settled::Done(v1::Done::default()));
            let settle = Settle {
                number: delivered.number,
                outcome,
            };
            asks.send(v1::SubscribeRequest {
                request: Some(Asked::Settle(settle)),
            })
            .await?;
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "it ends with the measurement's runtime"
)]
fn bare_stream(count: usize) -> anyhow::Result<Row> {
    let events = std::sync::Mutex::new(Some(events(count).collect()));
    let settled = Arc::new(AtomicUsize::new(0));
    runtime()?.block_on(async {
        let bare = BareStream {
            events,
            settled: Arc::clone(&settled),
        };
        let address = serve_bare(Routes::new(SubscriptionsServer::new(bare))).await?;
        let began = Instant::now();
        let before = cpu::own();
        tokio::spawn(async move { subscribe(address).await });
        // The first message of the stream counts, too.
        while settled.load(Ordering::Relaxed) < count + 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Row::new(
            count,
            began.elapsed(),
            cpu::own().saturating_sub(before),
        ))
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "it ends with the measurement's runtime"
)]
fn subscription(count: usize) -> anyhow::Result<Row> {
    let events: Vec<Event> = events(count).collect();
    runtime()?.block_on(async {
        let shutdown = shutdown();
        let subscription_registry = SubscriptionRegistry::default();
        let shared = Extensions::default().with(subscription_registry.clone());
        let cx = OpenContext::new("route", ".").with_extensions(&shared);
        let opened = SubscriptionDispatcher::open(serde_json::from_value(json!({}))?, &cx).await;
        let dispatcher = Arc::new(opened.map_err(anyhow::Error::from_boxed)?);
        let service = Subscriptions::new(subscription_registry, shutdown.clone()).service();
        let address = serve(Routes::new(service), &shutdown).await?;
        tokio::spawn(async move { subscribe(address).await });
        let mut capacity = dispatcher.capacity().context("it has a capacity")?;
        capacity.wait_for(|capacity| *capacity > 0).await?;
        each_of(events, CONCURRENCY, move |event| {
            let dispatcher = Arc::clone(&dispatcher);
            async move {
                let cx = Context::new("route", event.id().to_string(), dispatcher.timeout());
                Ok(dispatcher.dispatch(&event, &cx).await.map(drop)?)
            }
        })
        .await
    })
}

/// Measures redriving by the API, as a command does it.
fn redrive(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let took = runtime()?.block_on(async {
        let queue = backlog(folder.path(), count).await?;
        bury(&*queue, count).await?;
        let stores = Arc::clone(&queue) as _;
        let shutdown = shutdown();
        let settings: operator::ReadSettings =
            Arc::new(|| anyhow::bail!("nobody asks for settings"));
        let audit = folder.path().join("audit.jsonl");
        let operator = Operator::new(
            stores,
            settings,
            audit,
            Arc::new(SystemClock),
            shutdown.clone(),
        );
        let address = serve(Routes::new(operator.service()), &shutdown).await?;
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect()
            .await?;
        let mut api = v1::operator_client::OperatorClient::new(channel);
        let all = v1::DeadLetterSelection {
            ids: Vec::new(),
            filter: Some(v1::DeadLetterFilter::default()),
        };
        let request = v1::RedriveDeadLettersRequest {
            selection: Some(all),
            to: String::new(),
        };
        let began = Instant::now();
        let mut tallies = api.redrive_dead_letters(request).await?.into_inner();
        let mut told = 0;
        let mut last = v1::BulkProgress::default();
        while let Some(message) = tallies.message().await? {
            (told, last) = (told + 1, message.progress.unwrap_or_default());
        }
        anyhow::ensure!(
            last.succeeded == count as u64 && last.failed == 0,
            "{last:?}"
        );
        crate::inputs::eprintln(&format!("redrive: told {told} times how far it was"));
        let took = began.elapsed();
        queue.close().await;
        anyhow::Ok(took)
    })?;
    report.time(
        &format!("redrive of {count} dead letters"),
        took,
        Duration::MAX,
    );
    Ok(())
}

async fn bury(source: &dyn Source, count: usize) -> anyhow::Result<()> {
    let name = "route".to_owned();
    let lease = Duration::from_secs(30);
    let route = Route {
        name,
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease,
    };
    let mut consumer = source.subscribe(route).await?;
    let mut buried = 0;
    while buried < count {
        let deliveries = consumer.next(512).await?;
        buried += deliveries.len();
        let settled = deliveries.into_iter().map(|delivery| {
            let started_at = delivery.first_attempt_at;
            let outcome = Outcome::Permanent;
            let took = Duration::from_millis(1);
            let attempt = Attempt {
                started_at,
                took,
                outcome,
                status: None,
                detail: None,
            };
            delivery.ticket.settle(Settlement {
                disposition: Disposition::Dead(DeadReason::Permanent),
                asked: true,
                attempt,
            })
        });
        futures::future::try_join_all(settled).await?;
    }
    Ok(())
}
