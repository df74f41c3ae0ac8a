//! What changes while somebody looks: attempts as they end, and the numbers of the overview, as
//! server-sent events.
//!
//! ```text
//! operator ─▶ Topic, one for all who look at the same ─▶ viewer ─▶ LiveBody ─▶ EventSource
//!                                                       who it is, again and again
//! ```
//!
//! A topic works only while somebody looks. A viewer who does not read is let go, and one who comes
//! back says with `Last-Event-ID` what it has.

mod attempts;
mod body;
mod events;
mod frame;
mod overview;
mod permits;
mod topics;
mod viewer;

use std::fmt;
use std::sync::Arc;

use hyper::StatusCode;
use process::Shutdown;

pub(crate) use self::body::LiveBody;

use self::permits::{Permit, Permits};
use self::topics::Topics;
use crate::reply::{PageError, Reply};
use crate::router::Visit;

/// True while a viewer may go on: its session has not ended, and it may still read.
pub(crate) type IsLet = Arc<dyn Fn() -> bool + Send + Sync>;

/// Who looks.
#[derive(Clone)]
pub(crate) struct Watcher {
    /// What is the same for all streams of one browser. `None` where nobody signs in: all that
    /// look may come from one address then.
    pub(crate) name: Option<String>,
    pub(crate) is_let: IsLet,
    /// `Last-Event-ID`, from a browser that comes back.
    pub(crate) last_id: String,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

/// All that is live in one console. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    topics: Topics,
    permits: Permits,
    shutdown: Shutdown,
}

impl Live {
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        Self {
            topics: Topics::new(shutdown.clone()),
            permits: Permits::default(),
            shutdown,
        }
    }
}

impl Live {
    /// A permit for one more stream, before anything is begun for it.
    fn permit(&self, watcher: &Watcher) -> Result<Permit, PageError> {
        let permit = self.permits.take(watcher.name.as_deref());
        permit.ok_or_else(too_many)
    }
}

/// Attempts that a filter leaves, as they end.
pub(crate) async fn attempts(visit: Visit) -> Result<Reply, PageError> {
    attempts::open(visit).await
}

/// Events that a filter leaves, as they are accepted.
pub(crate) async fn events(visit: Visit) -> Result<Reply, PageError> {
    events::open(visit).await
}

/// The numbers of the overview.
pub(crate) async fn overview(visit: Visit) -> Result<Reply, PageError> {
    overview::open(visit).await
}

fn too_many() -> PageError {
    let words = "So many pages are live already. This one is not.";
    PageError::new(StatusCode::TOO_MANY_REQUESTS, words)
}
