//! Feeds: what is read once for all who look at the same. A feed begins with its first viewer, and
//! ends soon after its last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use process::Shutdown;
use tokio::sync::{broadcast, watch};

/// Frames that wait for a viewer. One who is further behind is told so.
const WAITING: usize = 16;

/// The feeds of a console, by what they are about. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Feeds {
    table: Arc<Mutex<HashMap<String, Arc<Feed>>>>,
    shutdown: Shutdown,
}

#[derive(Debug)]
struct Feed {
    frames: broadcast::Sender<Bytes>,
    state: watch::Sender<FeedState>,
}

/// How far a feed is.
#[derive(Clone, Debug)]
pub(super) enum FeedState {
    /// It is about to begin.
    Begins,
    /// Whatever happens from now on is told. The frame is for who comes now, if there is one.
    Runs(Option<Bytes>),
}

/// One viewer's part of a feed.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) frames: broadcast::Receiver<Bytes>,
    pub(super) state: watch::Receiver<FeedState>,
}

impl Feeds {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            table: Arc::default(),
            shutdown,
        }
    }

    /// Joins the feed about this, which `work` makes if there is none.
    pub(super) fn join<W: Future<Output = ()> + Send + 'static>(
        &self,
        about: &str,
        work: impl FnOnce(Publisher) -> W,
    ) -> Subscription {
        let mut table = self.lock();
        if let Some(feed) = table.get(about) {
            return feed.subscribe();
        }
        let feed = Arc::new(Feed {
            frames: broadcast::channel(WAITING).0,
            state: watch::channel(FeedState::Begins).0,
        });
        let subscription = feed.subscribe();
        table.insert(about.to_owned(), Arc::clone(&feed));
        let publisher = Publisher {
            feeds: self.clone(),
            about: about.to_owned(),
            feed,
        };
        let draining = self.shutdown.draining();
        let work = work(publisher);
        self.shutdown.spawn_detached(async move {
            draining.run_until_cancelled(work).await;
        });
        subscription
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Feed>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    fn subscribe(&self) -> Subscription {
        Subscription {
            frames: self.frames.subscribe(),
            state: self.state.subscribe(),
        }
    }
}

/// The side of a feed that tells. Its drop ends the feed: whoever looks comes back to a new one.
#[derive(Debug)]
pub(super) struct Publisher {
    feeds: Feeds,
    about: String,
    feed: Arc<Feed>,
}

impl Publisher {
    /// Says that the feed has begun, or what somebody who comes now has to know.
    pub(super) fn runs(&self, first: Option<Bytes>) {
        self.feed.state.send_replace(FeedState::Runs(first));
    }

    pub(super) fn tell(&self, frame: Bytes) {
        // Nobody looks: this is found out below.
        let _ = self.feed.frames.send(frame);
    }

    /// True if nobody looks any more. Then the feed has ended, and whoever comes begins another.
    pub(super) fn is_over(&self) -> bool {
        let mut table = self.feeds.lock();
        let is_alone = self.feed.frames.receiver_count() == 0;
        if is_alone {
            self.remove(&mut table);
        }
        is_alone
    }

    fn remove(&self, table: &mut HashMap<String, Arc<Feed>>) {
        let is_own = |feed: &Arc<Feed>| Arc::ptr_eq(feed, &self.feed);
        if table.get(&self.about).is_some_and(is_own) {
            table.remove(&self.about);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut table = self.feeds.lock();
        self.remove(&mut table);
    }
}
