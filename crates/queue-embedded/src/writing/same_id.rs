//! Facts about events that share a key, changed in the writer's groups: a delivery needs two such
//! changes, and each shares the fsync of what is written anyway.

use std::sync::Arc;

use event_model::{Bytes, EventId, FluentKey, Timestamp};
use queue::QueueError;
use queue::same_id::{self, Claim, GrantedClaim};
use sqlite_file::{Job, reading};
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::stores::same_ids;
use crate::writing::job::{QueueJobs, Store};

/// Function from a fact's value to an answer and the fact's new value, if it changes.
type Decide<T> = Box<dyn Fn(Option<&[u8]>) -> (T, Option<Bytes>) + Send>;

/// Changes one fact depending on its value.
struct ChangeMark<T> {
    name: String,
    decide: Decide<T>,
    answer: Option<T>,
    /// True if the change is to be written even if nobody waits for it any more.
    is_a_fact: bool,
    reply: oneshot::Sender<Result<Option<T>, QueueError>>,
}

impl<T: Send> Job<QueueJobs> for ChangeMark<T> {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        let found = same_ids::get(store.sql, &self.name)?;
        let (answer, change) = (self.decide)(found.as_deref());
        self.answer = Some(answer);
        change.map_or(Ok(()), |value| {
            same_ids::set(store.sql, &self.name, &value, store.age)
        })
    }

    fn wakes_reader(&self) -> bool {
        false
    }

    fn is_given_up(&self) -> bool {
        !self.is_a_fact && self.reply.is_closed()
    }

    fn is_a_promise(&self) -> bool {
        true
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let Self { answer, reply, .. } = *self;
        let _ = reply.send(committed.map(|()| answer));
    }
}

async fn change<T: Send + 'static>(
    shared: &Arc<Shared>,
    name: String,
    is_a_fact: bool,
    decide: Decide<T>,
) -> Result<T, QueueError> {
    let (reply, answer) = oneshot::channel();
    shared.submit(ChangeMark {
        name,
        decide,
        answer: None,
        is_a_fact,
        reply,
    });
    answer
        .await
        .ok()
        .transpose()?
        .flatten()
        .ok_or(QueueError::Closed)
}

pub(crate) async fn claim(
    shared: &Arc<Shared>,
    (key, route): (FluentKey, &str),
    id: EventId,
    now_until: (Timestamp, Timestamp),
) -> Result<Claim, QueueError> {
    let decide = move |found: Option<&[u8]>| same_id::decide_claim(found, id, now_until);
    change(shared, same_id::name(key, route), false, Box::new(decide)).await
}

pub(crate) async fn release(
    shared: &Arc<Shared>,
    (key, route): (FluentKey, &str),
    id: EventId,
    granted: GrantedClaim,
) -> Result<(), QueueError> {
    let decide = move |found: Option<&[u8]>| ((), same_id::decide_release(found, id, granted));
    change(shared, same_id::name(key, route), true, Box::new(decide)).await
}

pub(crate) async fn note_delivered(
    shared: &Arc<Shared>,
    (key, route): (FluentKey, &str),
    id: EventId,
) -> Result<(), QueueError> {
    let decide = move |_: Option<&[u8]>| ((), Some(same_id::delivered(id)));
    change(shared, same_id::name(key, route), true, Box::new(decide)).await
}

/// Reads on the writer's connection, since the other ones may be busy with a person's search.
pub(crate) async fn find_delivered(
    shared: &Arc<Shared>,
    (key, route): (FluentKey, &str),
) -> Result<Option<EventId>, QueueError> {
    let (reply, answer) = oneshot::channel();
    let name = same_id::name(key, route);
    shared.inbox.read(move |sql| {
        let found = same_ids::get(sql, &name).map_err(reading);
        let _ =
            reply.send(found.map(|found| found.and_then(|found| same_id::delivered_of(&found))));
    });
    answer.await.unwrap_or(Err(QueueError::Closed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use event_model::{Clock, SystemClock, Timestamp};
    use queue::conformance::event;
    use queue::same_id::Claim;
    use queue::{Lifecycle, Source};
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use crate::{Embedded, Options};

    /// Version of the file, which changes whenever another connection than the writer's has
    /// written.
    async fn written_by_others(queue: &Embedded) -> i64 {
        let (reply, answer) = oneshot::channel();
        queue.shared.inbox.read(move |sql| {
            let _ = reply.send(
                sql.pragma_query_value(None, "data_version", |row| row.get(0))
                    .unwrap(),
            );
        });
        answer.await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn marks_are_written_by_the_writer_and_wait_for_nobody_who_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let queue = Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap();
        let before = written_by_others(&queue).await;
        // A long read begins.
        let (done, until_done) = channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let long = queue.beside.read(move |_| {
            let _ = begun.send(());
            let _ = until_done.recv();
            Ok(())
        });
        has_begun.await.unwrap();
        let event = event("E", "o");
        let now = SystemClock.now();
        let key = event.fluent_key();
        let id = event.id();
        let until = now
            .saturating_add(Duration::from_mins(1))
            .unwrap_or(Timestamp::MAX);
        let marking = async {
            assert_eq!(queue.same_id_delivered(key, "r").await.unwrap(), None);
            let claim = queue
                .claim_same_id(key, "r", id, (now, until))
                .await
                .unwrap();
            let Claim::Granted(granted) = claim else {
                panic!("{claim:?}")
            };
            queue.release_same_id(key, "r", id, granted).await.unwrap();
            queue.note_same_id_delivered(key, "r", id).await.unwrap();
            assert_eq!(queue.same_id_delivered(key, "r").await.unwrap(), Some(id));
        };
        timeout(Duration::from_secs(60), marking)
            .await
            .expect("nobody waits for who reads");
        assert_eq!(
            written_by_others(&queue).await,
            before,
            "nothing for others to notice"
        );
        drop(done);
        long.await.unwrap();
        queue.close().await;
    }
}
