//! The cluster's rows: everything again, on real NATS servers that share the
//! machine's cores with what is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{self, consumer, message::PublishMessage};
use event_model::{Event, SystemClock};
use futures::StreamExt;
use nats_server::Cluster;
use queue::EventQueue;
use queue_nats::{JetStream, Options, cluster};
use tokio::task::JoinSet;

use crate::child::{load_axum, start_gateway_on_nats};
use crate::inputs::Inputs;
use crate::report::{Report, Row};
use crate::stages::{disk, events, runtime, work_off};
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
        let servers = nats_server::Options { sync_always, folder: place, ..nats_server::Options::default() };
        let cluster = Cluster::start(count, &servers)?;
        let mut options = Options::new(cluster.urls());
        options.layout.replicas = count;
        options.layout.bytes = 3 << 30;
        let servers = Self { cluster, options, _folder: folder };
        runtime()?.block_on(async {
            let report = cluster::Cluster::connect(&servers.options).await?.init().await?;
            anyhow::ensure!(report.is_good(), "{report}");
            Ok(servers)
        })
    }

    fn urls(&self) -> String {
        self.cluster.urls().join(",")
    }

    async fn queue(&self) -> anyhow::Result<Arc<dyn EventQueue>> {
        let queue = JetStream::open(self.options.clone(), Arc::new(SystemClock)).await?;
        queue.horizon().await?;
        Ok(Arc::new(queue))
    }

    async fn bare(&self) -> anyhow::Result<jetstream::Context> {
        Ok(jetstream::new(async_nats::connect(self.cluster.urls()).await?))
    }

    /// So many publishers, one event after another, each its own message.
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

    /// Atomic batches of 64 (ADR-50), four on their way at once.
    fn publish_batches(&self, count: usize) -> anyhow::Result<Row> {
        const BATCH: usize = 64;
        let events: Vec<_> = events(count).collect();
        runtime()?.block_on(async {
            let client = async_nats::connect(self.cluster.urls()).await?;
            let (began, before) = (Instant::now(), cpu::own());
            let batches = futures::stream::iter(events.chunks(BATCH)).map(|batch| send_batch(&client, batch));
            let sent: Vec<_> = batches.buffered(4).collect().await;
            sent.into_iter().collect::<anyhow::Result<()>>()?;
            Ok(Row::new(count, began.elapsed(), cpu::own().saturating_sub(before)))
        })
    }

    /// The same through the queue, by as many publishers as there are connections.
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

    /// One consumer that acknowledges all it gets at once.
    fn pull_bare(&self, count: usize) -> anyhow::Result<Row> {
        runtime()?.block_on(async {
            let stream = self.bare().await?.get_stream("FLUENT_EVENTS").await?;
            let config = consumer::pull::Config {
                durable_name: Some("bare".to_owned()),
                max_ack_pending: 20_000,
                ..consumer::pull::Config::default()
            };
            let consumer = stream.create_consumer(config).await?;
            let (began, before) = (Instant::now(), cpu::own());
            let mut messages = consumer.stream().max_messages_per_batch(512).messages().await?.take(count);
            while let Some(message) = messages.next().await {
                message?.ack().await.map_err(anyhow::Error::from_boxed)?;
            }
            let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
            stream.delete_consumer("bare").await?;
            Ok(row)
        })
    }

    fn dispatchers(&self, count: usize, how_many: usize) -> anyhow::Result<Row> {
        runtime()?.block_on(async {
            let mut queues = Vec::new();
            for _ in 0..how_many {
                queues.push(self.queue().await?);
            }
            let row = work_off(&queues, count).await;
            for queue in queues {
                queue.close().await;
            }
            row
        })
    }
}

async fn send_batch(client: &async_nats::Client, events: &[Event]) -> anyhow::Result<()> {
    let batch = events.first().map(|event| event.id().to_string()).unwrap_or_default();
    for (number, event) in events.iter().enumerate() {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, event.id().to_string());
        headers.insert("Nats-Batch-Id", &batch[..32]);
        headers.insert("Nats-Batch-Sequence", (number + 1).to_string());
        if number + 1 < events.len() {
            client.publish_with_headers(event.subject(), headers, event.body().clone()).await?;
            continue;
        }
        headers.insert("Nats-Batch-Commit", "1");
        let answer = client.request_with_headers(event.subject(), headers, event.body().clone()).await?;
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        anyhow::ensure!(!answer.contains("error"), "a batch was refused: {answer}");
    }
    Ok(())
}

async fn each<F, D>(events: Vec<Event>, publish: F) -> anyhow::Result<Row>
where
    F: Fn(Event) -> D + Clone + Send + 'static,
    D: Future<Output = anyhow::Result<()>> + Send,
{
    let (count, began, before) = (events.len(), Instant::now(), cpu::own());
    let mut tasks = JoinSet::new();
    for share in events.chunks(count.div_ceil(CONNECTIONS)) {
        let (publish, share) = (publish.clone(), share.to_vec());
        tasks.spawn(async move {
            for event in share {
                publish(event).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(Row::new(count, began.elapsed(), cpu::own().saturating_sub(before)))
}

/// Every row of the cluster.
pub(crate) fn measure(quick: bool) -> anyhow::Result<Report> {
    let scale = if quick { 10 } else { 1 };
    let inputs = Inputs::make(2 * scale)?;
    let mut report = Report::default();
    for (servers, sync_always) in [(1, false), (1, true), (3, false), (3, true)] {
        publishing(&mut report, servers, sync_always, scale)?;
    }
    gateways(&mut report, &inputs, scale)?;
    dispatchers(&mut report, 100_000 / scale)?;
    dying(&mut report, &inputs)?;
    filling(&mut report, scale)?;
    Ok(report)
}

/// Plain messages against batches.
fn publishing(report: &mut Report, count: usize, sync_always: bool, scale: usize) -> anyhow::Result<()> {
    let events = if sync_always { 10_000 } else { 60_000 } / scale;
    let what = format!("R{count}{}", if sync_always { ", sync always" } else { "" });
    let plain = Servers::start(count, sync_always)?.publish_bare(events)?;
    report.add(&format!("floor: bare publish, {what}"), plain);
    let batches = Servers::start(count, sync_always)?.publish_batches(events)?;
    report.add(&format!("bare batches of 64, {what}"), batches);
    let queue = Servers::start(count, sync_always)?.publish(events, 0)?;
    report.add(&format!("publish, {what}"), queue);
    Ok(())
}

fn gateways(report: &mut Report, inputs: &Inputs, scale: usize) -> anyhow::Result<()> {
    let signed = &inputs.rsa1024;
    let axum = report.add("floor: bare axum route, keep-alive", load_axum(signed, false)?);
    let verify = report.add("floor: bare verification, RSA 1024", floors::verify(signed, 100_000 / scale)?);
    let bare = Servers::start(1, false)?.publish_bare(100_000 / scale)?;
    let bare = report.add("floor: bare publish, R1 (again)", bare);
    let file =
        report.add("floor: bare publish, embedded queue", floors::publish(CONNECTIONS, 100_000 / scale)?);
    let sum = axum.cpu_us + verify.cpu_us + bare.cpu_us;

    let servers = Servers::start(1, false)?;
    let gateway = start_gateway_on_nats(&servers.urls(), 1, signed, None)?.load(&signed.requests, false)?;
    let one = report.add("gateway on JetStream R1, no spool", gateway.of_floor(sum).wanted(0.0, 1.5));
    let (servers, spool) = (Servers::start(1, false)?, tempfile::tempdir_in(disk()?)?);
    let gateway = start_gateway_on_nats(&servers.urls(), 1, signed, Some(spool.path()))?;
    let gateway = gateway.load(&signed.requests, false)?.of_floor(sum + file.cpu_us).wanted(0.0, 1.5);
    report.add("gateway on JetStream R1, with its spool", gateway);

    let servers = Servers::start(1, false)?;
    let two = [0, 1].map(|_| start_gateway_on_nats(&servers.urls(), 1, signed, None));
    let half = signed.requests.len() / 2;
    let (first, second) = std::thread::scope(|scope| {
        let second =
            scope.spawn(|| two[1].as_ref().map(|gateway| gateway.load(&signed.requests[half..], false)));
        let first = two[0].as_ref().map(|gateway| gateway.load(&signed.requests[..half], false));
        (first, second.join())
    });
    if let (Ok(Ok(first)), Ok(Ok(Ok(second)))) = (first, second) {
        let both = Row {
            rate: first.rate + second.rate,
            cpu_us: f64::midpoint(first.cpu_us, second.cpu_us),
            ..first
        };
        report.add("two gateways on JetStream R1, no spool", both.of_floor(one.cpu_us));
    }
    Ok(())
}

fn dispatchers(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let servers = Servers::start(1, false)?;
    servers.publish(count, 0)?;
    let pull = report.add("floor: bare pull consumer, R1", servers.pull_bare(count)?);
    let one = servers.dispatchers(count, 1)?.of_floor(pull.cpu_us).wanted(0.6 * pull.rate, f64::INFINITY);
    let one = report.add("dispatcher, no-op, R1", one);
    let servers = Servers::start(1, false)?;
    servers.publish(count, 0)?;
    report.add("two dispatchers, no-op, R1", servers.dispatchers(count, 2)?.of_floor(one.cpu_us));
    Ok(())
}

/// A server that leads is killed while webhooks come in.
fn dying(report: &mut Report, inputs: &Inputs) -> anyhow::Result<()> {
    let signed = &inputs.rsa1024;
    let (mut servers, spool) = (Servers::start(3, false)?, tempfile::tempdir_in(disk()?)?);
    let gateway = start_gateway_on_nats(&servers.urls(), 3, signed, Some(spool.path()))?;
    let row = std::thread::scope(|scope| {
        let loading = scope.spawn(|| gateway.load(&signed.requests, false));
        std::thread::sleep(Duration::from_secs(1));
        if let Some(leader) = servers.cluster.leader("FLUENT_EVENTS") {
            servers.cluster.servers[leader].kill();
        }
        loading.join()
    });
    let row = row.map_err(|_| anyhow::anyhow!("the load panicked"))??;
    report.add("gateway with its spool, R3, its leader dying", row);
    Ok(())
}

/// What one more event costs when many are there.
fn filling(report: &mut Report, scale: usize) -> anyhow::Result<()> {
    let servers = Servers::start(1, false)?;
    let (mut there, mut floor) = (0, None);
    for wanted in [1_000, 100_000 / scale, 1_000_000 / scale] {
        servers.publish(wanted - there, there)?;
        let row = servers.publish(20_000 / scale, wanted)?;
        there = wanted + 20_000 / scale;
        let floor = *floor.get_or_insert(row.cpu_us);
        report.add(&format!("publish with {wanted} waiting, R1"), row.of_floor(floor));
    }
    Ok(())
}
