//! Who can be asked: every address of every endpoint, the least busy first.
//!
//! tonic's own balancer keeps choosing one that refuses connections, since that is
//! never busy; here one that failed rests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use grpc::{Target, TargetError};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tonic::transport::Channel;

/// How long names are believed. Looked up beside the calls, but for the first time.
const FRESH: Duration = Duration::from_secs(10);

/// How long looking them up may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// How long one that failed is asked last.
const REST: Duration = Duration::from_secs(1);

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 64;

#[derive(Debug)]
pub(crate) struct Replicas {
    targets: Vec<Target>,
    known: Mutex<Known>,
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    at: Option<Instant>,
    replicas: HashMap<(usize, SocketAddr), Arc<Replica>>,
}

/// One process that can be asked.
#[derive(Debug)]
pub(crate) struct Replica {
    channel: Channel,
    calls: AtomicUsize,
    failed: Mutex<Option<Instant>>,
}

/// One call to a replica, counted while it lasts.
#[derive(Debug)]
pub(crate) struct Call(Arc<Replica>);

impl Replicas {
    /// Certificates that can't be read are an error now.
    pub(crate) fn new(targets: Vec<Target>) -> Result<Self, TargetError> {
        targets.iter().try_for_each(|target| target.channel().map(drop))?;
        Ok(Self { targets, known: Mutex::default(), looking: tokio::sync::Mutex::default() })
    }

    /// The one to ask now, and after it those to ask if it can't be reached.
    pub(crate) async fn in_turn(&self) -> Result<Vec<Arc<Replica>>, TargetError> {
        self.look_up().await?;
        let mut replicas: Vec<_> = self.known().replicas.values().cloned().collect();
        replicas.sort_by_cached_key(|replica| (replica.rests(), replica.calls(), fastrand::u32(..)));
        Ok(replicas)
    }

    async fn look_up(&self) -> Result<(), TargetError> {
        let at = self.known().at;
        if at.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(());
        }
        // One looks; the others go on with what is known, if anything is.
        let _looking = match (self.looking.try_lock(), at) {
            (Ok(looking), _) => looking,
            (Err(_), Some(_)) => return Ok(()),
            (Err(_), None) => self.looking.lock().await,
        };
        if self.known().at != at {
            return Ok(());
        }
        let mut found = Vec::new();
        for (index, target) in self.targets.iter().enumerate() {
            let looked_up = timeout(LOOKUP, lookup_host(target.authority())).await;
            let addresses = looked_up.ok().and_then(Result::ok).into_iter().flatten();
            found.extend(addresses.take(MAX_ADDRESSES).map(|address| (index, address)));
        }
        self.take(&found)
    }

    /// A name without addresses may be a moment of the DNS: what was known stays.
    fn take(&self, found: &[(usize, SocketAddr)]) -> Result<(), TargetError> {
        let mut known = self.known();
        let has = |target: usize| found.iter().any(|(index, _)| *index == target);
        known.replicas.retain(|key, _| found.contains(key) || !has(key.0));
        for (index, address) in found {
            if let std::collections::hash_map::Entry::Vacant(place) = known.replicas.entry((*index, *address))
            {
                place.insert(Arc::new(Replica::new(self.targets[*index].channel_to(*address)?)));
            }
        }
        known.at = (!known.replicas.is_empty()).then(Instant::now);
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    fn new(channel: Channel) -> Self {
        Self { channel, calls: AtomicUsize::new(0), failed: Mutex::default() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn rests(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < REST)
    }

    /// Says whether the connection held.
    pub(crate) fn held(&self, held: bool) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = (!held).then(Instant::now);
    }

    /// Begins a call.
    pub(crate) fn call(self: &Arc<Self>) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call(Arc::clone(self))
    }
}

impl Call {
    pub(crate) fn channel(&self) -> Channel {
        self.0.channel.clone()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
