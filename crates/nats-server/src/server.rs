//! One server: its configuration, process and health.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a server to be able to serve.
const START: Duration = Duration::from_secs(60);

/// The options of servers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that the program is fetched into if necessary.
    pub programs: PathBuf,
    /// fsync after every write. The server's default is every two minutes.
    pub sync_always: bool,
    /// Most bytes that JetStream may store. Servers reserve what each stream may have at most: with
    /// the product's defaults that is 23 GiB, and a server like those of `config/nats` has room for
    /// it.
    pub max_file: String,
    /// More lines of configuration: accounts, permissions, TLS.
    pub more: String,
    /// Files beside the configuration, by name, which `more` includes.
    pub files: Vec<(String, String)>,
    /// The folder of the streams. Without it, a folder that is removed again.
    pub folder: Option<PathBuf>,
    /// The place of each server, in order. Without them, loopback.
    pub places: Vec<Place>,
}

/// The network place of a server.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address that it listens on.
    pub address: IpAddr,
    /// A command that runs the server's own command, such as one that enters a network namespace.
    pub within: Vec<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            address: IpAddr::from([127, 0, 0, 1]),
            within: Vec::new(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            programs: programs(),
            sync_always: false,
            max_file: "30GB".to_owned(),
            more: String::new(),
            files: Vec::new(),
            folder: None,
            places: Vec::new(),
        }
    }
}

/// The folder `target/` that the running program was built into.
fn programs() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

/// One server. It is killed on drop.
#[derive(Debug)]
pub struct Server {
    /// Its name in the cluster.
    pub name: String,
    place: Place,
    port: u16,
    monitor: u16,
    program: PathBuf,
    folder: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Writes the configuration of a server called `name` at `place`, with its data in `folder`.
    /// `cluster` is the part of the configuration about the others.
    pub(crate) fn prepare(
        name: &str,
        place: &Place,
        folder: &Path,
        cluster: &str,
        options: &Options,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let port = crate::free_port()?;
        let monitor = crate::free_port()?;
        let sync = if options.sync_always { "always" } else { "2m" };
        let store = folder.join("store");
        let max = &options.max_file;
        let more = &options.more;
        let address = place.address;
        let text = format!(
            "server_name: {name}\nlisten: {address}:{port}\nhttp: {address}:{monitor}\nmax_payload: 4MB\n\
             jetstream {{ store_dir: {store:?}, max_file: {max}, max_mem: 64MB, sync_interval: {sync} }}\n\
             lame_duck_duration: 30s\nlame_duck_grace_period: 2s\n{cluster}\n{more}\n"
        );
        fs::write(folder.join("nats.conf"), text)?;
        for (name, content) in &options.files {
            fs::write(folder.join(name), content)?;
        }
        let program = crate::find(&options.programs)?;
        let name = name.to_owned();
        let place = place.clone();
        let folder = folder.to_owned();
        Ok(Self {
            name,
            place,
            port,
            monitor,
            program,
            folder,
            child: None,
        })
    }

    /// Starts the server, also again after [`Server::kill`]. Does not wait for it:
    /// [`Server::wait`] does.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("nats.log"))?;
        let mut words = self
            .place
            .within
            .iter()
            .map(OsStr::new)
            .chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .arg("--config")
            .arg(self.folder.join("nats.conf"));
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        self.child = Some(child.with_context(|| format!("starting {}", self.program.display()))?);
        Ok(())
    }

    /// Waits until the server is healthy, JetStream included.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.is_healthy() {
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok())
                .flatten();
            if let Some(status) = ended {
                bail!(
                    "{} ended with {status}; its last words: {}",
                    self.name,
                    self.last_words()
                );
            }
            if began.elapsed() > START {
                bail!(
                    "{} is not healthy after {START:?}; its last words: {}",
                    self.name,
                    self.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("nats.log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join(" | ")
    }

    /// True if it answers its health check with 200 now.
    pub fn is_healthy(&self) -> bool {
        self.get("/healthz")
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The answer of its monitoring port: head and body as they come.
    pub fn get(&self, path: &str) -> std::io::Result<String> {
        let address = SocketAddr::from((self.place.address, self.monitor));
        let patience = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.replacen("HTTP/1.0", "HTTP/1.1", 1))
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.place.address, self.port)
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with its configuration, log and data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops every thread of the process, like a machine that hangs. Returns when none runs any
    /// more.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let began = Instant::now();
        // On a busy machine, other threads run until the thread that takes the signal has its
        // turn.
        while !self.is_stopped() && began.elapsed() < START {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// True if each of its threads is stopped.
    fn is_stopped(&self) -> bool {
        let Some(threads) = self
            .pid()
            .and_then(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok())
        else {
            return true;
        };
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state is behind the name, which is in parentheses. A thread that has ended has
            // none.
            stat.rsplit(") ")
                .next()
                .is_none_or(|rest| rest.is_empty() || rest.starts_with('T'))
        })
    }

    /// Makes it send its clients away, one after another, and end.
    pub fn retire(&self) {
        self.signal(Signal::USR2);
    }

    /// True if its process runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Continues the process after [`Server::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .pid()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use crate::Cluster;

    use super::*;

    #[test]
    fn nothing_of_a_frozen_server_runs() {
        let servers = Cluster::start(1, &Options::default()).unwrap();
        let server = &servers.servers[0];
        for _ in 0..200 {
            server.freeze();
            assert!(server.is_stopped());
            server.thaw();
        }
        let began = Instant::now();
        while server.get("/varz").is_err() {
            assert!(began.elapsed() < START, "it goes on");
        }
    }
}
