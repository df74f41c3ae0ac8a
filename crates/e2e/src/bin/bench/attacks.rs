//! What honest senders and an administrator get while somebody without a key attacks the webhook
//! port: `cargo xtask bench --attacks`.
//!
//! The floor of each row is the first one of its port: the same honest senders without an attack.
//! Handshakes that stop are tried at a port with TLS, and the others at one without, as behind a
//! proxy. Senders, the attack and the service share this machine's cores.

mod administrator;
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::administrator::Calls;
use self::tls::Tls;
use crate::inputs::{PATH, SignedInput};
use crate::report::{Report, Row};
use crate::stages::{disk, runtime};
use crate::{cpu, load};

/// Honest webhooks a second, from one address, on a connection each.
const HONEST: usize = 30;

/// Longest time that Fluent waits for an answer.
const PATIENCE: Duration = Duration::from_secs(14);

/// `mem_limit` of the gateway in docker-compose.yml.
const MEMORY: u64 = 256 << 20;

/// The address of the honest senders. Attackers have others.
const HONEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A false signature as long as one with a key of 1024 bits, in base64.
const FORGED: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODlBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWmFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6MDEyMzQ1Njc4OUFCQ0Q=";

/// The begin of a ClientHello of 512 bytes, by RFC 8446 4.1.2.
const HALF_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half a random value";

/// Runs all attacks, from one address and from fifty.
pub(crate) fn measure(
    report: &mut Report,
    signed: &SignedInput,
    quick: bool,
) -> anyhow::Result<()> {
    let time = Duration::from_secs(if quick { 4 } else { 12 });
    let folder = tempfile::tempdir_in(disk()?)?;
    let tls = Tls::make(folder.path())?;
    let mut good = Honest {
        requests: signed.requests.clone().into(),
        next: AtomicU64::new(0).into(),
        tls: None,
    };
    let mut service = Service::start(folder.path(), signed, None)?;
    attack_all(report, &mut service, &mut good, "nobody else", time)?;
    contrary(report, &service, signed, if quick { 2000 } else { 10_000 })?;
    drop(service);
    good.tls = Some(tls);
    let folder = tempfile::tempdir_in(disk()?)?;
    let mut service = Service::start(folder.path(), signed, good.tls.as_ref())?;
    attack_all(
        report,
        &mut service,
        &mut good,
        "nobody else, over TLS",
        time,
    )
}

/// Runs the attacks that are for the port of this service, from one address and from fifty.
fn attack_all(
    report: &mut Report,
    service: &mut Service,
    good: &mut Honest,
    floor: &str,
    time: Duration,
) -> anyhow::Result<()> {
    let alone = run(report, service, good, floor, None, time)?;
    for addresses in [1, 50] {
        for (name, kind) in ATTACKS {
            if kind.is_of_tls() != good.tls.is_some() {
                continue;
            }
            let attack = Attack {
                addresses,
                to: service.address,
                kind,
            };
            let name = format!("{name}, from {addresses}");
            run(
                report,
                service,
                good,
                &name,
                Some((attack, alone.rate)),
                time,
            )?;
        }
    }
    Ok(())
}

/// The kinds of attacks: a number of connections, and the bytes that are sent on each.
#[derive(Clone, Copy)]
enum Kind {
    /// Bodies whose last byte never comes.
    AlmostWhole { connections: usize },
    /// Connections that sent one request and stay open.
    Kept { connections: usize },
    /// Headers that are sent a byte at a time.
    SlowHeader { connections: usize },
    /// TLS handshakes that stop amid the first message.
    HalfTls { connections: usize },
    /// Bodies that are sent a byte at a time.
    SlowBody { connections: usize },
    /// Whole requests of this length, as fast as they are answered.
    Forged { connections: usize, length: usize },
}

const ATTACKS: [(&str, Kind); 8] = [
    (
        "34 bodies but for a byte",
        Kind::AlmostWhole { connections: 34 },
    ),
    ("4,096 kept connections", Kind::Kept { connections: 4096 }),
    ("2,000 slow headers", Kind::SlowHeader { connections: 2000 }),
    (
        "4,000 half TLS handshakes",
        Kind::HalfTls { connections: 4000 },
    ),
    ("1,000 slow bodies", Kind::SlowBody { connections: 1000 }),
    (
        "small forgeries",
        Kind::Forged {
            connections: 256,
            length: 300,
        },
    ),
    (
        "forgeries of 2 MB",
        Kind::Forged {
            connections: 8,
            length: 2_000_000,
        },
    ),
    (
        "forgeries of 250 kB that are held",
        Kind::Forged {
            connections: 8,
            length: 250_000,
        },
    ),
];

struct Attack {
    addresses: u8,
    to: SocketAddr,
    kind: Kind,
}

/// Measures one row: honest senders beside an attack.
fn run(
    report: &mut Report,
    service: &mut Service,
    good: &mut Honest,
    name: &str,
    attack: Option<(Attack, f64)>,
    time: Duration,
) -> anyhow::Result<Row> {
    let end = CancellationToken::new();
    let wanted = attack.as_ref().map(|(_, alone)| alone * 0.8);
    // Less is no attack, whatever honest senders get.
    let least = attack.as_ref().map_or(0, |(it, _)| it.kind.least(time));
    let attacker = attack.map(|(attack, _)| {
        let end = end.clone();
        std::thread::spawn(move || attack.run(&end))
    });
    // The attack begins before the measurement.
    std::thread::sleep(Duration::from_millis(if attacker.is_some() {
        1500
    } else {
        0
    }));
    let before = cpu::of(service.child.id())?;
    let (found, calls) = runtime()?.block_on(beside_each_other(service, good, time));
    let used = cpu::of(service.child.id())?.saturating_sub(before);
    let memory = cpu::resident(service.child.id())?;
    end.cancel();
    let tried = attacker.map(|attacker| attacker.join()).transpose();
    let tried = tried
        .map_err(|_| anyhow::anyhow!("the attack panicked"))?
        .transpose()?;
    let row = Row::new(found.good.max(1), time, used).with_latencies(&found.latencies);
    let row = report.add(
        name,
        wanted.map_or(row.clone(), |wanted| row.wanted(wanted, f64::INFINITY)),
    );
    if let Some(tried) = tried {
        let p99 = Duration::from_micros(found.latencies.value_at_quantile(0.99));
        report.time(&format!("p99 beside {name}"), p99, Duration::from_secs(1));
        let call = format!("an administrator's slowest call beside {name}");
        report.time(&call, calls.longest, administrator::ANSWERS_WITHIN);
        report.bound(&format!("memory beside {name}"), memory, MEMORY);
        let Calls { made, failed, .. } = calls;
        let goal = if tried >= least { "ok" } else { "MISSED" };
        report.said(format!(
            "{name}: {tried} connections were made, {goal} ({least} or more); of {made} calls of an administrator {failed} failed"
        ));
    }
    if service.child.try_wait()?.is_some() {
        bail!("the service ended");
    }
    Ok(row)
}

/// Honest senders, and an administrator for as long as they send.
async fn beside_each_other(service: &Service, good: &mut Honest, time: Duration) -> (Found, Calls) {
    let end = CancellationToken::new();
    let sending = async {
        let found = good.send(service.address, time).await;
        end.cancel();
        found
    };
    tokio::join!(sending, administrator::call_until(&end, service.grpc))
}

/// All honest traffic from one address, and many new connections: nobody is refused.
fn contrary(
    report: &mut Report,
    service: &Service,
    signed: &SignedInput,
    count: usize,
) -> anyhow::Result<()> {
    let requests: Vec<_> = signed.requests.iter().rev().take(count).cloned().collect();
    let before = cpu::of(service.child.id())?;
    // An answer other than 200 ends this with an error.
    let loaded = load::run(service.address, &requests, 64, true)?;
    let used = cpu::of(service.child.id())?.saturating_sub(before);
    let row = Row::new(count, loaded.took, used).with_latencies(&loaded.latencies);
    report.add(
        "all honest from one address, a connection each",
        row.wanted(1000.0, f64::INFINITY),
    );
    Ok(())
}

/// Senders of genuine webhooks.
struct Honest {
    requests: Arc<[Vec<u8>]>,
    next: Arc<AtomicU64>,
    /// The certificate of a port with TLS.
    tls: Option<Tls>,
}

struct Found {
    good: usize,
    latencies: Histogram<u64>,
}

impl Honest {
    async fn send(&mut self, to: SocketAddr, time: Duration) -> Found {
        let mut tasks = JoinSet::new();
        let mut tick = interval(Duration::from_secs(1) / HONEST as u32);
        let began = Instant::now();
        while began.elapsed() < time {
            tick.tick().await;
            let number = self.next.fetch_add(1, Ordering::Relaxed) as usize % self.requests.len();
            let requests = Arc::clone(&self.requests);
            let tls = self.tls.clone();
            tasks.spawn(async move {
                let began = Instant::now();
                let answered = timeout(PATIENCE, async {
                    let stream = connect(HONEST_ADDRESS, to).await?;
                    match tls {
                        Some(tls) => ask(tls.connect(stream).await?, &requests[number]).await,
                        None => ask(stream, &requests[number]).await,
                    }
                });
                let is_good = matches!(answered.await, Ok(Ok(())));
                (is_good, began.elapsed())
            });
        }
        let mut found = Found {
            good: 0,
            latencies: Histogram::new(3).unwrap_or_else(|_| unreachable!()),
        };
        while let Some(Ok((is_good, took))) = tasks.join_next().await {
            found.good += usize::from(is_good);
            let _ = found
                .latencies
                .record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        found
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    load::answer(&mut stream).await
}

impl Attack {
    /// Attacks until the end. Returns the number of connections that were made.
    fn run(self, end: &CancellationToken) -> anyhow::Result<u64> {
        let made = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for number in 0..self.kind.connections() {
                let own = u8::try_from(number % usize::from(self.addresses)).unwrap_or(0);
                let from = Ipv4Addr::new(127, 0, 1, own + 1);
                let kind = self.kind;
                let to = self.to;
                let made = Arc::clone(&made);
                let end = end.clone();
                tasks.spawn(
                    async move { end.run_until_cancelled(kind.repeat(from, to, &made)).await },
                );
            }
            tasks.join_all().await;
        });
        Ok(made.load(Ordering::Relaxed))
    }
}

impl Kind {
    fn is_of_tls(self) -> bool {
        matches!(self, Self::HalfTls { .. })
    }

    fn connections(self) -> usize {
        match self {
            Self::AlmostWhole { connections }
            | Self::Kept { connections }
            | Self::SlowHeader { connections }
            | Self::HalfTls { connections }
            | Self::SlowBody { connections }
            | Self::Forged { connections, .. } => connections,
        }
    }

    /// Number of connections within `time` without which nothing was attacked.
    fn least(self, time: Duration) -> u64 {
        /// Small forgeries a second.
        const SMALL: u64 = 10_000;
        match self {
            Self::Forged { length, .. } if length < 1000 => SMALL * time.as_secs(),
            Self::Forged { .. } => time.as_secs(),
            held => held.connections() as u64,
        }
    }

    /// Makes one connection after another, the next once the service has closed one.
    async fn repeat(self, from: Ipv4Addr, to: SocketAddr, made: &AtomicU64) {
        loop {
            if let Ok(mut stream) = connect(from, to).await {
                made.fetch_add(1, Ordering::Relaxed);
                let _ = self.on(&mut stream).await;
            } else {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn on(self, stream: &mut TcpStream) -> anyhow::Result<()> {
        const PIECE: &[u8] = &[b'x'; 1 << 16];
        match self {
            Self::AlmostWhole { .. } => {
                let length = 2_000_000;
                stream.write_all(head(length).as_bytes()).await?;
                send(stream, length - 1).await?;
            }
            Self::Kept { .. } => {
                stream
                    .write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
                    .await?
            }
            Self::SlowHeader { .. } => {
                stream
                    .write_all(format!("POST {PATH} HTTP/1.1\r\nhost: t\r\nx: ").as_bytes())
                    .await?;
                drip(stream).await?;
            }
            Self::HalfTls { .. } => stream.write_all(HALF_HELLO).await?,
            Self::SlowBody { .. } => {
                stream.write_all(head(1_000_000).as_bytes()).await?;
                drip(stream).await?;
            }
            Self::Forged { length, .. } => {
                let unique = fastrand::u64(..);
                let begin = format!(r#"{{"accountId":"ACME","id":"{unique}","p":""#);
                let filling = length - begin.len() - 2;
                let first = filling.min(PIECE.len());
                // A small one is a single write.
                let mut request = (head(length) + &begin).into_bytes();
                request.extend_from_slice(&PIECE[..first]);
                if first == filling {
                    request.extend_from_slice(b"\"}");
                    stream.write_all(&request).await?;
                } else {
                    stream.write_all(&request).await?;
                    send(stream, filling - first).await?;
                    stream.write_all(b"\"}").await?;
                }
            }
        }
        // Reads until the service closes the connection.
        let mut answer = [0; 4096];
        while stream.read(&mut answer).await? > 0 {}
        return Ok(());

        async fn send(stream: &mut TcpStream, mut length: usize) -> std::io::Result<()> {
            while length > 0 {
                let now = length.min(PIECE.len());
                stream.write_all(&PIECE[..now]).await?;
                length -= now;
            }
            Ok(())
        }

        async fn drip(stream: &mut TcpStream) -> std::io::Result<()> {
            loop {
                stream.write_all(b"x").await?;
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn head(length: usize) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: {FORGED}\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.set_nodelay(true)?;
    Ok(timeout(PATIENCE, socket.connect(to))
        .await
        .context("no connection in time")??)
}

/// The service with its default settings and 32 keys, as an attacker would want it.
struct Service {
    child: Child,
    address: SocketAddr,
    grpc: SocketAddr,
}

impl Service {
    fn start(folder: &Path, signed: &SignedInput, tls: Option<&Tls>) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], nats_server::free_port()?));
        let grpc = SocketAddr::from(([127, 0, 0, 1], nats_server::free_port()?));
        let config = folder.join("application.yml");
        let key = std::fs::read_to_string(&signed.public)?;
        std::fs::write(
            &config,
            settings(address, tls, &administrator::settings(folder, grpc)?, &key)?,
        )?;
        let program = std::env::current_exe()?.with_file_name("pipeline");
        let mut command = Command::new(program);
        let log = std::fs::File::create(folder.join("log"))?;
        command
            .args(["serve", "--config"])
            .arg(config)
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = command.spawn().context("starting the service")?;
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if began.elapsed() > Duration::from_secs(60) || child.try_wait()?.is_some() {
                let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("the service did not start: {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            child,
            address,
            grpc,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(
    address: SocketAddr,
    tls: Option<&Tls>,
    operator: &str,
    key: &str,
) -> anyhow::Result<String> {
    let tls = tls.map_or(String::new(), Tls::settings);
    let mut keys = format!("    sydney_sandbox: \"{}\"\n", key.trim());
    for number in 1..32 {
        let other = simulator::KeyPair::generate(1024)?.public_base64()?;
        keys.push_str(&format!("    other{number}_sandbox: \"{other}\"\n"));
    }
    Ok(format!(
        r#"
fluent-connect:
  accounts: [{{ name: ACME, region: sydney, environment: sandbox }}]
  webhook: {{ listen: "{address}"{tls} }}
  queue: {{ path: queue.db }}
{operator}  routes: [{{ name: all, match: {{}}, dispatcher: misbehaving, misbehaving: {{ millis: 0 }} }}]
fluentcommerce:
  fluent-webhook-keys:
{keys}"#
    ))
}
