//! The capacity of a dispatcher: no more deliveries at once than it can take now.

use std::sync::Arc;

use dispatch::watch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Number of deliveries that a dispatcher can take at once, if that changes.
#[derive(Debug)]
pub(crate) struct Capacity {
    now: Option<watch::Receiver<usize>>,
    /// All permits of the route, taken or not.
    concurrency: usize,
}

impl Capacity {
    pub(crate) fn new(now: Option<watch::Receiver<usize>>, concurrency: usize) -> Self {
        Self { now, concurrency }
    }

    /// Waits until there is capacity for one delivery, and keeps at most as many permits as there
    /// is capacity for. Meanwhile takes permits that become free. Cancel-safe.
    pub(crate) async fn bound(
        &mut self,
        free: &Arc<Semaphore>,
        places: &mut Vec<OwnedSemaphorePermit>,
    ) {
        let Some(now) = &mut self.now else { return };
        loop {
            let in_hand = self.concurrency.saturating_sub(places.len());
            let room = now.borrow_and_update().saturating_sub(in_hand);
            if room > 0 {
                return places.truncate(room);
            }
            tokio::select! {
                // The sender is gone: the capacity will not change any more.
                changed = now.changed() => if changed.is_err() { std::future::pending::<()>().await },
                place = Arc::clone(free).acquire_owned() => places.extend(place.ok()),
            }
        }
    }

    /// Waits until the capacity is smaller than the number of permits that are taken.
    pub(crate) async fn exceeded(&self, free: &Semaphore) {
        let Some(mut now) = self.now.clone() else {
            return std::future::pending().await;
        };
        let is_exceeded =
            |capacity: &usize| *capacity < self.concurrency - free.available_permits();
        if now.wait_for(is_exceeded).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn what_is_in_hand_counts_until_its_place_is_free() {
        let (say, now) = watch::channel(0);
        let free = Arc::new(Semaphore::new(4));
        let mut capacity = Capacity::new(Some(now), 4);
        let take = || {
            std::iter::from_fn(|| Arc::clone(&free).try_acquire_owned().ok()).collect::<Vec<_>>()
        };
        let mut places = take();
        assert!(
            capacity.bound(&free, &mut places).now_or_never().is_none(),
            "nobody is there"
        );
        say.send(2).unwrap();
        capacity.bound(&free, &mut places).await;
        assert_eq!(places.len(), 2);
        let in_hand = places.pop().unwrap();
        let mut rest = places;
        rest.extend(take());
        capacity.bound(&free, &mut rest).await;
        assert_eq!(rest.len(), 1, "one is in hand");
        say.send(1).unwrap();
        rest.extend(take());
        assert!(
            capacity.bound(&free, &mut rest).now_or_never().is_none(),
            "the room is taken"
        );
        drop(in_hand);
        capacity.bound(&free, &mut rest).await;
        assert_eq!(rest.len(), 1);
        assert!(capacity.exceeded(&free).now_or_never().is_none());
        say.send(0).unwrap();
        capacity.exceeded(&free).await;
    }
}
