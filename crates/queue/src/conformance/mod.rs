//! The promises of every adapter, role by role, as tests against a real one.
//!
//! An adapter with all roles hands [`all`] a function that makes fresh [`Harness`]es; one that is
//! an intake alone, as a spool is, hands its [`IntakeHarness`]es to [`intake::all`] and
//! [`lifecycle::all`]. Times are real and leases short; each check has a store of its own.
//!
//! ```
//! use fluent_queue::conformance::{self, Harness, Queue};
//! use futures::future::{BoxFuture, FutureExt, ready};
//!
//! /// One store of ours, by the function that opens it.
//! #[derive(Debug)]
//! struct Store {
//!     /// `|| Queue::new(Arc::new(MyQueue::open(..)), Arc::new(MyStores::open(..)))`
//!     open: fn() -> Queue,
//!     /// The same, with the shortest retention there is.
//!     open_forgetful: fn() -> Queue,
//! }
//!
//! impl Harness for Store {
//!     fn open(&self) -> BoxFuture<'_, Queue> {
//!         ready((self.open)()).boxed()
//!     }
//!
//!     fn open_forgetful(&self) -> BoxFuture<'_, Queue> {
//!         ready((self.open_forgetful)()).boxed()
//!     }
//!
//!     fn crash<'a>(&'a self, queue: Queue) -> BoxFuture<'a, Queue> {
//!         // Nothing of it may be closed in an orderly way.
//!         std::mem::forget(queue);
//!         self.open()
//!     }
//!
//!     fn forget_attempts(&self) -> BoxFuture<'_, ()> {
//!         ready(()).boxed()
//!     }
//!
//!     fn damage_newest(&self) -> BoxFuture<'_, ()> {
//!         ready(()).boxed()
//!     }
//! }
//!
//! /// A test of the adapter: each check gets a store of its own.
//! async fn keeps_every_promise(new_store: fn() -> Store) {
//!     conformance::all(async || Box::new(new_store()) as Box<dyn Harness>).await;
//! }
//! ```

pub mod intake;
pub mod lifecycle;
pub mod source;
pub mod stores;
pub mod upstream;

mod samples;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};

use crate::{Intake, Lifecycle, Source, Stores, Upstream};

pub use samples::event;

/// A queue that is open, by its roles.
#[derive(Clone, Debug)]
pub struct Queue {
    upstream: Arc<dyn Upstream>,
    source: Arc<dyn Source>,
    stores: Arc<dyn Stores>,
}

impl Queue {
    /// Makes a queue of its roles and its stores.
    pub fn new<Q: Upstream + Source + 'static>(queue: Arc<Q>, stores: Arc<dyn Stores>) -> Self {
        Self {
            upstream: Arc::clone(&queue) as _,
            source: queue,
            stores,
        }
    }

    fn intake(&self) -> &dyn Intake {
        &*self.upstream
    }

    fn upstream(&self) -> &dyn Upstream {
        &*self.upstream
    }

    fn source(&self) -> &dyn Source {
        &*self.source
    }

    fn stores(&self) -> &dyn Stores {
        &*self.stores
    }

    fn lifecycle(&self) -> &dyn Lifecycle {
        &*self.upstream
    }
}

/// An open intake, and the stores in which everything that it stores is found in the end.
#[derive(Clone, Debug)]
pub struct OpenIntake {
    intake: Arc<dyn Intake>,
    lifecycle: Arc<dyn Lifecycle>,
    stores: Arc<dyn Stores>,
}

impl OpenIntake {
    /// Makes an open intake of `intake` and the stores of its queue, or of the queue behind it.
    pub fn new<I: Intake + Lifecycle + 'static>(intake: Arc<I>, stores: Arc<dyn Stores>) -> Self {
        Self {
            intake: Arc::clone(&intake) as _,
            lifecycle: intake,
            stores,
        }
    }
}

/// A store behind a queue, and the ways to come back to it.
pub trait Harness: fmt::Debug + Send + Sync {
    /// Opens the store for the first time.
    fn open(&self) -> BoxFuture<'_, Queue>;

    /// Opens the store for the first time, with a retention that removes at once what may be
    /// removed.
    fn open_forgetful(&self) -> BoxFuture<'_, Queue>;

    /// The store as the next process finds it after a kill: deliveries are still in flight, and
    /// nothing was closed.
    fn crash<'a>(&'a self, queue: Queue) -> BoxFuture<'a, Queue>;

    /// Empties the history of attempts, as retention does.
    fn forget_attempts(&self) -> BoxFuture<'_, ()>;

    /// Damages the stored body of the newest event: its id and its refs stay as they are. It may
    /// move to another position, behind all others.
    fn damage_newest(&self) -> BoxFuture<'_, ()>;
}

/// A store behind an intake, and the ways to come back to it.
pub trait IntakeHarness: fmt::Debug {
    /// Opens the store for the first time.
    fn open(&self) -> BoxFuture<'_, OpenIntake>;

    /// The store as the next process finds it after a kill.
    fn crash<'a>(&'a self, open: OpenIntake) -> BoxFuture<'a, OpenIntake>;
}

/// Runs the checks of every role against a fresh store each, and names the one that fails.
pub async fn all(fresh: impl AsyncFn() -> Box<dyn Harness>) {
    let as_intake = async || {
        let harness = fresh().await;
        Box::new(IntakeOf {
            harness,
            open: Mutex::default(),
        }) as Box<dyn IntakeHarness>
    };
    intake::all(as_intake).await;
    lifecycle::all(as_intake).await;
    upstream::all(&fresh).await;
    source::all(&fresh).await;
    stores::all(&fresh).await;
}

/// The intake of a whole queue.
#[derive(Debug)]
struct IntakeOf {
    harness: Box<dyn Harness>,
    open: Mutex<Option<Queue>>,
}

impl IntakeOf {
    fn keep(&self, queue: Queue) -> OpenIntake {
        let intake = Arc::clone(&queue.upstream) as _;
        let lifecycle = Arc::clone(&queue.upstream) as _;
        let stores = Arc::clone(&queue.stores);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue);
        OpenIntake {
            intake,
            lifecycle,
            stores,
        }
    }
}

impl IntakeHarness for IntakeOf {
    fn open(&self) -> BoxFuture<'_, OpenIntake> {
        self.harness.open().map(|queue| self.keep(queue)).boxed()
    }

    fn crash<'a>(&'a self, open: OpenIntake) -> BoxFuture<'a, OpenIntake> {
        let queue = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(open);
        let crashing = self.harness.crash(queue.expect("it is open"));
        crashing.map(|queue| self.keep(queue)).boxed()
    }
}

/// The lease that the checks ask for: what is held by who stands still for as long is lost.
pub const LEASE: Duration = Duration::from_secs(3);

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time for which something is watched that must not happen.
const QUIET: Duration = Duration::from_millis(300);

/// A check, and its name.
type Check<H> = (&'static str, for<'a> fn(&'a H) -> LocalBoxFuture<'a, ()>);

macro_rules! checks {
    ($harness:ty: $($($part:ident)::+,)*) => {{
        let checks: &[$crate::conformance::Check<$harness>] = &[$((
            stringify!($($part)::+),
            |harness| futures::FutureExt::boxed_local($($part)::+(harness)),
        )),*];
        checks
    }};
}
use checks;

/// Runs each check against a fresh store.
#[expect(clippy::print_stdout, reason = "a conformance run names its checks")]
async fn run<H: ?Sized>(role: &str, checks: &[Check<H>], fresh: impl AsyncFn() -> Box<H>) {
    for (name, check) in checks {
        println!("conformance: {role}: {}", name.replace(" :: ", "::"));
        check(&*fresh().await).await;
    }
}
