//! Somebody without a key at a proxy as shipped: quick, large, or staying for long. Honest
//! senders beside them are answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{DESCRIPTORS, Kind, PATH, SLOW, STRANGER, request, send_paced};
use crate::pipeline::{may_open, until};

/// Honest webhooks, 30 a second.
const HONEST: usize = 150;

/// More than HAProxy has places for.
const KEPT: usize = SLOW;

/// Time between two bytes of who trickles: shorter than what a proxy waits for.
const DRIP: Duration = Duration::from_secs(1);

/// How long an answer is waited for by whoever attacks.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What one connection of a stranger does.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Whole requests with a forged signature, one after the other, on one connection as long
    /// as it is kept.
    Forged { length: usize },
    /// A large body of which the last byte never comes.
    AlmostWhole,
    /// A body of which a byte comes each second.
    Trickling,
    /// One request that is answered, and a connection that is kept.
    Kept,
}

impl Attack {
    /// What it sends at once.
    fn request(self) -> Vec<u8> {
        match self {
            Self::Forged { length } => {
                let (begin, end) = (r#"{"accountId":"ACME","p":""#, "\"}");
                let filling = "x".repeat(length - begin.len() - end.len());
                forged(&format!("{begin}{filling}{end}"))
            }
            Self::AlmostWhole => {
                let mut whole = forged(&"x".repeat(2_000_000));
                whole.pop();
                whole
            }
            Self::Trickling => {
                let mut begun = forged(&"x".repeat(2000));
                begun.truncate(begun.len() - 1999);
                begun
            }
            Self::Kept => format!("GET {PATH}/elsewhere HTTP/1.1\r\nhost: t\r\n\r\n").into_bytes(),
        }
    }

    /// Goes on on one connection until it ends. Counts what was answered, and what never can be
    /// when it is sent.
    async fn run(self, stream: &mut TcpStream, request: &[u8], done: &AtomicUsize) -> Option<()> {
        let mut answer = [0; 4096];
        loop {
            stream.write_all(request).await.ok()?;
            if matches!(self, Self::AlmostWhole | Self::Trickling) {
                done.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(self, Self::Trickling) {
                while timeout(DRIP, stream.read(&mut answer)).await.is_err() {
                    stream.write_all(b"x").await.ok()?;
                }
                return None;
            }
            let read = timeout(ANSWERED_WITHIN, stream.read(&mut answer))
                .await
                .ok()?
                .ok()?;
            if read == 0 || matches!(self, Self::AlmostWhole) {
                return None;
            }
            done.fetch_add(1, Ordering::Relaxed);
            if matches!(self, Self::Kept) {
                while stream.read(&mut answer).await.ok()? > 0 {}
                return None;
            }
        }
    }
}

fn forged(body: &str) -> Vec<u8> {
    let request = String::from_utf8(request(&"A".repeat(172), body.as_bytes())).unwrap();
    request.replace("connection: close\r\n", "").into_bytes()
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((STRANGER, 0).into())?;
    timeout(ANSWERED_WITHIN, socket.connect(to)).await?
}

/// So many connections that attack, each made anew once it is ended, until this is dropped.
struct Crowd {
    _connections: JoinSet<()>,
    done: Arc<AtomicUsize>,
}

impl Crowd {
    fn start(attack: Attack, connections: usize, to: SocketAddr) -> Self {
        let done = Arc::<AtomicUsize>::default();
        let request: Arc<[u8]> = attack.request().into();
        let mut running = JoinSet::new();
        for _ in 0..connections {
            let done = Arc::clone(&done);
            let request = Arc::clone(&request);
            running.spawn(async move {
                loop {
                    match connect(to).await {
                        Ok(mut stream) => drop(attack.run(&mut stream, &request, &done).await),
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            });
        }
        Self {
            _connections: running,
            done,
        }
    }

    /// How many requests it has got through.
    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }
}

/// Honest senders are answered 200 beside an attack, which is one only once it has got through
/// with so many requests.
#[expect(clippy::print_stdout, reason = "figures of a test")]
async fn are_answered_beside(kind: Kind, attack: Attack, connections: usize, at_least: usize) {
    if !may_open(DESCRIPTORS) {
        return;
    }
    let Some(proxied) = kind.start() else { return };
    let crowd = Crowd::start(attack, connections, proxied.address);
    until("the attack has begun", || {
        crowd.done() >= at_least.min(connections)
    })
    .await;
    let answers = send_paced(proxied.address, HONEST, Duration::from_millis(33)).await;
    let good = answers
        .iter()
        .filter(|(status, _)| *status == Some(200))
        .count();
    let p99 = answers[answers.len() * 99 / 100].1;
    let done = crowd.done();
    println!("{kind:?}, {attack:?}: {good} of {HONEST} good, p99 {p99:?}, beside {done}");
    assert_eq!(good, HONEST, "{:?}", answers.last());
    until("it was an attack", || crowd.done() >= at_least).await;
}

async fn are_answered_beside_forgeries(kind: Kind) {
    are_answered_beside(kind, Attack::Forged { length: 300 }, 64, 1000).await;
}

async fn are_answered_beside_large_bodies(kind: Kind) {
    are_answered_beside(kind, Attack::Forged { length: 1_900_000 }, 8, 20).await;
    are_answered_beside(kind, Attack::AlmostWhole, 34, 34).await;
}

async fn are_answered_beside_trickling_bodies(kind: Kind) {
    are_answered_beside(kind, Attack::Trickling, KEPT, KEPT).await;
}

async fn are_answered_beside_kept_connections(kind: Kind) {
    are_answered_beside(kind, Attack::Kept, KEPT, KEPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_as_shipped_takes_good_webhooks_beside_forgeries() {
    are_answered_beside_forgeries(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_shipped_takes_good_webhooks_beside_forgeries() {
    are_answered_beside_forgeries(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_as_shipped_takes_good_webhooks_beside_large_bodies() {
    are_answered_beside_large_bodies(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_shipped_takes_good_webhooks_beside_large_bodies() {
    are_answered_beside_large_bodies(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_as_shipped_takes_good_webhooks_beside_kept_connections() {
    are_answered_beside_kept_connections(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_shipped_takes_good_webhooks_beside_kept_connections() {
    are_answered_beside_kept_connections(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_as_shipped_takes_good_webhooks_beside_trickling_bodies() {
    are_answered_beside_trickling_bodies(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_shipped_takes_good_webhooks_beside_trickling_bodies() {
    are_answered_beside_trickling_bodies(Kind::Nginx).await;
}
