//! The report of this process, written again and again where all others can read it: that it
//! runs, how full its disks are, and when its certificates end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use event_model::{Clock, SystemClock, Timestamp, token};
use queue::FactAccess;
use queue::processes::{
    CertificateEnd, DiskUsage, ProcessReport, REPORTED_EVERY, RefusedAccount, process, set_process,
};
use rustix::fs::StatVfs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use settings::{NatsTlsSettings, QueueSettings, SettingsTree};
use sha2::{Digest, Sha256};
use telemetry::{ErrorChain, metrics};
use tokio::time::{sleep, timeout};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::liveness::{pid_space, pid_started};
use crate::route_digests::{RouteDigests, route_digests};
use crate::{Readiness, Shutdown};

/// Time to the next report of a process that was not ready.
const SOON: Duration = Duration::from_secs(1);

/// Of which there may be several with one settings file on one host, such as routes that are
/// scaled alone. A gateway has a port and a spool, and no right to read what is said.
const SHARE_SETTINGS: [&str; 2] = ["dispatcher", "operator"];

/// The kind of process that remembers what the one before it refused.
const REMEMBERS: &str = "serve";

/// How long it is remembered.
const REFUSED_FOR: Duration = Duration::from_hours(24);

/// The reason of a refusal whose webhook is stored nowhere.
const UNLISTED: &str = "unknown-account";

/// How long the last report may take: the webhook port is shut meanwhile.
const LAST_WITHIN: Duration = Duration::from_millis(200);

/// The same for processes without that port, which also look whether their name is their own.
const LAST_OF_SHARED_WITHIN: Duration = Duration::from_secs(1);

/// Adds the facts that only one kind of process has.
pub type AddToReport = Arc<dyn Fn(&mut ProcessReport) + Send + Sync>;

/// The facts that are read for every report.
#[derive(Clone, Debug)]
pub(crate) struct ReportSources {
    config: PathBuf,
    routes: Vec<String>,
    route_settings: BTreeMap<String, RouteDigests>,
    /// The names of the accounts that may send.
    accounts: Vec<String>,
    disks: Vec<PathBuf>,
    /// Certificates that this process shows to others.
    certificates: Vec<PathBuf>,
    /// Certificates of authorities. The last one in each file counts, since a file has the old
    /// and the new one while an authority is renewed.
    authorities: Vec<PathBuf>,
}

impl ReportSources {
    /// Reads what the settings have. A part that only other processes need may be missing in
    /// them.
    pub(crate) fn read(tree: &SettingsTree) -> Self {
        let queue = tree.queue().ok();
        let spool = queue
            .as_ref()
            .and_then(|queue| tree.spool(queue).ok().flatten());
        let file = match &queue {
            Some(QueueSettings::Embedded(settings)) => Some(settings.path.clone()),
            _ => None,
        };
        let gateway = tree.gateway().ok();
        let accounts = gateway.as_ref().map(|gateway| {
            let names = gateway.accounts.names();
            names.map(str::to_owned).collect()
        });
        let webhook = gateway.and_then(|gateway| gateway.tls);
        let operator = tree
            .operator()
            .ok()
            .flatten()
            .and_then(|operator| operator.tls);
        let console = tree.console().ok().flatten();
        let operator = operator.or_else(|| console.and_then(|console| console.tls));
        let servers = match queue {
            Some(QueueSettings::JetStream(settings)) => settings.tls.unwrap_or_default(),
            _ => NatsTlsSettings::default(),
        };
        let (of_operator, client_ca) = operator.map(|tls| (tls.certificate, tls.client_ca)).unzip();
        let certificates = [
            webhook.map(|tls| tls.certificate),
            of_operator,
            servers.certificate,
        ];
        let routes = tree.routes(None).map(|routes| routes.0).unwrap_or_default();
        Self {
            config: tree.file().to_owned(),
            routes: routes.into_iter().map(|route| route.name).collect(),
            route_settings: route_digests(tree),
            accounts: accounts.unwrap_or_default(),
            disks: [file, spool.map(|spool| spool.path)]
                .into_iter()
                .flatten()
                .collect(),
            certificates: certificates.into_iter().flatten().collect(),
            authorities: [client_ca.flatten(), servers.ca]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

impl ReportSources {
    /// The end of the certificate in each file. If a file is both shown and an authority, the
    /// earlier end counts.
    fn certificate_ends(&self) -> Vec<CertificateEnd> {
        let shown = self
            .certificates
            .iter()
            .map(|file| (file, ends(file).into_iter().min()));
        let vouching = self
            .authorities
            .iter()
            .map(|file| (file, ends(file).into_iter().max()));
        let mut all = BTreeMap::new();
        for (file, ends_at) in shown.chain(vouching) {
            let Some(ends_at) = ends_at else { continue };
            let first: &mut Timestamp = all.entry(file).or_insert(ends_at);
            *first = ends_at.min(*first);
        }
        let end = |(file, ends_at): (&PathBuf, _)| CertificateEnd {
            file: file.display().to_string(),
            ends_at,
        };
        all.into_iter().map(end).collect()
    }
}

/// Reports the state of this process until it is closed.
#[derive(Clone)]
pub struct ProcessReporter(Arc<Inner>);

struct Inner {
    /// What it shares with others of its kind that have the same settings on the same host.
    name: String,
    /// Which of these it is; 0 before it has said anything.
    number: AtomicU32,
    started_at: Timestamp,
    pid: u32,
    kind: String,
    sources: ReportSources,
    readiness: Readiness,
    facts: Arc<dyn FactAccess>,
    add: Option<AddToReport>,
    /// True after the last report, which nothing may overwrite.
    is_closed: AtomicBool,
    /// What the process refused that had the name before: such webhooks are stored nowhere else.
    refused_before: OnceLock<Vec<RefusedAccount>>,
}

impl std::fmt::Debug for ProcessReporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessReporter")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

impl ProcessReporter {
    pub(crate) fn start(
        kind: &str,
        sources: ReportSources,
        facts: Arc<dyn FactAccess>,
        readiness: Readiness,
        add: Option<AddToReport>,
        shutdown: &Shutdown,
    ) -> Self {
        let name = format!(
            "{}.{}",
            token(Some(kind)),
            process_id(kind, &sources.config)
        );
        let kind = kind.to_owned();
        let started_at = SystemClock.now();
        let reporter = Self(Arc::new(Inner {
            name,
            number: AtomicU32::new(0),
            started_at,
            pid: std::process::id(),
            kind,
            sources,
            readiness,
            facts,
            add,
            is_closed: AtomicBool::new(false),
            refused_before: OnceLock::new(),
        }));
        let reporting = reporter.clone();
        let closing = shutdown.closing();
        shutdown.spawn_detached(async move {
            closing.run_until_cancelled(reporting.run()).await;
        });
        reporter
    }

    async fn run(&self) {
        let mut was_said = true;
        loop {
            let was_ready = self.0.readiness.get();
            let said = self.say().await;
            if let Err(error) = &said
                && was_said
            {
                // One line each time it begins to fail. That the queue is away is logged
                // elsewhere.
                tracing::warn!(error = %ErrorChain(error), "nobody can see that this process is here: `status` will call it gone");
            }
            was_said = said.is_ok();
            // At its first report the process may not be ready yet.
            let wait = if was_ready { REPORTED_EVERY } else { SOON };
            sleep(wait).await;
        }
    }

    /// Writes the last report, which says that the process ended as it was told to.
    pub async fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        let within = match SHARE_SETTINGS.contains(&&*self.0.kind) {
            true => LAST_OF_SHARED_WITHIN,
            false => LAST_WITHIN,
        };
        let _ = timeout(within, self.say()).await;
    }

    async fn say(&self) -> Result<(), queue::QueueError> {
        // A name is a process's own once a report is written under it.
        let number = match self.0.number.load(Ordering::Acquire) {
            // Who begins takes the first name, for it may be the one that ran before.
            0 => {
                self.remember_refused().await;
                1
            }
            number if self.check_name(number).await? => number,
            _ if self.0.is_closed.load(Ordering::Acquire) => return Ok(()),
            number => {
                tracing::info!(
                    number = number + 1,
                    "another process on this host has the same settings: both are seen"
                );
                number + 1
            }
        };
        let inner = Arc::clone(&self.0);
        let report = tokio::task::spawn_blocking(move || inner.report()).await;
        let report = report.map_err(|error| queue::QueueError::unavailable("reporting", error))?;
        set_process(self.0.facts.facts(), &self.0.id(number), &report).await?;
        self.0.number.store(number, Ordering::Release);
        Ok(())
    }

    /// Reads what the process before it refused, under the same name. Only the whole pipeline in
    /// one process may read facts for certain; without them, nothing is remembered.
    async fn remember_refused(&self) {
        let inner = &self.0;
        if inner.kind != REMEMBERS || inner.refused_before.get().is_some() {
            return;
        }
        let found = process(inner.facts.facts(), &inner.id(1)).await;
        if let Ok(found) = found {
            let refused = found.map(|found| found.refused).unwrap_or_default();
            let _ = inner.refused_before.set(inner.still_of_interest(refused));
        }
    }

    /// Whether what was said last under its name is its own word. A process that had the name,
    /// and is alive to find another's word there, takes the next.
    async fn check_name(&self, number: u32) -> Result<bool, queue::QueueError> {
        let inner = &self.0;
        if !SHARE_SETTINGS.contains(&&*inner.kind) {
            return Ok(true);
        }
        let found = process(inner.facts.facts(), &inner.id(number)).await?;
        let is_own =
            |found: &ProcessReport| (found.pid, found.started_at) == (inner.pid, inner.started_at);
        Ok(found.is_none_or(|found| found.is_closed || is_own(&found)))
    }
}

impl Inner {
    fn id(&self, number: u32) -> String {
        match number {
            1 => self.name.clone(),
            number => format!("{}-{number}", self.name),
        }
    }

    /// Of accounts that are still not listed, what came within a day of now. What is listed and was
    /// refused for another reason is stored.
    fn still_of_interest(&self, mut refused: Vec<RefusedAccount>) -> Vec<RefusedAccount> {
        let now = SystemClock.now();
        let is_late = |last_at: Timestamp| {
            Duration::try_from(now.duration_since(last_at)).is_ok_and(|age| age < REFUSED_FOR)
        };
        refused.retain(|one| {
            one.reason == UNLISTED
                && is_late(one.last_at)
                && !self.sources.accounts.contains(&one.account)
        });
        refused
    }

    /// Adds what was refused before to what this process refused.
    fn add_refused_before(&self, report: &mut ProcessReport) {
        let before = self.refused_before.get().cloned().unwrap_or_default();
        for earlier in self.still_of_interest(before) {
            let is_same = |one: &&mut RefusedAccount| {
                (&one.account, &one.environment, &one.reason)
                    == (&earlier.account, &earlier.environment, &earlier.reason)
            };
            match report.refused.iter_mut().find(is_same) {
                Some(one) => one.count += earlier.count,
                None => report.refused.push(earlier),
            }
        }
    }

    fn report(&self) -> ProcessReport {
        let impediment = self.readiness.impediment();
        let mut report = ProcessReport {
            kind: self.kind.clone(),
            host: host_name(),
            pid: self.pid,
            pid_space: pid_space(),
            pid_started: pid_started(self.pid),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            is_ready: impediment.is_none(),
            impediment: impediment.map(Cow::into_owned),
            is_stopping: self.readiness.is_stopping(),
            is_closed: self.is_closed.load(Ordering::Acquire),
            routes: self.sources.routes.clone(),
            route_settings: self.sources.route_settings.clone(),
            disks: self
                .sources
                .disks
                .iter()
                .filter_map(|path| disk_usage(path))
                .collect(),
            certificates: self.sources.certificate_ends(),
            ..ProcessReport::default()
        };
        for disk in &report.disks {
            metrics::DISK_USAGE.set(
                disk.used as f64 / disk.total.max(1) as f64,
                [disk.path.clone().into()],
            );
        }
        for end in &report.certificates {
            metrics::CERTIFICATE_EXPIRY
                .set(end.ends_at.as_second() as f64, [end.file.clone().into()]);
        }
        if let Some(add) = &self.add {
            add(&mut report);
        }
        self.add_refused_before(&mut report);
        report
    }
}

/// Names a process among those of its kind: one that is started anew with the same settings
/// on the same host has the same name.
pub fn process_id(kind: &str, config: &Path) -> String {
    let config = std::fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
    let place = format!("{kind}\0{}\0{}", host_name(), config.display());
    hex::encode(&Sha256::digest(place)[..6])
}

/// The name of this machine.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The usage of the disk that `path` is on.
fn disk_usage(path: &Path) -> Option<DiskUsage> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let found = rustix::fs::statvfs(folder).ok()?;
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let (used, total) = usage(&found)?;
    Some(DiskUsage {
        path: folder.display().to_string(),
        used,
        total,
    })
}

/// The used bytes and the bytes that this process could ever use, as `df` counts them. Space
/// reserved for root is in neither: on a large disk, or one with a quota, it does not mean that
/// this process lacks room.
fn usage(found: &StatVfs) -> Option<(u64, u64)> {
    let used = found.f_blocks.saturating_sub(found.f_bfree);
    let total = used.checked_add(found.f_bavail)?;
    Some((
        used.checked_mul(found.f_frsize)?,
        total.checked_mul(found.f_frsize)?,
    ))
}

/// The ends of the certificates in a PEM file.
fn ends(file: &Path) -> Vec<Timestamp> {
    let pem = settings::read_pem(file).unwrap_or_default();
    let ends = CertificateDer::pem_slice_iter(&pem).filter_map(|certificate| {
        let certificate = certificate.ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
    });
    ends.collect()
}

#[cfg(test)]
mod tests;
