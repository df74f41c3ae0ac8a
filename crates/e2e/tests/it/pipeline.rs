//! One service as a process, with keys, settings and a queue file of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use simulator::{Events, KeyPair, Retry, Sender, Shape, SignedBody};
use tempfile::TempDir;

/// Longest wait for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) use e2e::SANDBOX;
pub(crate) static PRODUCTION: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate(1024).unwrap());

/// A folder with settings, and the service that runs with them.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) folder: TempDir,
    pub(crate) webhook: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) data: PathBuf,
    environment: Vec<(String, String)>,
    /// More of `fluent-connect`, as YAML.
    pub(crate) more: String,
    /// More of the first account, as YAML.
    pub(crate) api: String,
    /// A socket for webhooks that outlives the service, as systemd holds one.
    pub(crate) socket: Option<TcpListener>,
    /// The control group that the service is to be in.
    pub(crate) group: Option<PathBuf>,
    /// The most descriptors that the service may have.
    pub(crate) descriptors: Option<u64>,
    child: Option<Child>,
}

impl Pipeline {
    /// Settings with these routes (YAML, one list), not started yet.
    pub(crate) fn prepare(routes: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let [webhook, health] = free_ports();
        let pipeline = Self {
            folder,
            webhook,
            health,
            data,
            environment: Vec::new(),
            more: String::new(),
            api: String::new(),
            socket: None,
            group: None,
            descriptors: None,
            child: None,
        };
        pipeline.write_settings(routes);
        pipeline
    }

    /// The same with gRPC at a port of its own, for whoever is on this machine.
    pub(crate) fn prepare_with_grpc(routes: &str) -> (Self, SocketAddr) {
        let mut pipeline = Self::prepare(routes);
        let [grpc] = free_ports();
        pipeline.more = format!("  operator: {{ grpc: \"{grpc}\" }}\n");
        pipeline.write_settings(routes);
        (pipeline, grpc)
    }

    /// The same, started and ready.
    pub(crate) fn start(routes: &str) -> Self {
        let mut pipeline = Self::prepare(routes);
        pipeline.run();
        pipeline
    }

    pub(crate) fn write_settings(&self, routes: &str) {
        let webhook = self.webhook;
        let health = self.health;
        let data = self.data.display();
        let more = &self.more;
        let api = &self.api;
        let sandbox = SANDBOX.public_base64().unwrap();
        let production = PRODUCTION.public_base64().unwrap();
        let settings = format!(
            r#"
fluent-connect:
  accounts:
    - {{ name: ACME, region: sydney, environment: sandbox, retailers: [34]{api} }}
    - {{ name: ACME, region: sydney, environment: production }}
  webhook: {{ listen: "{webhook}", signatures: [sha512, md5], body-limit: 64KiB }}
  queue: {{ path: "{data}/queue.db" }}
  health: {health}
{more}  routes:
{routes}
fluentcommerce:
  fluent-webhook-keys:
    "[sydney_sandbox]": "{sandbox}"
    sydney_production: "{production}"
"#
        );
        fs::write(self.config(), settings).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("application.yml")
    }

    pub(crate) fn set_environment(&mut self, name: &str, value: &Path) {
        self.environment
            .push((name.to_owned(), value.display().to_string()));
    }

    /// Starts the service and waits until it is ready.
    pub(crate) fn run(&mut self) {
        self.spawn();
        let began = Instant::now();
        while !self.is_ready() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?}: {}", self.log());
            assert!(began.elapsed() < PATIENCE, "not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the service; it may die at once.
    pub(crate) fn spawn(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap();
        let mut command = self.program();
        command.args([
            "serve",
            "--json",
            "--log",
            "debug,reqwest=info,hyper_util=info",
            "--config",
        ]);
        command
            .arg(self.config())
            .envs(self.environment.iter().cloned());
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// The service's program: within its limits, or passed the socket as descriptor 3, if there is
    /// one.
    fn program(&self) -> Command {
        const ENTER: &str = "echo $$ > \"$GROUP/cgroup.procs\" && exec \"$0\" \"$@\"";
        const PASS: &str = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=webhook; exec \"$0\" \"$@\" 3<&0 0</dev/null";
        const LIMIT: &str = "ulimit -n \"$DESCRIPTORS\" && exec \"$0\" \"$@\"";
        if let Some(descriptors) = self.descriptors {
            let mut command = Command::new("sh");
            command.args(["-c", LIMIT, env!("CARGO_BIN_EXE_pipeline")]);
            command.env("DESCRIPTORS", descriptors.to_string());
            command.stdin(Stdio::null());
            return command;
        }
        if let Some(group) = &self.group {
            let mut command = Command::new("sh");
            command.args(["-c", ENTER, env!("CARGO_BIN_EXE_pipeline")]);
            command.env("GROUP", group).stdin(Stdio::null());
            return command;
        }
        let Some(socket) = &self.socket else {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
            command.stdin(Stdio::null());
            return command;
        };
        let mut command = Command::new("sh");
        command.args(["-c", PASS, env!("CARGO_BIN_EXE_pipeline")]);
        command.stdin(OwnedFd::from(socket.try_clone().unwrap()));
        command
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.readiness().starts_with("HTTP/1.1 200")
    }

    /// What its health address answers when it is asked whether it is ready.
    pub(crate) fn readiness(&self) -> String {
        http(
            self.health,
            "GET /readyz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
        )
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits for the service to end by itself; its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "still running: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.path().join("serve.log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs a command of the product with these settings.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        command(&self.config(), args)
    }

    /// The same, with `--json`: what it printed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.command(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/fluent-connect/webhook", self.webhook)
    }

    pub(crate) fn sender(&self, retry: Retry) -> Sender {
        Sender::new(self.url(), retry).unwrap()
    }

    /// Sends one event that must be accepted; its id.
    pub(crate) async fn accept(&self, signed: &SignedBody) -> String {
        // The first connection: a gateway that drops it would be helped by a second.
        let answer = self.sender(Retry::Never).send(signed).await.answer.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["eventId"].as_str().unwrap().to_owned()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn command(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command
        .args(args)
        .arg("--config")
        .arg(config)
        // So wide that no cell of a table goes on in another line.
        .env("COLUMNS", "500")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A signed event about this entity.
pub(crate) fn signed(name: &str, reference: &str) -> SignedBody {
    let event = Events::new("ACME", 34, fastrand::u64(..)).of(name, Shape::Full);
    let body = String::from_utf8(event.body)
        .unwrap()
        .replace(&event.entity_ref, reference);
    SANDBOX.sign(body).unwrap()
}

/// Sends raw bytes and reads until the other side closes.
pub(crate) fn http(address: SocketAddr, request: &str) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return String::new();
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).is_ok() {
        let _ = stream.read_to_end(&mut answer);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Lets this process, and those that it starts, open so many descriptors. Says it where
/// that is not allowed.
pub(crate) fn may_open(descriptors: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < descriptors) {
        e2e::say_not_run(&format!("{descriptors} descriptors are not allowed here"));
        return false;
    }
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .unwrap();
    true
}

pub(crate) fn free_ports<const N: usize>() -> [SocketAddr; N] {
    [(); N].map(|()| SocketAddr::from(([127, 0, 0, 1], nats_server::free_port().unwrap())))
}

/// Waits until `done`, which must come true.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
