//! Connections at the gRPC port that nobody ends: they end with the process, in its time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use proto::v1;
use proto::v1::operator_client::OperatorClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::restarts::stop_and_watch_the_port;
use crate::pipeline::{PATIENCE, Pipeline, free_ports, may_open};

/// As many as the port has for those who are not known, and as many that are.
const CONNECTIONS: usize = 128;

/// How many of them watch deliveries: the most that may.
const WATCHING: usize = 64;

const TOKEN: &str = "token-of-an-administrator";

/// What a client of HTTP/2 begins with, and nothing more.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn known<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    request
}

async fn connect(grpc: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{grpc}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Calls that go on until the server ends them, on a connection each.
struct Endless {
    health: Streaming<HealthCheckResponse>,
    deliveries: Option<Streaming<v1::WatchDeliveriesResponse>>,
}

impl Endless {
    async fn begin(grpc: SocketAddr, watches: bool) -> Self {
        let channel = connect(grpc).await;
        let health = HealthClient::new(channel.clone())
            .watch(known(HealthCheckRequest::default()))
            .await;
        let mut deliveries = None;
        if watches {
            let mut operator = OperatorClient::new(channel);
            let watching = operator.watch_deliveries(known(v1::WatchDeliveriesRequest::default()));
            deliveries = Some(watching.await.unwrap().into_inner());
        }
        Self {
            health: health.unwrap().into_inner(),
            deliveries,
        }
    }

    /// Whatever was said, it ends.
    async fn end(mut self) {
        while let Ok(Some(_)) = self.health.message().await {}
        let Some(mut deliveries) = self.deliveries else {
            return;
        };
        while let Ok(Some(_)) = deliveries.message().await {}
    }
}

/// Whether the other side has ended it.
fn is_ended(mut stream: &TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_nobody_ends_end_with_the_process_and_keep_no_port() {
    if !may_open(8 * CONNECTIONS as u64) {
        return;
    }
    let route = "    - { name: all, match: {}, dispatcher: log }\n";
    let mut pipeline = Pipeline::prepare(route);
    let ([grpc], token) = (free_ports(), pipeline.folder.path().join("token"));
    std::fs::write(&token, TOKEN).unwrap();
    let admin = format!("{{ name: admin, file: {token:?}, roles: [admin] }}");
    pipeline.more = format!("  operator: {{ grpc: \"{grpc}\", tokens: [{admin}] }}\n");
    pipeline.write_settings(route);
    pipeline.run();
    let begin = |number| Endless::begin(grpc, number < WATCHING);
    let endless = futures::future::join_all((0..CONNECTIONS).map(begin)).await;
    let strangers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(grpc).unwrap();
            stream.write_all(PREFACE).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            stream
        })
        .collect();
    assert!(
        strangers.iter().any(|stream| !is_ended(stream)),
        "nobody stays"
    );

    // Within its time, and its own port is shut at the very end.
    let shut = stop_and_watch_the_port(&mut pipeline).shut;
    assert!(shut <= Duration::from_secs(1), "shut for {shut:?}");
    assert!(TcpStream::connect(grpc).is_err(), "somebody still listens");
    assert!(strangers.iter().all(is_ended));
    let ended = futures::future::join_all(endless.into_iter().map(Endless::end));
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("a call goes on without a server");
    // What is left of them keeps nobody from the port.
    pipeline.run();
    Endless::begin(grpc, true).await;
    assert_eq!(pipeline.stop(), Some(0));
}
