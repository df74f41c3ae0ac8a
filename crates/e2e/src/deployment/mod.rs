//! A cluster on this machine: NATS servers, gateways and dispatchers, each in a process of its
//! own, with the shipped configuration for NATS.

mod check;
mod network_namespace;
mod service;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nats_server::Cluster;
use serde_json::Value;
use simulator::api::{Fluent, LOGIN};
use tempfile::TempDir;
use verifier::SealPair;

pub use crate::deployment::check::{Outcome, settle};
pub use crate::deployment::network_namespace::{NetworkNamespace, SaidFrom};
pub use crate::deployment::service::Service;

use crate::SANDBOX;

/// The parts to start, with their settings.
#[derive(Clone, Debug)]
pub struct Plan {
    /// NATS servers.
    pub servers: usize,
    /// fsync after every write, as shipped. Without it, the server's default.
    pub sync_always: bool,
    /// Gateways.
    pub gateways: usize,
    /// True if the gateways have spools.
    pub has_spools: bool,
    /// Dispatchers.
    pub dispatchers: usize,
    /// Most bytes of events.
    pub bytes: String,
    /// The routes, as YAML.
    pub routes: String,
    /// More YAML in `fluent-connect` of gateways and dispatchers: their telemetry.
    pub telemetry: String,
    /// More YAML of the account: its API. Dispatchers have it too, then.
    pub api: String,
    /// The place of the first server and the first gateway, if it is not with the rest.
    pub aside: Option<Arc<NetworkNamespace>>,
}

impl Plan {
    /// Three servers, two gateways with spools, two dispatchers.
    pub fn new(routes: impl Into<String>) -> Self {
        Self {
            servers: 3,
            sync_always: false,
            gateways: 2,
            has_spools: true,
            dispatchers: 2,
            bytes: "1GiB".to_owned(),
            routes: routes.into(),
            telemetry: String::new(),
            api: String::new(),
            aside: None,
        }
    }
}

/// A running cluster. Everything is killed on drop.
#[derive(Debug)]
pub struct Deployment {
    /// Gateways, in order.
    pub gateways: Vec<Service>,
    /// Dispatchers, in order.
    pub dispatchers: Vec<Service>,
    /// The servers.
    pub servers: Cluster,
    /// Settings, spools and logs.
    pub folder: TempDir,
    plan: Plan,
}

/// The users of `config/nats/accounts.conf`.
const USERS: [&str; 4] = ["gateway", "dispatcher", "operator", "admin"];

impl Deployment {
    /// Starts everything, and waits until all of it is ready.
    pub fn start(plan: Plan) -> Self {
        let mut deployment = Self::prepare(plan);
        deployment.make_streams();
        for service in deployment
            .gateways
            .iter_mut()
            .chain(&mut deployment.dispatchers)
        {
            service.start();
        }
        for service in deployment
            .gateways
            .iter_mut()
            .chain(&mut deployment.dispatchers)
        {
            service.wait_until_ready();
        }
        deployment
    }

    /// Starts the servers, and prepares the rest.
    pub fn prepare(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = nats_server::Options {
            sync_always: plan.sync_always,
            more: "include accounts.conf".to_owned(),
            files: accounts(),
            folder: Some(folder.path().join("nats")),
            places: plan
                .aside
                .as_ref()
                .map(|aside| aside.places(plan.servers))
                .unwrap_or_default(),
            ..nats_server::Options::default()
        };
        let servers = Cluster::start(plan.servers, &options).unwrap();
        let mut deployment = Self {
            gateways: Vec::new(),
            dispatchers: Vec::new(),
            servers,
            folder,
            plan,
        };
        let seal = SealPair::generate().unwrap();
        fs::write(deployment.folder.path().join("seal.key"), seal.private).unwrap();
        fs::write(deployment.folder.path().join("seal.pub"), seal.public).unwrap();
        for user in USERS {
            fs::write(deployment.password(user), user).unwrap();
            deployment.write(user, user, "");
        }
        deployment.write_operator("", &SANDBOX.public_base64().unwrap());
        for number in 0..deployment.plan.gateways {
            deployment.gateways.push(deployment.gateway(number));
        }
        for number in 0..deployment.plan.dispatchers {
            deployment.dispatchers.push(deployment.dispatcher(number));
        }
        deployment
    }

    fn gateway(&self, number: usize) -> Service {
        let [mut webhook, mut health] = free_ports();
        let name = format!("gateway-{number}");
        let aside = self.plan.aside.as_ref().filter(|_| number == 0);
        if let Some(aside) = aside {
            webhook.set_ip(aside.web());
            health.set_ip(aside.web());
        }
        let before = match self.plan.has_spools {
            true => format!("  spool: {{ path: {name}/spool.db }}\n"),
            false => "  acknowledge: queue\n".to_owned(),
        };
        let key = SANDBOX.public_base64().unwrap();
        let rest = format!(
            "{}  \
             webhook: {{ listen: \"{webhook}\" }}\n{before}{}  health: {health}\n\
             fluentcommerce: {{ fluent-webhook-keys: {{ sydney_sandbox: \"{key}\" }} }}\n",
            self.accounts(),
            self.plan.telemetry
        );
        let config = self.write(&name, "gateway", &rest);
        let mut gateway = Service::new(&name, "stage-gateway", config, health, Some(webhook));
        gateway.set_within(aside.map(|aside| aside.within()).unwrap_or_default());
        gateway
    }

    fn dispatcher(&self, number: usize) -> Service {
        let [health] = free_ports();
        let name = format!("dispatcher-{number}");
        let accounts = if self.plan.api.is_empty() {
            String::new()
        } else {
            self.accounts()
        };
        let key = SANDBOX.public_base64().unwrap();
        let rest = format!(
            "{accounts}{}  health: {health}\n  seal: {{ public-keys: [{{ file: seal.pub }}] }}\n  routes:\n{}\
             fluentcommerce: {{ fluent-webhook-keys: {{ sydney_sandbox: \"{key}\" }} }}\n",
            self.plan.telemetry, self.plan.routes
        );
        let config = self.write(&name, "dispatcher", &rest);
        Service::new(&name, "stage-dispatcher", config, health, None)
    }

    fn accounts(&self) -> String {
        let api = &self.plan.api;
        format!("  accounts: [{{ name: ACME, region: sydney, environment: sandbox{api} }}]\n")
    }

    /// Writes settings of this name, for the user `user` of the servers.
    fn write(&self, name: &str, user: &str, rest: &str) -> PathBuf {
        let servers = format!("{:?}", self.servers.urls());
        let password = self.password(user);
        let bytes = &self.plan.bytes;
        let replicas = if self.plan.servers >= 3 { 3 } else { 1 };
        let index = if user == "operator" {
            "index: operator/history.db\n    "
        } else {
            ""
        };
        let text = format!(
            "fluent-connect:\n  queue:\n    kind: jetstream\n    servers: {servers}\n    user: {user}\n    \
             password: {{ file: {password:?} }}\n    inbox-prefix: _INBOX_{user}\n    replicas: {replicas}\n    \
             {index}retention: {{ age: 7d, bytes: {bytes} }}\n{rest}"
        );
        let path = self.folder.path().join(format!("{name}.yml"));
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes the operator's settings: the routes, `more` of `fluent-connect`, and this key.
    pub fn write_operator(&self, more: &str, key: &str) -> PathBuf {
        let rest = format!(
            "  accounts: [{{ name: ACME, region: sydney, environment: sandbox }}]\n{more}  routes:\n{}\
             fluentcommerce: {{ fluent-webhook-keys: {{ sydney_sandbox: \"{key}\" }} }}\n",
            self.plan.routes
        );
        self.write("operator", "operator", &rest)
    }

    /// A reconciler for the events of this name in this Fluent's log, not started yet. Writes the
    /// operator's settings for it.
    pub fn reconciler(&self, fluent: &Fluent, event: &str) -> Service {
        let [health] = free_ports();
        let more = format!(
            "  reconcile: {{ event-names: [{event}], min-age: 45s, interval: 1s, lookback: 1h }}\n  \
             seal: {{ private-key: {{ file: seal.key }} }}\n  health: {health}\n{}",
            self.plan.telemetry
        );
        let path = self.write_operator(&more, &SANDBOX.public_base64().unwrap());
        fs::write(self.folder.path().join("fluent"), LOGIN).unwrap();
        let api = format!(
            "environment: sandbox, api: {{ url: \"{}\", username: {LOGIN}, password: {{ file: fluent }}, client-id: {LOGIN}, client-secret: {{ file: fluent }} }} }}",
            fluent.url()
        );
        let settings = fs::read_to_string(&path)
            .unwrap()
            .replace("environment: sandbox }", &api);
        fs::write(&path, settings).unwrap();
        Service::new("reconciler", "stage-reconciler", path, health, None)
    }

    /// The operator's process with a console, not started yet, and the console's address.
    pub fn console(&self) -> (Service, SocketAddr) {
        let [health, console] = free_ports();
        let more = format!(
            "  connector-name: cluster\n  health: {health}\n  operator: {{ console: {{ listen: \"{console}\" }} }}\n"
        );
        let path = self.write_operator(&more, &SANDBOX.public_base64().unwrap());
        let operator = Service::new("operator", "stage-operator", path, health, None);
        (operator, console)
    }

    fn password(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}-password"))
    }

    /// Runs `cluster init`, which must succeed.
    pub fn make_streams(&self) {
        let made = self.command("admin", &["cluster", "init"]);
        assert!(made.status.success(), "{made:?}");
    }

    /// Runs a command of the product as `user`.
    pub fn command(&self, user: &str, args: &[&str]) -> Output {
        let config = self.folder.path().join(format!("{user}.yml"));
        let mut command = Command::new(program("pipeline"));
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

    /// Runs a command as the operator with `--json`, and returns its output.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.command("operator", &[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// The URLs for webhooks, gateway by gateway.
    pub fn urls(&self) -> Vec<String> {
        self.gateways.iter().map(Service::url).collect()
    }

    /// The index of the server that leads the stream of events.
    pub fn leader(&self) -> Option<usize> {
        self.servers.leader("FLUENT_EVENTS")
    }

    /// What would explain deliveries that come again: what services said was wrong, and where each
    /// server that answers sees the consumers of the stream of events.
    pub fn explanation(&self) -> String {
        let mut said = String::new();
        for service in self.gateways.iter().chain(&self.dispatchers) {
            let log = service.log();
            let wrong = log
                .lines()
                .filter(|line| line.contains("\"ERROR\"") || line.contains("\"WARN\""));
            wrong.for_each(|line| said += &format!("{}: {line}\n", service.name));
        }
        for server in &self.servers.servers {
            let answer = server
                .get("/jsz?consumers=true&config=false")
                .unwrap_or_default();
            let body: Value = answer
                .split_once("\r\n\r\n")
                .and_then(|(_, body)| serde_json::from_str(body).ok())
                .unwrap_or_default();
            let accounts = body["account_details"].as_array().into_iter().flatten();
            let streams = accounts
                .filter_map(|account| account["stream_detail"].as_array())
                .flatten();
            for stream in streams.filter(|stream| stream["name"] == "FLUENT_EVENTS") {
                for consumer in stream["consumer_detail"].as_array().into_iter().flatten() {
                    said += &format!(
                        "{}: {} created {}, leader {}, delivered {}, ack floor {}, redelivered {}, the stream's leader {}\n",
                        server.name,
                        consumer["name"],
                        consumer["created"],
                        consumer["cluster"]["leader"],
                        consumer["delivered"],
                        consumer["ack_floor"],
                        consumer["num_redelivered"],
                        stream["cluster"]["leader"],
                    );
                }
            }
        }
        said
    }

    /// Where a gateway's spool is.
    pub fn spool(&self, gateway: usize) -> PathBuf {
        self.folder
            .path()
            .join(format!("gateway-{gateway}/spool.db"))
    }
}

/// The shipped accounts and permissions. Each user's password is its name. Added to them is
/// `root`, who may do everything.
fn accounts() -> Vec<(String, String)> {
    let passwords: String = USERS
        .iter()
        .map(|user| format!("{}_PASSWORD: \"{user}\"\n", user.to_uppercase()))
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/nats/accounts.conf");
    let accounts = fs::read_to_string(file).unwrap();
    // One more user, with the permissions of an operator of the servers.
    let root = "users: [\n      { user: root, password: root }\n";
    let accounts = accounts.replacen("users: [\n", root, 1);
    vec![
        ("passwords.conf".to_owned(), passwords),
        ("accounts.conf".to_owned(), accounts),
    ]
}

/// A program that was built together with this one.
pub(crate) fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let found = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} was not built: cargo build -p e2e --bins"))
}

/// Ports that were free when they were looked for.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    [(); N].map(|()| SocketAddr::from(([127, 0, 0, 1], nats_server::free_port().unwrap())))
}

/// Waits until `done` returns true. Panics if it does not within `patience`.
pub async fn until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < patience, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
