//! NATS servers with the files of `config/nats` as they are shipped, but for addresses, folders
//! and sizes; and strangers that want to be one of them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nats_server::{Authority, ServerCertificate, free_port};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config");

const USERS: [&str; 5] = ["GATEWAY", "DISPATCHER", "OPERATOR", "ADMIN", "CLUSTER"];

/// Waits until `find` finds something.
pub(crate) fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process of nats-server, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) folder: PathBuf,
}

impl Process {
    /// Starts it in `folder`, with its `nats.conf`.
    fn start(folder: &Path, name: &str) -> Self {
        let program = nats_server::find(&nats_server::Options::default().programs).unwrap();
        let log = fs::File::create(folder.join("nats.log")).unwrap();
        let mut command = Command::new(program);
        command
            .args(["-c", "nats.conf"])
            .current_dir(folder)
            .env("SERVER_NAME", name);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self {
            child,
            folder: folder.to_owned(),
        }
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("nats.log")).unwrap()
    }

    /// Has it read its files again.
    pub(crate) fn reload(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the shipped `nats.conf` asks of who joins as a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// As it is shipped.
    Shipped,
    /// Its `tls` for servers taken out.
    Password,
    /// Its `authorization`, too.
    Nothing,
}

/// Servers with the shipped files, each at a loopback address of its own.
#[derive(Debug)]
pub(crate) struct ShippedServers {
    pub(crate) servers: Vec<Process>,
    pub(crate) hosts: Vec<String>,
    pub(crate) client_port: u16,
    pub(crate) route_port: u16,
    /// Of clients and of servers, where each server listens at all addresses.
    own_ports: Vec<[u16; 2]>,
    monitors: Vec<u16>,
    pub(crate) authority: Authority,
    pub(crate) folder: tempfile::TempDir,
}

impl ShippedServers {
    /// Starts `count` of them, and waits until each knows the others.
    pub(crate) fn start(count: u8, guard: Guard) -> Self {
        Self::start_at(count, guard, Vec::new())
    }

    /// The same as they are shipped, each at all addresses of this machine, and told of the first
    /// alone: the others hear of each other from it.
    pub(crate) fn start_at_all_addresses(count: u8) -> Self {
        let ports = (0..count).map(|_| [(); 2].map(|()| free_port().unwrap()));
        Self::start_at(count, Guard::Shipped, ports.collect())
    }

    fn start_at(count: u8, guard: Guard, own_ports: Vec<[u16; 2]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::generate().unwrap();
        fs::write(folder.path().join("nats-ca.crt"), authority.certificate()).unwrap();
        let hosts: Vec<_> = (0..count)
            .map(|number| format!("127.0.0.{}", number + 2))
            .collect();
        let ports = own_ports.first().copied();
        let [client_port, route_port] =
            ports.unwrap_or_else(|| [(); 2].map(|()| free_port().unwrap()));
        let monitors = hosts.iter().map(|_| free_port().unwrap()).collect();
        let servers = Vec::new();
        let mut started = Self {
            servers,
            hosts,
            client_port,
            route_port,
            own_ports,
            monitors,
            authority,
            folder,
        };
        for number in 0..usize::from(count) {
            let server = started.start_server(number, guard);
            started.servers.push(server);
        }
        for number in 0..usize::from(count) {
            let clients = (&*started.hosts[number], started.ports(number)[0]);
            wait_for("clients to be let in", || TcpStream::connect(clients).ok());
            wait_for("a whole cluster", || {
                let joined = started.joined(number)?;
                let others = started
                    .hosts
                    .iter()
                    .filter(|host| **host != started.hosts[number]);
                others
                    .into_iter()
                    .all(|host| joined.contains(host))
                    .then_some(())
            });
        }
        started
    }

    /// The ports of a server: of clients, and of servers.
    pub(crate) fn ports(&self, number: usize) -> [u16; 2] {
        self.own_ports
            .get(number)
            .copied()
            .unwrap_or([self.client_port, self.route_port])
    }

    fn start_server(&self, number: usize, guard: Guard) -> Process {
        let host = &self.hosts[number];
        let folder = self.folder.path().join(host);
        fs::create_dir(&folder).unwrap();
        let from = Path::new(CONFIG).join("nats");
        fs::copy(from.join("accounts.conf"), folder.join("accounts.conf")).unwrap();
        let here = |file: &str| folder.join(file).to_str().unwrap().to_owned();
        let at = if self.own_ports.is_empty() {
            host
        } else {
            "0.0.0.0"
        };
        let [client_port, route_port] = self.ports(number);
        let places = [
            ("0.0.0.0:4222", format!("{at}:{client_port}")),
            (
                "127.0.0.1:8222",
                format!("127.0.0.1:{}", self.monitors[number]),
            ),
            ("0.0.0.0:6222", format!("{at}:{route_port}")),
            ("store_dir: /data", format!("store_dir: {:?}", here("data"))),
            ("30GB", "1GB".to_owned()),
        ];
        let shipped = fs::read_to_string(from.join("nats.conf")).unwrap();
        let mut conf = places.iter().fold(shipped, |conf, (shipped, here)| {
            assert!(conf.contains(shipped), "nats.conf has no {shipped}");
            conf.replacen(shipped, here, 1)
        });
        for file in ["server.crt", "server.key", "ca.crt"] {
            conf = conf.replace(&format!(" /etc/nats/{file}"), &format!(" {:?}", here(file)));
        }
        assert!(!conf.contains("/etc/nats/"), "{conf}");
        let (before, cluster) = conf.split_once("cluster {").unwrap();
        let cluster = match guard {
            Guard::Shipped => cluster.to_owned(),
            Guard::Password => without(cluster, "tls {"),
            Guard::Nothing => without(&without(cluster, "tls {"), "authorization {"),
        };
        let conf = format!("{before}cluster {{{cluster}");
        fs::write(folder.join("nats.conf"), conf).unwrap();
        // A server refuses a variable that nothing uses.
        let users = if guard == Guard::Nothing {
            &USERS[..4]
        } else {
            &USERS[..]
        };
        let passwords: String = users
            .iter()
            .map(|user| format!("{user}_PASSWORD: \"secret\"\n"))
            .collect();
        let known = if self.own_ports.is_empty() {
            self.hosts.len()
        } else {
            1
        };
        let routes: Vec<_> = (0..known)
            .map(|number| format!("{:?}", self.route(number)))
            .collect();
        let routes = format!("CLUSTER_ROUTES: [{}]\n", routes.join(", "));
        fs::write(folder.join("passwords.conf"), passwords + &routes).unwrap();
        fs::write(folder.join("ca.crt"), self.authority.certificate()).unwrap();
        write_identity(&folder, &self.authority.certify(&[host]).unwrap());
        Process::start(&folder, host)
    }

    /// Kills a server, and starts it again.
    pub(crate) fn restart(&mut self, number: usize) {
        let server = &mut self.servers[number];
        let _ = server.child.kill();
        let _ = server.child.wait();
        *server = Process::start(&server.folder, &self.hosts[number]);
    }

    fn route(&self, number: usize) -> String {
        let [_, route_port] = self.ports(number);
        format!("nats://cluster:secret@{}:{route_port}", self.hosts[number])
    }

    /// Which servers this one has joined with, by its own word.
    pub(crate) fn joined(&self, number: usize) -> Option<Vec<String>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitors[number])).ok()?;
        stream.write_all(b"GET /routez HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        // A server without any says null.
        let routes = body["routes"].as_array().into_iter().flatten();
        Some(
            routes
                .filter_map(|route| route["remote_name"].as_str())
                .map(str::to_owned)
                .collect(),
        )
    }

    /// The settings of `config/cluster` for this user, with these servers.
    pub(crate) fn settings(&self, user: &str) -> PathBuf {
        let folder = self.folder.path();
        fs::write(folder.join(format!("{user}-password")), "secret").unwrap();
        let shipped = fs::read_to_string(format!("{CONFIG}/cluster/{user}.yml")).unwrap();
        let port = self.client_port;
        let servers: Vec<_> = self
            .hosts
            .iter()
            .map(|host| format!("tls://{host}:{port}"))
            .collect();
        let listed = "tls://nats-1:4222, tls://nats-2:4222, tls://nats-3:4222";
        assert!(shipped.contains(listed), "{shipped}");
        let retention = "replicas: 3\n    retention: { age: 7d, bytes: 64MiB }\n";
        let text = shipped
            .replacen(listed, &servers.join(", "), 1)
            .replacen("replicas: 3\n", retention, 1)
            .replace("/run/secrets/", &format!("{}/", folder.display()));
        let path = folder.join(format!("{user}.yml"));
        fs::write(&path, text).unwrap();
        path
    }
}

/// The text without the block that begins so.
fn without(text: &str, block: &str) -> String {
    let (before, rest) = text.split_once(block).unwrap();
    format!("{before}{}", rest.split_once('}').unwrap().1)
}

/// Writes what a server shows of itself.
pub(crate) fn write_identity(folder: &Path, server: &ServerCertificate) {
    fs::write(folder.join("server.crt"), &server.certificate).unwrap();
    fs::write(folder.join("server.key"), &server.key).unwrap();
}

/// What a stranger has who wants to join as a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rogue {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
    pub(crate) certificate: Certificate,
}

/// Who vouches for a stranger.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Certificate {
    None,
    /// An authority of the stranger's own.
    Foreign,
    /// The servers' own.
    Trusted,
}

/// A real nats-server of a stranger's. Whoever connects to it is its master.
#[derive(Debug)]
pub(crate) struct RogueServer {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Rogue {
    /// Starts it: it tries to join the first of `servers`.
    pub(crate) fn start(self, servers: &ShippedServers) -> RogueServer {
        let folder = servers.folder.path().join(self.name);
        fs::create_dir(&folder).unwrap();
        let [client, route] = [(); 2].map(|()| free_port().unwrap());
        let own = Authority::generate().unwrap();
        let issuer = match self.certificate {
            Certificate::None => None,
            Certificate::Foreign => Some(&own),
            Certificate::Trusted => Some(&servers.authority),
        };
        let tls = issuer.map_or_else(String::new, |issuer| {
            write_identity(&folder, &issuer.certify(&["127.0.0.1"]).unwrap());
            // It believes the servers: that they don't believe it is what is tested.
            fs::copy(
                servers.folder.path().join("nats-ca.crt"),
                folder.join("ca.crt"),
            )
            .unwrap();
            "tls { cert_file: server.crt, key_file: server.key, ca_file: ca.crt, verify: true }"
                .to_owned()
        });
        let target = format!(
            "{}{}:{}",
            self.password, servers.hosts[0], servers.route_port
        );
        let conf = format!(
            "server_name: {}\nlisten: 127.0.0.1:{client}\n\
             accounts {{ FLUENT {{ users: [{{ user: rogue, password: rogue }}] }} }}\n\
             cluster {{ name: fluent, listen: 127.0.0.1:{route}, routes: [\"nats://{target}\"]\n{tls} }}\n",
            self.name
        );
        fs::write(folder.join("nats.conf"), conf).unwrap();
        let process = Process::start(&folder, self.name);
        RogueServer {
            process,
            url: format!("nats://127.0.0.1:{client}"),
        }
    }
}

/// What a port says first, if it says something, and what it answers to `CONNECT` in clear.
pub(crate) fn join_in_clear(address: &str, connect: &str) -> (String, String) {
    let mut stream = wait_for("a port that is open", || TcpStream::connect(address).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let greeting = lines.next().and_then(Result::ok).unwrap_or_default();
    // The server may be gone already: then it has said so.
    let _ = write!(stream, "CONNECT {connect}\r\nPING\r\n");
    let answers: Vec<_> = lines.map_while(Result::ok).collect();
    (greeting, answers.join("\n"))
}
