//! Resident memory of the whole service, idle and with a backlog.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use simulator::KeyPair;

use crate::cpu;
use crate::inputs::eprintln;
use crate::stages::{backlog, disk, runtime};

/// Memory with this many events waiting.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) events: usize,
    pub(crate) bytes: u64,
}

/// Measures with no events, with a thousand, and with `most`.
pub(crate) fn rows(most: usize) -> anyhow::Result<Vec<Waiting>> {
    [0, 1000, most].into_iter().map(measure).collect()
}

fn measure(events: usize) -> anyhow::Result<Waiting> {
    eprintln(&format!("memory with {events} waiting events ..."));
    let folder = tempfile::tempdir_in(disk()?)?;
    runtime()?.block_on(async {
        let queue = backlog(folder.path(), events).await?;
        queue::Lifecycle::close(&*queue).await;
        anyhow::Ok(())
    })?;
    let service = Service::start(folder.path())?;
    // Long enough for the readers to have filled their buffers.
    std::thread::sleep(Duration::from_secs(3));
    Ok(Waiting {
        events,
        bytes: cpu::resident(service.0.id())?,
    })
}

struct Service(Child);

impl Service {
    /// Starts the service with a route that delivers hardly anything.
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], nats_server::free_port()?));
        let config = folder.join("application.yml");
        std::fs::write(&config, settings(address)?)?;
        let program = std::env::current_exe()?.with_file_name("pipeline");
        let mut command = Command::new(program);
        command
            .args(["serve", "--log", "error", "--config"])
            .arg(config)
            .stdout(Stdio::null());
        let mut service = Self(command.spawn().context("starting the service")?);
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > Duration::from_secs(60) || service.0.try_wait()?.is_some() {
                bail!("the service did not start");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(service)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn settings(address: SocketAddr) -> anyhow::Result<String> {
    let key = KeyPair::generate(1024)?.public_base64()?;
    Ok(format!(
        r#"
fluent-connect:
  accounts: [{{ name: ACME, region: sydney, environment: sandbox }}]
  webhook: {{ listen: "{address}" }}
  queue: {{ path: queue.db }}
  routes:
    - {{ name: slow, match: {{}}, start: beginning, concurrency: 1, dispatcher: misbehaving, misbehaving: {{ millis: 400 }} }}
fluentcommerce:
  fluent-webhook-keys: {{ sydney_sandbox: "{key}" }}
"#
    ))
}
