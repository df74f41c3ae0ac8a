//! One viewer: what it is told, for as long as it may look and reads.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use super::permits::Permit;
use super::topics::{Subscription, TopicState};
use super::{Live, LiveBody, Watcher, frame};
use crate::reply::{PageError, Reply};

/// Interval at which it is asked whether the viewer may still look. It gets a sign of life then, by
/// the lack of which a browser notices that a connection is gone.
const BEAT: Duration = Duration::from_secs(5);

/// Longest time for a viewer to read a frame.
const READ_WITHIN: Duration = Duration::from_secs(15);

/// Longest life of a stream. The browser opens another one, and says what it has.
const STREAM: Duration = Duration::from_mins(8);

/// Frames between here and the browser.
const ON_THE_WAY: usize = 2;

/// Answers with a stream: what was missed, and what the topic tells.
pub(super) fn answer(
    live: &Live,
    watcher: Watcher,
    permit: Permit,
    subscription: Subscription,
    missed: impl Future<Output = Result<Option<Bytes>, PageError>> + Send + 'static,
) -> Result<Reply, PageError> {
    let (to, frames) = mpsc::channel(ON_THE_WAY);
    let viewer = Viewer {
        watcher,
        to,
        _permit: permit,
    };
    let draining = live.shutdown.draining();
    live.shutdown.spawn_detached(async move {
        let watching = viewer.watch(subscription, missed);
        let watching = timeout(STREAM, watching);
        draining.run_until_cancelled(watching).await;
    });
    Ok(Reply::Live(LiveBody::Live(frames)))
}

struct Viewer {
    watcher: Watcher,
    to: mpsc::Sender<Bytes>,
    _permit: Permit,
}

impl Viewer {
    /// Tells the viewer until it is gone, or must not look any more.
    async fn watch(
        &self,
        subscription: Subscription,
        missed: impl Future<Output = Result<Option<Bytes>, PageError>> + Send,
    ) {
        let Subscription {
            mut frames,
            mut state,
        } = subscription;
        if !self.tell(frame::hello()).await {
            return;
        }
        // What happens from then on comes from the topic, and what was before is looked up.
        let Ok(Some(first)) = timeout(BEAT * 2, begun(&mut state)).await else {
            return;
        };
        let Ok(missed) = missed.await else { return };
        for frame in first.into_iter().chain(missed) {
            if !self.tell(frame).await {
                return;
            }
        }
        let mut beats = interval(BEAT);
        loop {
            let next = tokio::select! {
                next = frames.recv() => match next {
                    Ok(frame) => frame,
                    Err(RecvError::Lagged(_)) => frame::behind(),
                    Err(RecvError::Closed) => return,
                },
                _ = beats.tick() => frame::beat(),
                () = self.to.closed() => return,
            };
            if !self.tell(next).await {
                return;
            }
        }
    }

    /// Sends a frame, if the viewer may have it and takes it. Returns whether to go on.
    async fn tell(&self, frame: Bytes) -> bool {
        if !(self.watcher.is_let)() {
            let _ = timeout(READ_WITHIN, self.to.send(frame::end())).await;
            return false;
        }
        matches!(timeout(READ_WITHIN, self.to.send(frame)).await, Ok(Ok(())))
    }
}

/// Waits until the topic has begun, and returns what it has for who comes now.
async fn begun(state: &mut watch::Receiver<TopicState>) -> Option<Option<Bytes>> {
    let begun = state.wait_for(|state| matches!(state, TopicState::Runs(_)));
    match &*begun.await.ok()? {
        TopicState::Runs(first) => Some(first.clone()),
        TopicState::Begins => None,
    }
}
