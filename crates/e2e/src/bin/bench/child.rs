//! A measured process: started, loaded and ended by the benchmark.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;

use crate::inputs::SignedInput;
use crate::report::Row;
use crate::{CONNECTIONS, cpu, load};

/// Starts a gateway on these servers.
pub(crate) fn start_gateway_on_nats(
    servers: &str,
    replicas: usize,
    signed: &SignedInput,
    spool: Option<&Path>,
) -> anyhow::Result<Subject> {
    let replicas = replicas.to_string();
    let mut args: Vec<&OsStr> = vec![
        "gateway-on-nats".as_ref(),
        servers.as_ref(),
        replicas.as_ref(),
        signed.public.as_os_str(),
    ];
    args.extend(spool.map(Path::as_os_str));
    Subject::start(&args)
}

/// A process that ends with its measurement.
pub(crate) struct Subject {
    child: Child,
    address: SocketAddr,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Subject {
    fn start(args: &[&OsStr]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse().context("the subject did not start")?;
        Ok(Self {
            child,
            address,
            input,
            output,
        })
    }

    /// Starts an OTLP receiver that takes this many milliseconds for each export.
    pub(crate) fn collector(delay_ms: u64) -> anyhow::Result<Self> {
        Self::start(&["collector".as_ref(), delay_ms.to_string().as_ref()])
    }

    /// Starts a gateway with the embedded queue and telemetry as `more` says.
    pub(crate) fn gateway(folder: &Path, key: &Path, more: &[String]) -> anyhow::Result<Self> {
        let mut args = vec![
            "watched-gateway".as_ref(),
            folder.as_os_str(),
            key.as_os_str(),
        ];
        args.extend(more.iter().map(OsStr::new));
        Self::start(&args)
    }

    /// Starts a simulated Fluent with this many orders.
    pub(crate) fn api(orders: usize) -> anyhow::Result<Self> {
        Self::start(&["api".as_ref(), orders.to_string().as_ref()])
    }

    /// The process's counter: spans that were dropped, or queries that were answered.
    pub(crate) fn ask(&mut self) -> anyhow::Result<f64> {
        writeln!(self.input)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn load(&self, requests: &[Vec<u8>], new_each: bool) -> anyhow::Result<Row> {
        let before = cpu::of(self.child.id())?;
        let loaded = load::run(self.address, requests, CONNECTIONS, new_each)?;
        let used = cpu::of(self.child.id())?.saturating_sub(before);
        Ok(Row::new(requests.len(), loaded.took, used).with_latencies(&loaded.latencies))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a bare axum route, as a floor or as an endpoint.
pub(crate) fn start_axum() -> anyhow::Result<Subject> {
    Subject::start(&["axum".as_ref()])
}

pub(crate) fn load_axum(signed: &SignedInput, new_each: bool) -> anyhow::Result<Row> {
    start_axum()?.load(&signed.requests, new_each)
}

pub(crate) fn load_gateway(signed: &SignedInput, new_each: bool) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir_in(crate::stages::disk()?)?;
    let args = [
        "gateway".as_ref(),
        folder.path().as_os_str(),
        signed.public.as_os_str(),
    ];
    Subject::start(&args)?.load(&signed.requests, new_each)
}
