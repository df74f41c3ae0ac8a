//! A load generator of low cost: raw requests over raw sockets, all on one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) took: Duration,
    pub(crate) latencies: Histogram<u64>,
}

/// Sends every request once, over this many connections at a time. Each must be answered 200.
pub(crate) fn run(
    to: SocketAddr,
    requests: &[Vec<u8>],
    connections: usize,
    new_each: bool,
) -> anyhow::Result<Loaded> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let requests: Arc<[Vec<u8>]> = requests.to_vec().into();
    runtime.block_on(async {
        let next = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(send(to, Arc::clone(&requests), Arc::clone(&next), new_each));
        }
        let mut latencies = Histogram::new(3)?;
        while let Some(done) = tasks.join_next().await {
            latencies.add(done??)?;
        }
        Ok(Loaded {
            took: began.elapsed(),
            latencies,
        })
    })
}

async fn send(
    to: SocketAddr,
    requests: Arc<[Vec<u8>]>,
    next: Arc<AtomicUsize>,
    new_each: bool,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    let mut kept = None;
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let began = Instant::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(to).await?,
        };
        stream.write_all(request).await?;
        answer(&mut stream).await?;
        latencies.record(u64::try_from(began.elapsed().as_micros())?)?;
        kept = (!new_each).then_some(stream);
    }
    Ok(latencies)
}

async fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(to).await.context("connecting")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer, which must be a 200 with a content-length.
pub(crate) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<()> {
    let mut buffer = [0; 2048];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("closed without an answer");
        }
        filled += read;
        if is_whole(&buffer[..filled])? {
            return Ok(());
        }
    }
}

fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let text = std::str::from_utf8(answer)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(false);
    };
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{head}");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    Ok(body.len() >= length.context("no content-length")?.parse()?)
}
