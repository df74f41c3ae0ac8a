//! Topics: what is read once for all who look at the same. A topic begins with its first viewer, and
//! ends soon after its last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use process::Shutdown;
use tokio::sync::{broadcast, watch};

/// Frames that wait for a viewer. One who is further behind is told so.
const WAITING: usize = 16;

/// The topics of a console, by what they are about. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    table: Arc<Mutex<HashMap<String, Arc<Topic>>>>,
    shutdown: Shutdown,
}

#[derive(Debug)]
struct Topic {
    frames: broadcast::Sender<Bytes>,
    state: watch::Sender<TopicState>,
}

/// How far a topic is.
#[derive(Clone, Debug)]
pub(super) enum TopicState {
    /// It is about to begin.
    Begins,
    /// Whatever happens from now on is told. The frame is for who comes now, if there is one.
    Runs(Option<Bytes>),
}

/// One viewer's part of a topic.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) frames: broadcast::Receiver<Bytes>,
    pub(super) state: watch::Receiver<TopicState>,
}

impl Topics {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            table: Arc::default(),
            shutdown,
        }
    }

    /// Joins the topic about this, which `work` makes if there is none.
    pub(super) fn join<W: Future<Output = ()> + Send + 'static>(
        &self,
        about: &str,
        work: impl FnOnce(Publisher) -> W,
    ) -> Subscription {
        let mut table = self.lock();
        if let Some(topic) = table.get(about) {
            return topic.subscribe();
        }
        let topic = Arc::new(Topic {
            frames: broadcast::channel(WAITING).0,
            state: watch::channel(TopicState::Begins).0,
        });
        let subscription = topic.subscribe();
        table.insert(about.to_owned(), Arc::clone(&topic));
        let publisher = Publisher {
            topics: self.clone(),
            about: about.to_owned(),
            topic,
        };
        let draining = self.shutdown.draining();
        let work = work(publisher);
        self.shutdown.spawn_detached(async move {
            draining.run_until_cancelled(work).await;
        });
        subscription
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Topic>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    fn subscribe(&self) -> Subscription {
        Subscription {
            frames: self.frames.subscribe(),
            state: self.state.subscribe(),
        }
    }
}

/// The side of a topic that tells. Its drop ends the topic: whoever looks comes back to a new one.
#[derive(Debug)]
pub(super) struct Publisher {
    topics: Topics,
    about: String,
    topic: Arc<Topic>,
}

impl Publisher {
    /// Says that the topic has begun, or what somebody who comes now has to know.
    pub(super) fn runs(&self, first: Option<Bytes>) {
        self.topic.state.send_replace(TopicState::Runs(first));
    }

    pub(super) fn tell(&self, frame: Bytes) {
        // Nobody looks: this is found out below.
        let _ = self.topic.frames.send(frame);
    }

    /// True if nobody looks any more. Then the topic has ended, and whoever comes begins another.
    pub(super) fn is_over(&self) -> bool {
        let mut table = self.topics.lock();
        let is_alone = self.topic.frames.receiver_count() == 0;
        if is_alone {
            self.remove(&mut table);
        }
        is_alone
    }

    fn remove(&self, table: &mut HashMap<String, Arc<Topic>>) {
        let is_own = |topic: &Arc<Topic>| Arc::ptr_eq(topic, &self.topic);
        if table.get(&self.about).is_some_and(is_own) {
            table.remove(&self.about);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut table = self.topics.lock();
        self.remove(&mut table);
    }
}
