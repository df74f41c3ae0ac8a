//! The service of the demo, in a process of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::story::Story;
use super::world::World;

/// Longest time for the service to come up, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pipeline {
    child: Child,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    health: SocketAddr,
}

impl Pipeline {
    pub(super) async fn start(world: &World) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let config = world.config();
        let log = world.log();
        File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let child = spawn(&program, &config, &log)?;
        let mut pipeline = Self {
            child,
            program,
            config,
            log,
            health: world.health,
        };
        pipeline.ready().await?;
        Ok(pipeline)
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// kill -9: the service can finish nothing.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("killing the service")
    }

    /// Starts the service again, on the same file.
    pub(super) fn restart(&mut self, story: &Story) {
        match spawn(&self.program, &self.config, &self.log) {
            Ok(child) => {
                self.child = child;
                story.tell("started", "the service again, on the same queue file");
            }
            Err(error) => story.tell("failed", &format!("{error:#}")),
        }
    }

    /// Waits until the service is ready.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !ask_ready(self.health).await {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the service ended with {status}; its log is {}",
                    self.log.display()
                );
            }
            if began.elapsed() > PATIENCE {
                bail!(
                    "the service is not ready after {PATIENCE:?}; its log is {}",
                    self.log.display()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// SIGTERM: the service finishes its deliveries in progress.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            kill_process(id, Signal::TERM).context("stopping the service")?;
        }
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .context("the service does not stop")??;
        if !status.success() {
            bail!(
                "the service ended with {status}; its log is {}",
                self.log.display()
            );
        }
        Ok(())
    }
}

fn spawn(program: &Path, config: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = File::options()
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    Command::new(program)
        .args([
            "serve",
            "--log",
            "debug,hyper_util=info,reqwest=info",
            "--config",
        ])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C goes to this process only, which stops the service.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

async fn ask_ready(health: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(health).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    timeout(Duration::from_secs(1), ask)
        .await
        .is_ok_and(|answer| answer.unwrap_or(false))
}
