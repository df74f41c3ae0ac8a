//! A connection that can be cut, as the server sees it when a client crashes.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Carries bytes between clients and one server, until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    cut: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, mut is_cut) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "it ends with its proxy")]
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    _ = &mut is_cut => break,
                    accepted = listener.accept() => accepted,
                };
                let Ok((mut client, _)) = accepted else { break };
                connections.spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
            connections.shutdown().await;
        });
        Self { address, cut, task }
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
