//! One process of the product: its start, its end, and its readiness.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::deployment::program;

/// Longest wait for a service to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway or dispatcher. It is killed on drop.
#[derive(Debug)]
pub struct Service {
    /// Its name in the test.
    pub name: String,
    /// The address for webhooks, if it has one.
    pub webhook: Option<SocketAddr>,
    program: &'static str,
    config: PathBuf,
    health: SocketAddr,
    args: Vec<String>,
    environment: Vec<(String, PathBuf)>,
    within: Vec<String>,
    child: Option<Child>,
}

impl Service {
    /// A program that was built together with this one, with its settings. It is not started yet.
    pub fn new(
        name: &str,
        program: &'static str,
        config: PathBuf,
        health: SocketAddr,
        webhook: Option<SocketAddr>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            webhook,
            program,
            config,
            health,
            args: Vec::new(),
            environment: Vec::new(),
            within: Vec::new(),
            child: None,
        }
    }

    /// Sets a command that runs the service's own command.
    pub(crate) fn set_within(&mut self, within: Vec<String>) {
        self.within = within;
    }

    /// Sets a variable of its environment, from the next start on.
    pub fn set_environment(&mut self, name: &str, value: &Path) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Sets more arguments, from the next start on.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Starts the process, without waiting for it.
    pub fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap();
        let program = program(self.program).into_os_string();
        let mut words = self.within.iter().map(OsString::from).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.envs(self.environment.iter().cloned());
        command
            .args(words)
            .args(["--json", "--log", "info"])
            .arg("--config")
            .arg(&self.config)
            .args(&self.args);
        self.child = Some(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap(),
        );
    }

    /// Waits until the service is ready.
    pub fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while !self.is_ready() {
            assert!(self.is_running(), "{} ended: {}", self.name, self.log());
            assert!(
                began.elapsed() < PATIENCE,
                "{} is not ready: {}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the service again, after killing it if it runs, and waits until it is ready.
    pub fn restart(&mut self) {
        if self.is_running() {
            self.kill();
        }
        self.start();
        self.wait_until_ready();
    }

    /// True if its health address answers that it is ready.
    pub fn is_ready(&self) -> bool {
        self.readiness().starts_with("HTTP/1.1 200")
    }

    /// What its health address answers when it is asked whether it is ready; nothing if it does not.
    pub fn readiness(&self) -> String {
        let ask = || {
            let mut stream = TcpStream::connect(self.health)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        ask().unwrap_or_default()
    }

    /// True if its process runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the service by SIGTERM, and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        kill_process(
            Pid::from_raw(child.id().cast_signed()).unwrap(),
            Signal::TERM,
        )
        .unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{} is still running: {}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The URL for webhooks.
    pub fn url(&self) -> String {
        let address = self
            .webhook
            .map(|address| address.to_string())
            .unwrap_or_default();
        format!("http://{address}/api/v1/fluent-connect/webhook")
    }

    /// The address of its metrics, from its log. Its settings must say `http: "127.0.0.1:0"`.
    pub fn metrics(&self) -> SocketAddr {
        let log = self.log();
        let said = log
            .lines()
            .rfind(|line| line.contains("metrics at /metrics"))
            .unwrap();
        let said: serde_json::Value = serde_json::from_str(said).unwrap();
        let address = said
            .pointer("/fields/address")
            .or_else(|| said.get("address"))
            .unwrap();
        address.as_str().unwrap().parse().unwrap()
    }

    fn log_file(&self) -> PathBuf {
        self.config.with_extension("log")
    }

    /// The log of all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
