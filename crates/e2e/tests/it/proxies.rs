//! The proxies of which configurations are shipped, before a real gateway.
//!
//! HAProxy and nginx are run where they are installed, as by `apt-get install haproxy nginx`.
//! Elsewhere these tests say so and pass.

mod attacks;
mod readme;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::deployment::free_ports;
use e2e::{debian, say_not_run};
use simulator::SignedBody;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pipeline::{PATIENCE, Pipeline, may_open, signed, until};

const PATH: &str = "/api/v1/fluent-connect/webhook";

/// New connections of honest senders, one each millisecond.
const HONEST: usize = 1000;

/// Connections that HAProxy has places for in these tests, in place of the 8192 of the shipped
/// file.
const PLACES: usize = 2048;

/// More than HAProxy has places for, which then lets others wait. nginx refuses beyond its places, so
/// it has those of the shipped file.
const SLOW: usize = 2500;

/// Descriptors that these tests and a proxy need.
const DESCRIPTORS: u64 = 2 * SLOW as u64 + 2000;

/// Where somebody else sends from.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Haproxy,
    Nginx,
}

/// A proxy with the shipped file, and the gateway behind it.
struct Proxied {
    address: SocketAddr,
    gateway: Pipeline,
    folder: TempDir,
    child: Child,
}

impl Kind {
    /// Its program; what it is called, and Debian's package of it.
    fn program(self) -> anyhow::Result<Command> {
        let name = if matches!(self, Self::Haproxy) {
            "haproxy"
        } else {
            "nginx"
        };
        debian::command(name, name)
    }

    fn client_address(self) -> &'static str {
        match self {
            Self::Haproxy => "proxy-protocol",
            Self::Nginx => "x-forwarded-for",
        }
    }

    /// The shipped file, with the addresses of this test.
    fn config(self, listen: SocketAddr, gateway: &Pipeline, folder: &Path) -> String {
        let name = if matches!(self, Self::Haproxy) {
            "haproxy.cfg"
        } else {
            "nginx.conf"
        };
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../config/cluster")
            .join(name);
        let shipped = fs::read_to_string(shipped).unwrap();
        let changes = match self {
            Self::Haproxy => vec![
                ("bind :8080", format!("bind {listen}")),
                ("maxconn 8192", format!("maxconn {PLACES}")),
                (
                    "check port 8081",
                    format!("check port {}", gateway.health.port()),
                ),
                ("gateway-1:8080", gateway.webhook.to_string()),
                ("gateway-2:8080", gateway.webhook.to_string()),
            ],
            Self::Nginx => vec![
                ("listen 8080", format!("listen {listen}")),
                (
                    "http {",
                    format!("http {{\naccess_log off;\n{}", temporary_folders(folder)),
                ),
                ("gateway-1:8080", gateway.webhook.to_string()),
                ("gateway-2:8080", gateway.webhook.to_string()),
            ],
        };
        changes.into_iter().fold(shipped, |text, (before, after)| {
            assert!(text.contains(before), "{name} has no {before:?}");
            text.replace(before, &after)
        })
    }

    fn command(self, mut command: Command, config: &Path) -> Command {
        match self {
            Self::Haproxy => command.arg("-f").arg(config),
            Self::Nginx => {
                let pid = config.with_file_name("pid");
                let globals = format!("daemon off; pid {};", pid.display());
                command
                    .arg("-c")
                    .arg(config)
                    .args(["-e", "stderr", "-g", &globals])
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// Both of them, or nothing where this proxy is not installed.
    fn start(self) -> Option<Proxied> {
        let (Ok(program), Ok(checking)) = (self.program(), self.program()) else {
            say_not_run(&format!(
                "{self:?} is not installed here, and can't be fetched"
            ));
            return None;
        };
        let mut gateway = Pipeline::prepare("    - { name: all, match: {}, dispatcher: log }\n");
        let trusts = format!(
            "trusted-proxies: [127.0.0.1], client-address: {}",
            self.client_address()
        );
        let settings = fs::read_to_string(gateway.config()).unwrap();
        // As large as nginx lets through.
        let settings =
            settings.replace("body-limit: 64KiB", &format!("body-limit: 2MiB, {trusts}"));
        fs::write(gateway.config(), settings).unwrap();
        gateway.run();
        let folder = tempfile::tempdir().unwrap();
        let [address] = free_ports();
        let config = folder.path().join("config");
        fs::write(&config, self.config(address, &gateway, folder.path())).unwrap();
        let mut check = self.command(checking, &config);
        let check = check
            .arg(if matches!(self, Self::Haproxy) {
                "-c"
            } else {
                "-t"
            })
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(
            check.status.success() && !said.to_lowercase().contains("warn"),
            "{said}"
        );
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = self.command(program, &config);
        let child = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let proxied = Proxied {
            address,
            gateway,
            folder,
            child,
        };
        proxied.wait_until_ready();
        Some(proxied)
    }
}

impl Proxied {
    fn wait_until_ready(&self) {
        let began = Instant::now();
        let good = signed("E", "FIRST");
        while !self
            .send(Ipv4Addr::LOCALHOST, &request(&good.sha512, &good.body))
            .contains(" 200 ")
        {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(began.elapsed() < PATIENCE, "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn connect(&self, from: Ipv4Addr) -> std::io::Result<TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&self.address.into())?;
        Ok(socket.into())
    }

    fn send(&self, from: Ipv4Addr, request: &[u8]) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = self.connect(from) {
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let _ = stream.write_all(request);
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        // Of nginx, which ends its workers only if it is asked to.
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn request(signature: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nfluent-signature: {signature}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Sends one by a new connection: the status, and how long it took.
async fn send(address: SocketAddr, signed: SignedBody) -> (Option<u16>, Duration) {
    let began = Instant::now();
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream
            .write_all(&request(&signed.sha512, &signed.body))
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    };
    let status = tokio::time::timeout(Duration::from_secs(14), answer)
        .await
        .ok()
        .flatten();
    (status, began.elapsed())
}

/// Sends so many, one after each pause; what was answered, in order of the time it took.
async fn send_paced(
    address: SocketAddr,
    count: usize,
    pause: Duration,
) -> Vec<(Option<u16>, Duration)> {
    let all: Vec<_> = (0..count)
        .map(|number| signed("E", &format!("R_{number}")))
        .collect();
    let mut pace = tokio::time::interval(pause);
    let mut sending = tokio::task::JoinSet::new();
    for signed in all {
        pace.tick().await;
        sending.spawn(send(address, signed));
    }
    let mut answers = sending.join_all().await;
    answers.sort_by_key(|(_, took)| *took);
    answers
}

async fn takes_honest_traffic(kind: Kind) {
    let Some(proxied) = kind.start() else { return };
    let answers = send_paced(proxied.address, HONEST, Duration::from_millis(1)).await;
    let good = answers
        .iter()
        .filter(|(status, _)| *status == Some(200))
        .count();
    assert_eq!(good, HONEST, "{:?}", answers.last());
    // What is refused names who sent it, not the proxy.
    let forged = request(&"A".repeat(172), b"{\"accountId\":\"ACME\"}");
    let answer = proxied.send(STRANGER, &forged);
    assert!(answer.contains(" 401 "), "{answer}");
    let names = || proxied.gateway.log().contains(r#""client":"127.0.0.66""#);
    until("the log names who sent what was refused", names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_as_shipped_refuses_no_honest_traffic_and_says_who_sends() {
    takes_honest_traffic(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_shipped_refuses_no_honest_traffic_and_says_who_sends() {
    takes_honest_traffic(Kind::Nginx).await;
}

/// Keeps so many connections open on which a request is begun and never ends.
fn be_slow(proxied: &Proxied, begun: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = proxied.connect(STRANGER).ok()?;
        let _ = stream.write_all(begun);
        Some(stream)
    };
    (0..SLOW).filter_map(open).collect()
}

#[expect(clippy::print_stdout, reason = "figures of a test")]
async fn takes_good_ones_beside_slow_ones(kind: Kind) {
    if !may_open(DESCRIPTORS) {
        return;
    }
    let Some(proxied) = kind.start() else { return };
    let headers = format!("POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: A");
    let body = request(&"A".repeat(172), b"");
    let body = String::from_utf8(body)
        .unwrap()
        .replace("length: 0", "length: 9000");
    for begun in [headers, body] {
        let slow = be_slow(&proxied, begun.as_bytes());
        let answers = send_paced(proxied.address, 150, Duration::from_millis(33)).await;
        let good = answers
            .iter()
            .filter(|(status, _)| *status == Some(200))
            .count();
        let p99 = answers[answers.len() * 99 / 100].1;
        println!(
            "{kind:?}, {} slow: {good} of {} good, p99 {p99:?}",
            slow.len(),
            answers.len()
        );
        assert!(
            good * 10 >= answers.len() * 8,
            "{good} of {}",
            answers.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_as_shipped_takes_good_webhooks_beside_slow_connections() {
    takes_good_ones_beside_slow_ones(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_shipped_takes_good_webhooks_beside_slow_connections() {
    takes_good_ones_beside_slow_ones(Kind::Nginx).await;
}

/// nginx's folders for what it sets down for a moment: one that is only unpacked has none.
fn temporary_folders(folder: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .collect()
}
