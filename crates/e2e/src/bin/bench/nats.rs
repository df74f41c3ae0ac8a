//! The rows of the cluster: the same measurements on real NATS servers, which share the machine's
//! cores with what is measured.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{self, consumer, message::PublishMessage};
use clap::ValueEnum;
use dispatcher::RouteSelection;
use event_model::{Event, SystemClock};
use futures::StreamExt;
use nats_server::Cluster;
use process::Shutdown;
use queue::{Condition, Intake, Lifecycle, MatchFields, Source, Upstream};
use queue_nats::{JetStream, Options, cluster};
use settings::{RouteSettings, Routes};
use tokio::task::JoinSet;

use crate::child::{load_axum, start_gateway_on_nats};
use crate::inputs::Inputs;
use crate::report::{Report, Row};
use crate::stages::{DELIVERED, Noop, disk, each, events, route, runtime, work_off};
use crate::{CONNECTIONS, cpu, floors};

/// Servers with their streams, on the disk that the workspace is on.
struct Servers {
    cluster: Cluster,
    options: Options,
    _folder: tempfile::TempDir,
}

impl Servers {
    fn start(count: usize, sync_always: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(disk()?)?;
        let place = Some(folder.path().to_owned());
        let servers = nats_server::Options {
            sync_always,
            folder: place,
            ..nats_server::Options::default()
        };
        let cluster = Cluster::start(count, &servers)?;
        let mut options = Options::new(cluster.urls());
        options.layout.replicas = count;
        options.layout.bytes = 3 << 30;
        let servers = Self {
            cluster,
            options,
            _folder: folder,
        };
        runtime()?.block_on(async {
            let report = cluster::Cluster::connect(&servers.options)
                .await?
                .init()
                .await?;
            anyhow::ensure!(report.is_good(), "{report}");
            Ok(servers)
        })
    }

    /// The server for measurements that need only one.
    fn shared(self) -> crate::rest::Server {
        crate::rest::Server {
            options: self.options,
            cluster: self.cluster,
            _folder: self._folder,
        }
    }

    fn urls(&self) -> String {
        self.cluster.urls().join(",")
    }

    async fn queue(&self) -> anyhow::Result<Arc<JetStream>> {
        let queue = JetStream::open(self.options.clone(), Arc::new(SystemClock)).await?;
        queue.horizon().await?;
        Ok(Arc::new(queue))
    }

    async fn bare(&self) -> anyhow::Result<jetstream::Context> {
        Ok(jetstream::new(
            async_nats::connect(self.cluster.urls()).await?,
        ))
    }

    /// Measures as many publishers as there are connections: one event after another, each in a
    /// message of its own.
    fn publish_bare(&self, count: usize) -> anyhow::Result<Row> {
        let events: Vec<_> = events(count).collect();
        runtime()?.block_on(async {
            let bare = self.bare().await?;
            each(events, move |event| {
                let bare = bare.clone();
                async move {
                    let mut message = PublishMessage::build().payload(event.body().clone());
                    message = message.header(NATS_MESSAGE_ID, event.id().to_string().as_str());
                    bare.send_publish(event.subject(), message).await?.await?;
                    Ok(())
                }
            })
            .await
        })
    }

    /// Measures atomic batches of 64 (ADR-50), four on their way at once.
    fn publish_batches(&self, count: usize) -> anyhow::Result<Row> {
        const BATCH: usize = 64;
        let events: Vec<_> = events(count).collect();
        runtime()?.block_on(async {
            let client = async_nats::connect(self.cluster.urls()).await?;
            let began = Instant::now();
            let before = cpu::own();
            let batches =
                futures::stream::iter(events.chunks(BATCH)).map(|batch| send_batch(&client, batch));
            let sent: Vec<_> = batches.buffered(4).collect().await;
            sent.into_iter().collect::<anyhow::Result<()>>()?;
            Ok(Row::new(
                count,
                began.elapsed(),
                cpu::own().saturating_sub(before),
            ))
        })
    }

    /// Measures the queue with as many publishers as there are connections.
    fn publish(&self, count: usize, skip: usize) -> anyhow::Result<Row> {
        let events: Vec<_> = events(skip + count).skip(skip).collect();
        runtime()?.block_on(async {
            let queue = self.queue().await?;
            let publishing = Arc::clone(&queue);
            let row = each(events, move |event| {
                let queue = Arc::clone(&publishing);
                async move { Ok(queue.publish(event).await.map(drop)?) }
            })
            .await;
            queue.close().await;
            row
        })
    }

    /// Measures publishing as a spool works off a backlog: four lanes, 256 events at a time.
    fn publish_together(&self, count: usize) -> anyhow::Result<Row> {
        let events: Vec<_> = events(count).collect();
        runtime()?.block_on(async {
            let queue = self.queue().await?;
            let began = Instant::now();
            let before = cpu::own();
            let groups =
                futures::stream::iter(events.chunks(256)).map(|group| queue.publish_many(group));
            let published: Vec<_> = groups.buffer_unordered(4).collect().await;
            let failed = published.into_iter().find_map(|group| group.error);
            anyhow::ensure!(failed.is_none(), "{failed:?}");
            let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
            queue.close().await;
            Ok(row)
        })
    }

    /// Measures this many consumers, each of which acknowledges all it gets at once.
    fn pull_bare(&self, count: usize, consumers: usize) -> anyhow::Result<Row> {
        runtime()?.block_on(async {
            let stream = self.bare().await?.get_stream("FLUENT_EVENTS").await?;
            let mut pulling = JoinSet::new();
            let began = Instant::now();
            let before = cpu::own();
            for number in 0..consumers {
                let name = format!("bare-{number}");
                let config = consumer::pull::Config {
                    durable_name: Some(name.clone()),
                    max_ack_pending: 20_000,
                    ..consumer::pull::Config::default()
                };
                let consumer = stream.create_consumer(config).await?;
                pulling.spawn(async move {
                    let messages = consumer
                        .stream()
                        .max_messages_per_batch(512)
                        .messages()
                        .await?;
                    let mut messages = messages.take(count);
                    while let Some(message) = messages.next().await {
                        message?.ack().await.map_err(anyhow::Error::from_boxed)?;
                    }
                    anyhow::Ok(name)
                });
            }
            let pulled = pulling.join_all().await;
            let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
            for name in pulled {
                stream.delete_consumer(&name?).await?;
            }
            Ok(row)
        })
    }

    fn dispatchers(&self, count: usize, how_many: usize) -> anyhow::Result<Row> {
        runtime()?.block_on(async {
            let mut queues = Vec::new();
            for _ in 0..how_many {
                queues.push(self.queue().await?);
            }
            let registry = dispatch::Registry::new().with::<Noop>();
            let sources: Vec<_> = queues
                .iter()
                .map(|queue| Arc::clone(queue) as Arc<dyn Source>)
                .collect();
            let row = work_off(&sources, vec![route("all")], &registry, count).await;
            for queue in queues {
                queue.close().await;
            }
            row
        })
    }

    /// Measures a dispatcher with [`three_routes`], from its start until each has passed all
    /// events.
    fn three_routes(&self, count: usize) -> anyhow::Result<Row> {
        let registry = dispatch::Registry::new().with::<Noop>();
        runtime()?.block_on(async {
            let queue = self.queue().await?;
            // Routes that exist, so that unrouted events are looked for from the first event on.
            work_off(
                &[Arc::clone(&queue) as Arc<dyn Source>],
                three_routes()?,
                &registry,
                0,
            )
            .await?;
            queue.close().await;
            anyhow::Ok(())
        })?;
        self.publish(count, 0)?;
        runtime()?.block_on(async {
            let queue = self.queue().await?;
            let clock = Arc::new(SystemClock);
            let routes = Routes(three_routes()?);
            let shutdown = Shutdown::manual(Duration::from_secs(30));
            let wanted = DELIVERED.load(Ordering::Relaxed) + 2 * count;
            let began = Instant::now();
            let before = cpu::own();
            let all = RouteSelection::everything();
            let here = Path::new(".");
            let shared = dispatch::Extensions::default();
            let source = Arc::clone(&queue) as Arc<dyn Source>;
            let opening = dispatcher::open(&routes, &all, here, &shared, &registry, &source, clock);
            opening.await?.start(&shutdown);
            while DELIVERED.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let stream = self.bare().await?.get_stream("FLUENT_EVENTS").await?;
            let mut rest: consumer::PullConsumer = stream
                .get_consumer(queue::UNROUTED)
                .await
                .map_err(anyhow::Error::from_boxed)?;
            loop {
                let info = rest.info().await?;
                if info.num_pending == 0 && info.num_ack_pending == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
            shutdown.finish().await;
            queue.close().await;
            Ok(row)
        })
    }
}

/// A route for one account, and a route with an expression. Beside them, the dispatcher looks for
/// unrouted events among all.
fn three_routes() -> anyhow::Result<Vec<RouteSettings>> {
    let when = Some(Condition::parse("event.accountId == 'ACME'")?);
    let account = vec!["ACME".to_owned()];
    let of = |name, terms| RouteSettings {
        terms,
        ..route(name)
    };
    Ok(vec![
        of(
            "account",
            MatchFields {
                account,
                ..MatchFields::default()
            },
        ),
        of(
            "expression",
            MatchFields {
                when,
                ..MatchFields::default()
            },
        ),
    ])
}

async fn send_batch(client: &async_nats::Client, events: &[Event]) -> anyhow::Result<()> {
    let batch = events
        .first()
        .map(|event| event.id().to_string())
        .unwrap_or_default();
    for (number, event) in events.iter().enumerate() {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, event.id().to_string());
        headers.insert("Nats-Batch-Id", &batch[..32]);
        headers.insert("Nats-Batch-Sequence", (number + 1).to_string());
        if number + 1 < events.len() {
            client
                .publish_with_headers(event.subject(), headers, event.body().clone())
                .await?;
            continue;
        }
        headers.insert("Nats-Batch-Commit", "1");
        let answer = client
            .request_with_headers(event.subject(), headers, event.body().clone())
            .await?;
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        anyhow::ensure!(!answer.contains("error"), "a batch was refused: {answer}");
    }
    Ok(())
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Publishing, with each kind of server
    Publish,
    /// The gateway beside its floors
    Gateway,
    /// The dispatcher beside a bare consumer
    Dispatcher,
    /// A server that leads dies
    Dying,
    /// Publishing while more and more is there
    Filling,
    /// Saying what happened to an order
    History,
    /// What is asked of a server while nothing comes
    Rest,
}

/// Measures every row of the cluster, or those of one part.
pub(crate) fn measure(quick: bool, only: Option<Part>) -> anyhow::Result<Report> {
    let scale = if quick { 10 } else { 1 };
    let inputs = Inputs::make(2 * scale)?;
    let mut report = Report::default();
    for part in Part::value_variants()
        .iter()
        .filter(|part| only.is_none_or(|only| only == **part))
    {
        match part {
            Part::Publish => {
                for (servers, sync_always) in [(1, false), (1, true), (3, false), (3, true)] {
                    publishing(&mut report, servers, sync_always, scale)?;
                }
            }
            Part::Gateway => gateways(&mut report, &inputs, scale)?,
            Part::Dispatcher => dispatchers(&mut report, 100_000 / scale)?,
            Part::Dying => dying(&mut report, &inputs)?,
            Part::Filling => filling(&mut report, scale)?,
            Part::History => {
                let servers = Servers::start(1, false)?;
                let publish = |count| servers.publish_together(count).map(drop);
                crate::history::on_nats(&mut report, &servers.options, publish, 1_000_000 / scale)?;
            }
            Part::Rest => crate::rest::measure(&mut report, &Servers::start(1, false)?.shared())?,
        }
    }
    Ok(report)
}

/// Measures plain messages and batches.
fn publishing(
    report: &mut Report,
    count: usize,
    sync_always: bool,
    scale: usize,
) -> anyhow::Result<()> {
    let events = if sync_always { 10_000 } else { 60_000 } / scale;
    let what = format!("R{count}{}", if sync_always { ", sync always" } else { "" });
    let plain = Servers::start(count, sync_always)?.publish_bare(events)?;
    report.add(&format!("floor: bare publish, {what}"), plain);
    let batches = Servers::start(count, sync_always)?.publish_batches(events)?;
    report.add(&format!("bare batches of 64, {what}"), batches);
    let queue = Servers::start(count, sync_always)?.publish(events, 0)?;
    report.add(&format!("publish, {what}"), queue);
    let together = Servers::start(count, sync_always)?.publish_together(events)?;
    report.add(&format!("publish, 256 together, {what}"), together);
    Ok(())
}

/// Rounds of each measurement, in turn with what it is compared with. The least one counts, since
/// other use of this machine can only add to it.
const ROUNDS: usize = 3;

fn least<const N: usize>(
    mut round: impl FnMut() -> anyhow::Result<[Row; N]>,
) -> anyhow::Result<[Row; N]> {
    let mut best = round()?;
    for _ in 1..ROUNDS {
        for (best, row) in best.iter_mut().zip(round()?) {
            if row.cpu_us < best.cpu_us {
                *best = row;
            }
        }
    }
    Ok(best)
}

fn gateways(report: &mut Report, inputs: &Inputs, scale: usize) -> anyhow::Result<()> {
    let signed = &inputs.rsa1024;
    let gateway = |spool: Option<&Path>| {
        let servers = Servers::start(1, false)?;
        start_gateway_on_nats(&servers.urls(), 1, signed, spool)?.load(&signed.requests, false)
    };
    let [axum, verify, bare, file, plain, spooled] = least(|| {
        let spool = tempfile::tempdir_in(disk()?)?;
        Ok([
            load_axum(signed, false)?,
            floors::verify(signed, 100_000 / scale)?,
            Servers::start(1, false)?.publish_bare(100_000 / scale)?,
            floors::publish(CONNECTIONS, 100_000 / scale)?,
            gateway(None)?,
            gateway(Some(spool.path()))?,
        ])
    })?;
    let sum = axum.cpu_us + verify.cpu_us + bare.cpu_us;
    let with_spool = sum + file.cpu_us;
    report.add("floor: bare axum route, keep-alive", axum);
    report.add("floor: bare verification, RSA 1024", verify);
    report.add("floor: bare publish, R1 (again)", bare);
    report.add("floor: bare publish, embedded queue", file);
    let one = report.add(
        "gateway on JetStream R1, no spool",
        plain.of_floor(sum).wanted(0.0, 1.5),
    );
    let spooled = spooled.of_floor(with_spool).wanted(0.0, 1.3);
    report.add("gateway on JetStream R1, with its spool", spooled);
    let [two] = least(|| Ok([two_gateways(inputs)?]))?;
    report.add(
        "two gateways on JetStream R1, no spool",
        two.of_floor(one.cpu_us),
    );
    Ok(())
}

/// Measures two gateways that each get half of the load at the same time.
fn two_gateways(inputs: &Inputs) -> anyhow::Result<Row> {
    let servers = Servers::start(1, false)?;
    let signed = &inputs.rsa1024;
    let gateway = || start_gateway_on_nats(&servers.urls(), 1, signed, None);
    let first = gateway()?;
    let second = gateway()?;
    let (these, those) = signed.requests.split_at(signed.requests.len() / 2);
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| second.load(those, false));
        (first.load(these, false), second.join())
    });
    let first = first?;
    let second = second.map_err(|_| anyhow::anyhow!("the load panicked"))??;
    let cpu_us = f64::midpoint(first.cpu_us, second.cpu_us);
    Ok(Row {
        rate: first.rate + second.rate,
        cpu_us,
        ..first
    })
}

fn dispatchers(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let filled = || {
        let servers = Servers::start(1, false)?;
        servers.publish(count, 0)?;
        anyhow::Ok(servers)
    };
    let [pull, one, two] = least(|| {
        let servers = filled()?;
        Ok([
            servers.pull_bare(count, 1)?,
            servers.dispatchers(count, 1)?,
            filled()?.dispatchers(count, 2)?,
        ])
    })?;
    let pull = report.add("floor: bare pull consumer, R1", pull);
    let one = one
        .of_floor(pull.cpu_us)
        .wanted(0.8 * pull.rate, f64::INFINITY);
    let one = report.add("dispatcher, no-op, R1", one);
    report.add("two dispatchers, no-op, R1", two.of_floor(one.cpu_us));
    let [pull, routes] = least(|| {
        let servers = Servers::start(1, false)?;
        let routes = servers.three_routes(count)?;
        Ok([servers.pull_bare(count, 3)?, routes])
    })?;
    let pull = report.add("floor: three bare pull consumers, R1", pull);
    let what = "dispatcher, no-op: a route, one with an expression, and unrouted, R1";
    report.add(
        what,
        routes
            .of_floor(pull.cpu_us)
            .wanted(0.8 * pull.rate, f64::INFINITY),
    );
    Ok(())
}

/// Measures answers while a server that leads is killed.
fn dying(report: &mut Report, inputs: &Inputs) -> anyhow::Result<()> {
    let signed = &inputs.rsa1024;
    let mut servers = Servers::start(3, false)?;
    let spool = tempfile::tempdir_in(disk()?)?;
    let gateway = start_gateway_on_nats(&servers.urls(), 3, signed, Some(spool.path()))?;
    let row = std::thread::scope(|scope| {
        let loading = scope.spawn(|| gateway.load(&signed.requests, false));
        std::thread::sleep(Duration::from_secs(1));
        let leader = servers.cluster.leader("FLUENT_EVENTS");
        leader
            .into_iter()
            .for_each(|leader| servers.cluster.servers[leader].kill());
        (leader, loading.join())
    });
    let (leader, row) = row;
    anyhow::ensure!(leader.is_some(), "nobody led, so nobody was killed");
    let row = row.map_err(|_| anyhow::anyhow!("the load panicked"))??;
    let row = report.add("gateway with its spool, R3, its leader dying", row);
    let p99 = Duration::from_secs_f64(row.p99_ms.unwrap_or(f64::MAX).min(1e6) / 1000.0);
    report.time(
        "p99 of answers while a leader of R3 dies",
        p99,
        Duration::from_millis(50),
    );
    Ok(())
}

/// Measures the cost of one more event when many are stored.
fn filling(report: &mut Report, scale: usize) -> anyhow::Result<()> {
    let servers = Servers::start(1, false)?;
    let mut there = 0;
    let mut floor = None;
    for wanted in [1_000, 100_000 / scale, 1_000_000 / scale] {
        servers.publish(wanted - there, there)?;
        there = wanted;
        let [row] = least(|| {
            let row = servers.publish(20_000 / scale, there)?;
            there += 20_000 / scale;
            Ok([row])
        })?;
        let floor = *floor.get_or_insert(row.cpu_us);
        report.add(
            &format!("publish with {wanted} waiting, R1"),
            row.of_floor(floor).wanted(0.0, 1.1),
        );
    }
    Ok(())
}
