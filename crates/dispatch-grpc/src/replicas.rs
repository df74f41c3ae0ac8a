//! Replicas of handlers: every address of every endpoint, the least busy first.
//!
//! tonic's own balancer keeps choosing one that refuses connections, since that is never busy;
//! here a replica that failed is called last for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use grpc::{Target, TargetError};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tonic::transport::Channel;

/// Time for which resolved names are used. They are resolved while calls go on, except for the
/// first time.
const FRESH: Duration = Duration::from_secs(10);

/// Longest time for resolving.
const LOOKUP: Duration = Duration::from_secs(5);

/// Time for which a replica that failed, or did not answer, is called last: as long as it takes
/// to know that a machine is gone.
const REST: Duration = Duration::from_secs(5);

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Replicas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    targets: Vec<Target>,
    known: Mutex<KnownReplica>,
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct KnownReplica {
    at: Option<Instant>,
    replicas: HashMap<(usize, SocketAddr), Arc<Replica>>,
}

/// A process that can be called.
#[derive(Debug)]
pub(crate) struct Replica {
    channel: Channel,
    calls: AtomicUsize,
    failed: Mutex<Option<Instant>>,
}

/// A call to a replica, counted while it lasts. One that ends without an answer, such as by its
/// deadline, makes the replica the last choice for a while.
#[derive(Debug)]
pub(crate) struct Call {
    replica: Arc<Replica>,
    is_answered: bool,
}

impl Replicas {
    /// Fails if certificates can't be read.
    pub(crate) fn new(targets: Vec<Target>) -> Result<Self, TargetError> {
        targets
            .iter()
            .try_for_each(|target| target.channel().map(drop))?;
        Ok(Self(Arc::new(Inner {
            targets,
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })))
    }

    /// Returns the replica to call now, followed by those to call if it can't be reached.
    pub(crate) async fn in_turn(&self) -> Result<Vec<Arc<Replica>>, TargetError> {
        let at = self.0.known().at;
        match at {
            None => self.0.look_up().await?,
            Some(at) if at.elapsed() >= FRESH => self.look_up_beside(),
            Some(_) => {}
        }
        let mut replicas: Vec<_> = self.0.known().replicas.values().cloned().collect();
        replicas
            .sort_by_cached_key(|replica| (replica.rests(), replica.calls(), fastrand::u32(..)));
        Ok(replicas)
    }

    /// Resolves in the background, since some replicas are known.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends within the time of a lookup"
    )]
    fn look_up_beside(&self) {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.look_up().await });
    }
}

impl Inner {
    /// Resolves the names; one caller does, and others wait for the result.
    async fn look_up(&self) -> Result<(), TargetError> {
        let before = self.known().at;
        let _looking = self.looking.lock().await;
        if self.known().at != before {
            return Ok(());
        }
        let lookups = self
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| async move {
                let looked_up = timeout(LOOKUP, lookup_host(target.authority())).await;
                let addresses: Vec<_> = looked_up
                    .ok()
                    .and_then(Result::ok)
                    .into_iter()
                    .flatten()
                    .take(MAX_ADDRESSES)
                    .collect();
                addresses
                    .into_iter()
                    .map(|address| (index, address))
                    .collect::<Vec<_>>()
            });
        let found = futures::future::join_all(lookups).await.concat();
        self.take(&found)
    }

    /// Takes over what was found. A name without addresses may be a short failure of DNS: its
    /// known ones stay.
    fn take(&self, found: &[(usize, SocketAddr)]) -> Result<(), TargetError> {
        let mut known = self.known();
        let has = |target: usize| found.iter().any(|(index, _)| *index == target);
        known
            .replicas
            .retain(|key, _| found.contains(key) || !has(key.0));
        for (index, address) in found {
            if let std::collections::hash_map::Entry::Vacant(place) =
                known.replicas.entry((*index, *address))
            {
                place.insert(Arc::new(Replica::new(
                    self.targets[*index].channel_to(*address)?,
                )));
            }
        }
        known.at = (!known.replicas.is_empty()).then(Instant::now);
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KnownReplica> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            calls: AtomicUsize::new(0),
            failed: Mutex::default(),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn rests(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < REST)
    }

    /// Begins a call.
    pub(crate) fn call(self: &Arc<Self>) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call {
            replica: Arc::clone(self),
            is_answered: false,
        }
    }
}

impl Call {
    pub(crate) fn channel(&self) -> Channel {
        self.replica.channel.clone()
    }

    /// Notes that the replica is there, whatever it answered.
    pub(crate) fn note_answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.replica.calls.fetch_sub(1, Ordering::Relaxed);
        let failed = (!self.is_answered).then(Instant::now);
        *self
            .replica
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = failed;
    }
}
