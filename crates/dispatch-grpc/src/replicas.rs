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

/// How long one that failed, or did not answer, is asked last: as long as it takes to
/// know that a machine is gone.
const REST: Duration = Duration::from_secs(5);

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Replicas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
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

/// One call to a replica, counted while it lasts. One that ends without an answer, by
/// its deadline for one, says that the replica had better rest.
#[derive(Debug)]
pub(crate) struct Call {
    replica: Arc<Replica>,
    is_answered: bool,
}

impl Replicas {
    /// Certificates that can't be read are an error now.
    pub(crate) fn new(targets: Vec<Target>) -> Result<Self, TargetError> {
        targets.iter().try_for_each(|target| target.channel().map(drop))?;
        Ok(Self(Arc::new(Inner { targets, known: Mutex::default(), looking: tokio::sync::Mutex::default() })))
    }

    /// The one to ask now, and after it those to ask if it can't be reached.
    pub(crate) async fn in_turn(&self) -> Result<Vec<Arc<Replica>>, TargetError> {
        let at = self.0.known().at;
        match at {
            None => self.0.look_up().await?,
            Some(at) if at.elapsed() >= FRESH => self.look_up_beside(),
            Some(_) => {}
        }
        let mut replicas: Vec<_> = self.0.known().replicas.values().cloned().collect();
        replicas.sort_by_cached_key(|replica| (replica.rests(), replica.calls(), fastrand::u32(..)));
        Ok(replicas)
    }

    /// Nobody waits for it where somebody is known.
    #[expect(clippy::disallowed_methods, reason = "it ends within the time of a lookup")]
    fn look_up_beside(&self) {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.look_up().await });
    }
}

impl Inner {
    /// One looks, the others wait for what it finds.
    async fn look_up(&self) -> Result<(), TargetError> {
        let before = self.known().at;
        let _looking = self.looking.lock().await;
        if self.known().at != before {
            return Ok(());
        }
        let lookups = self.targets.iter().enumerate().map(|(index, target)| async move {
            let looked_up = timeout(LOOKUP, lookup_host(target.authority())).await;
            let addresses: Vec<_> =
                looked_up.ok().and_then(Result::ok).into_iter().flatten().take(MAX_ADDRESSES).collect();
            addresses.into_iter().map(|address| (index, address)).collect::<Vec<_>>()
        });
        let found = futures::future::join_all(lookups).await.concat();
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

    /// Begins a call.
    pub(crate) fn call(self: &Arc<Self>) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call { replica: Arc::clone(self), is_answered: false }
    }
}

impl Call {
    pub(crate) fn channel(&self) -> Channel {
        self.replica.channel.clone()
    }

    /// Whatever it answered, it is there.
    pub(crate) fn was_answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.replica.calls.fetch_sub(1, Ordering::Relaxed);
        let failed = (!self.is_answered).then(Instant::now);
        *self.replica.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }
}
