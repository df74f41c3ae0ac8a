//! A connection that can be cut, as the server sees it when a client crashes, that is slow, or
//! changes what the server says.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

type Hear = dyn Fn(&[u8]) + Send + Sync;

/// Carries bytes between clients and one server, until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    latency: Arc<Mutex<Duration>>,
    cut: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        Self::changing(server, |_| {}).await
    }

    /// Changes what the server says, whose length must stay.
    pub(crate) async fn changing(server: u16, change: fn(&mut [u8])) -> Self {
        Self::with(server, change, |_| {}).await
    }

    /// Tells `hear` what clients say.
    pub(crate) async fn hearing(server: u16, hear: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self::with(server, |_| {}, hear).await
    }

    async fn with(
        server: u16,
        change: fn(&mut [u8]),
        hear: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> Self {
        let hear: Arc<Hear> = Arc::new(hear);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let latency = Arc::<Mutex<Duration>>::default();
        let of_answers = Arc::clone(&latency);
        let (cut, mut is_cut) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "it ends with its proxy")]
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    _ = &mut is_cut => break,
                    accepted = listener.accept() => accepted,
                };
                let Ok((client, _)) = accepted else { break };
                let latency = Arc::clone(&of_answers);
                let hear = Arc::clone(&hear);
                connections.spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", server)).await?;
                    let (asks, asked) = client.into_split();
                    let (answers, server) = server.into_split();
                    tokio::select! {
                        ended = copy_heard(asks, server, hear) => ended,
                        ended = copy_late(answers, asked, latency, change) => ended,
                    }
                });
            }
            connections.shutdown().await;
        });
        Self {
            address,
            latency,
            cut,
            task,
        }
    }

    /// From now on, what the server says comes this much later.
    pub(crate) fn slow_down(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// Cuts every connection. When this returns, nothing goes through any more:
    /// a task that was merely told to end goes on for a while on a busy machine.
    pub(crate) async fn cut(self) {
        let _ = self.cut.send(());
        self.task.await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

async fn copy_heard(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    hear: Arc<Hear>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        hear(&bytes[..count]);
        to.write_all(&bytes[..count]).await?;
    }
}

async fn copy_late(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    latency: Arc<Mutex<Duration>>,
    change: fn(&mut [u8]),
) -> io::Result<()> {
    let (came, mut coming) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut bytes).await?;
            let at = Instant::now() + *latency.lock().unwrap();
            change(&mut bytes[..count]);
            if count == 0 || came.send((at, bytes[..count].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = coming.recv().await {
            sleep_until(at).await;
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(reading, writing).map(drop)
}
