//! A process in a control group of the size that docker-compose.yml gives a gateway, with
//! every place at every door taken by strangers.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use simulator::Retry;
use socket2::{Domain, Socket, Type};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::pipeline::{Pipeline, free_ports, may_open, signed};

/// `mem_limit` of a gateway.
const MEMORY: u64 = 256 << 20;

/// Each more than its door has places for.
const WEBHOOKS: usize = 4200;
const CALLERS: usize = 560;
const PROBES: usize = 400;
const BODIES: usize = 250;

const PATH: &str = "/api/v1/fluent-connect/webhook";

/// A control group that bounds memory, gone at the end.
struct Group(PathBuf);

impl Group {
    /// `None` where this machine lets nobody make one.
    fn make() -> Option<Self> {
        let name = format!("fluent-webhooks-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = Path::new("/sys/fs/cgroup");
        for (root, file) in [(v1, "memory.limit_in_bytes"), (v2, "memory.max")] {
            let group = root.join(&name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let group = Self(group);
            if fs::write(group.0.join(file), MEMORY.to_string()).is_ok() {
                return Some(group);
            }
        }
        e2e::say_not_run("no control group can be made here");
        None
    }

    /// How often the kernel killed for memory in it.
    fn kills(&self) -> String {
        let files = ["memory.oom_control", "memory.events"].map(|file| self.0.join(file));
        let text = files
            .iter()
            .find_map(|file| fs::read_to_string(file).ok())
            .unwrap();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.unwrap_or_else(|| panic!("{text}")).to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Connections from fifty addresses, each with this much of a request that never ends.
fn begin(to: SocketAddr, count: usize, sent: &[u8]) -> Vec<TcpStream> {
    let open = |number: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        let from = Ipv4Addr::new(127, 0, 3, 1 + u8::try_from(number % 50).ok()?);
        socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
        socket.connect(&to.into()).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(true).ok()?;
        // What it does not take at once is more than it has room for.
        let _ = stream.write(sent);
        Some(stream)
    };
    (0..count).filter_map(open).collect()
}

/// Takes every place at every door, and goes on until it is dropped.
async fn besiege(pipeline: &Pipeline, grpc: SocketAddr) -> Vec<TcpStream> {
    let webhook = pipeline.webhook;
    let health = pipeline.health;
    let taken = tokio::task::spawn_blocking(move || {
        let headers = format!(
            "POST {PATH} HTTP/1.1\r\nhost: t\r\nx: {}",
            "x".repeat(15_000)
        );
        let signature = "A".repeat(172);
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: {signature}\r\n");
        let body = format!(
            "{head}content-length: 2000000\r\n\r\n{}",
            "x".repeat(1_999_999)
        );
        let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let taken = [
            begin(webhook, WEBHOOKS, headers.as_bytes()),
            begin(webhook, BODIES, body.as_bytes()),
            begin(grpc, CALLERS, http2),
            begin(health, PROBES, b"GET /metrics HTTP/1.1\r\nx: "),
        ];
        taken.into_iter().flatten().collect()
    });
    taken.await.unwrap()
}

/// Calls without a token, hundreds on a connection: endless ones, had they been let in.
async fn call_endlessly(grpc: SocketAddr) {
    let Ok(channel) = Endpoint::from_shared(format!("http://{grpc}"))
        .unwrap()
        .connect()
        .await
    else {
        return;
    };
    let calls = (0..300).map(|_| {
        let mut client = HealthClient::new(channel.clone());
        async move { client.watch(HealthCheckRequest::default()).await.is_ok() }
    });
    let admitted = futures::future::join_all(calls)
        .await
        .into_iter()
        .filter(|is_ok| *is_ok)
        .count();
    assert_eq!(admitted, 0, "without a token");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_at_every_door_fits_in_the_memory_that_a_gateway_has() {
    if !may_open(2 * (WEBHOOKS + CALLERS + PROBES + BODIES) as u64 + 2000) {
        return;
    }
    let Some(group) = Group::make() else { return };
    let route = "    - { name: all, match: {}, dispatcher: log }\n";
    let mut pipeline = Pipeline::prepare(route);
    let ([grpc], token) = (free_ports(), pipeline.folder.path().join("token"));
    fs::write(&token, "token-of-an-administrator").unwrap();
    let admin = format!("{{ name: admin, file: {token:?}, roles: [admin] }}");
    pipeline.more = format!("  operator: {{ grpc: \"{grpc}\", tokens: [{admin}] }}\n");
    pipeline.write_settings(route);
    let settings = fs::read_to_string(pipeline.config())
        .unwrap()
        .replace("64KiB", "2MiB");
    fs::write(pipeline.config(), settings).unwrap();
    pipeline.group = Some(group.0.clone());
    pipeline.run();

    let mut good = 0;
    for round in 0..4 {
        let taken = besiege(&pipeline, grpc).await;
        assert!(
            taken.len() > WEBHOOKS / 2,
            "only {} connections were made",
            taken.len()
        );
        call_endlessly(grpc).await;
        for number in 0..25 {
            let event = signed("E", &format!("R_{round}_{number}"));
            let answer = pipeline.sender(Retry::Never).send(&event).await.answer;
            good += usize::from(answer.is_some_and(|answer| answer.status == 200));
        }
        let config = pipeline.config();
        let server = format!("http://{grpc}");
        let file = token.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let file = file.to_str().unwrap();
            crate::pipeline::command(
                &config,
                &["routes", "list", "--server", &server, "--token", file],
            )
        });
        let asked = asked.await.unwrap();
        assert!(
            asked.status.success(),
            "an administrator beside them: {asked:?}"
        );
    }
    assert!(pipeline.is_running(), "ended: {}", pipeline.log());
    assert_eq!(group.kills(), "0", "killed for memory");
    assert!(good >= 80, "{good} of 100 good webhooks were taken");
    pipeline.kill();
}
