//! The time that may be compared.

use std::time::Duration;

use event_model::Timestamp;
use queue::facts::{keep_spool, spools};
use queue::{FactStore, SpoolWatermark};
use serde::Serialize;

use crate::error::{ReconcileError, Undrained};

/// Largest difference between Fluent's clock and ours, and the longest delay of its log.
pub(crate) const SKEW: Duration = Duration::from_mins(10);

/// Time after which an event has arrived, if it ever will: Fluent tries for 14 s, and then it is
/// in a spool.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);

/// Part of Fluent's log after which it is checked whether enough was read: of an hour, only keys
/// of a few bytes each are kept.
const CHUNK: Duration = Duration::from_hours(1);

/// Part of Fluent's log that is requested at once: a few pages.
const SLICE: Duration = Duration::from_mins(10);

/// A span of time, by Fluent's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Begin, included.
    pub from: Timestamp,
    /// End, excluded.
    pub until: Timestamp,
}

impl Window {
    /// Whether it has no length.
    pub fn is_empty(&self) -> bool {
        self.from >= self.until
    }

    /// Whether a record of this time belongs here. A record without a time does, since it was
    /// found here.
    pub(crate) fn has(&self, at: Option<Timestamp>) -> bool {
        at.is_none_or(|at| self.from <= at && at < self.until)
    }

    /// Splits it into hours, in order.
    pub(crate) fn chunks(self) -> impl Iterator<Item = Self> {
        self.pieces(CHUNK)
    }

    /// Splits it into the slices in which the log is requested, in order.
    pub(crate) fn slices(self) -> impl Iterator<Item = Self> {
        self.pieces(SLICE)
    }

    fn pieces(self, length: Duration) -> impl Iterator<Item = Self> {
        let mut from = self.from;
        std::iter::from_fn(move || {
            let until = later(from, length).min(self.until);
            let piece = Self { from, until };
            from = until;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// Splits it into halves, unless it is as short as Fluent's times can tell apart.
    pub(crate) fn halves(self) -> Option<[Self; 2]> {
        let length = Duration::try_from(self.until.duration_since(self.from)).unwrap_or_default();
        let middle = later(self.from, length / 2);
        let halves = [
            Self {
                until: middle,
                ..self
            },
            Self {
                from: middle,
                ..self
            },
        ];
        (length > Duration::from_secs(1)).then_some(halves)
    }
}

pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

pub(crate) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

/// Fails for a time of which a spool may hold events that can't be seen here. Keeps the facts of
/// such spools.
pub(crate) async fn ensure_drained(
    facts: &dyn FactStore,
    window: Window,
) -> Result<(), ReconcileError> {
    let needed = later(window.until, ARRIVES_WITHIN);
    let all = spools(facts).await?;
    let behind: Vec<_> = all
        .into_iter()
        .filter(|(_, mark)| !mark.is_drained_to(needed))
        .collect();
    // Facts are forgotten after a time. Whether a spool will never come back only a person can
    // say.
    for (id, _) in &behind {
        keep_spool(facts, id).await?;
    }
    match behind.into_iter().next() {
        None => Ok(()),
        Some((
            id,
            SpoolWatermark {
                host, drained_to, ..
            },
        )) => Err(ReconcileError::NotDrained(Undrained {
            id,
            host,
            drained_to,
        })),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use event_model::Bytes;
    use futures::FutureExt;
    use futures::future::{BoxFuture, ready};
    use queue::{Fact, QueueError};

    use super::*;

    /// A spool that is closed, or given up, just after its state was read.
    #[derive(Debug, Default)]
    struct Moving {
        facts: Mutex<BTreeMap<String, (Bytes, u64)>>,
        then: Option<SpoolWatermark>,
    }

    const NAME: &str = "spool.a";

    impl Moving {
        fn read_as(now: &SpoolWatermark, then: Option<SpoolWatermark>) -> Self {
            let moving = Self {
                then,
                ..Self::default()
            };
            moving.put(NAME, serde_json::to_vec(now).unwrap().into());
            moving
        }

        fn put(&self, name: &str, value: Bytes) {
            let mut facts = self.facts.lock().unwrap();
            let version = facts.get(name).map_or(1, |(_, version)| version + 1);
            facts.insert(name.to_owned(), (value, version));
        }

        fn stands(&self) -> Option<SpoolWatermark> {
            self.facts
                .lock()
                .unwrap()
                .get(NAME)
                .map(|(value, _)| serde_json::from_slice(value).unwrap())
        }
    }

    fn done<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, QueueError>> {
        ready(Ok(value)).boxed()
    }

    impl FactStore for Moving {
        fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, QueueError>> {
            done(
                self.facts
                    .lock()
                    .unwrap()
                    .get(name)
                    .map(|(value, _)| value.clone()),
            )
        }

        fn set<'a>(&'a self, name: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), QueueError>> {
            self.put(name, value);
            done(())
        }

        fn get_versioned<'a>(
            &'a self,
            name: &'a str,
        ) -> BoxFuture<'a, Result<Option<(Bytes, u64)>, QueueError>> {
            done(self.facts.lock().unwrap().get(name).cloned())
        }

        fn compare_and_set<'a>(
            &'a self,
            name: &'a str,
            value: Bytes,
            version: u64,
        ) -> BoxFuture<'a, Result<bool, QueueError>> {
            let known = self
                .facts
                .lock()
                .unwrap()
                .get(name)
                .map_or(0, |(_, version)| *version);
            if known == version {
                self.put(name, value);
            }
            done(known == version)
        }

        fn entries<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Fact>, QueueError>> {
            let facts = self.facts.lock().unwrap().clone();
            match &self.then {
                Some(then) => self.put(NAME, serde_json::to_vec(then).unwrap().into()),
                None => self.facts.lock().unwrap().clear(),
            }
            let entry = |(name, (value, _))| Fact {
                name,
                value,
                set_at: Timestamp::UNIX_EPOCH,
            };
            done(facts.into_iter().map(entry).collect())
        }

        fn now(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
            done(Timestamp::UNIX_EPOCH)
        }

        fn unset<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
            self.facts.lock().unwrap().remove(name);
            done(())
        }
    }

    #[tokio::test]
    async fn a_spool_that_is_closed_or_given_up_meanwhile_stays_so() {
        let behind = SpoolWatermark {
            host: "here".to_owned(),
            drained_to: Timestamp::UNIX_EPOCH,
            is_closed: false,
        };
        let closed = SpoolWatermark {
            is_closed: true,
            ..behind.clone()
        };
        for then in [Some(closed), None] {
            let facts = Moving::read_as(&behind, then.clone());
            // It was behind when its state was read.
            let refused = ensure_drained(&facts, window("08:00:00", "09:00:00")).await;
            assert!(
                matches!(refused, Err(ReconcileError::NotDrained(_))),
                "{refused:?}"
            );
            assert_eq!(facts.stands(), then);
        }
        let facts = Moving::read_as(&behind, Some(behind.clone()));
        let before = facts.facts.lock().unwrap()[NAME].1;
        ensure_drained(&facts, window("08:00:00", "09:00:00"))
            .await
            .unwrap_err();
        assert!(
            facts.facts.lock().unwrap()[NAME].1 > before + 1,
            "it is not forgotten in time"
        );
    }

    fn window(from: &str, until: &str) -> Window {
        let at = |time| format!("2026-11-25T{time}Z").parse().unwrap();
        Window {
            from: at(from),
            until: at(until),
        }
    }

    #[test]
    fn slices_follow_each_other_to_the_end() {
        let slices: Vec<_> = window("08:00:00", "08:25:00").slices().collect();
        let expected = [
            ("08:00:00", "08:10:00"),
            ("08:10:00", "08:20:00"),
            ("08:20:00", "08:25:00"),
        ];
        assert_eq!(slices, expected.map(|(from, until)| window(from, until)));
        assert_eq!(window("08:00:00", "08:00:00").slices().count(), 0);
        assert_eq!(window("09:00:00", "08:00:00").slices().count(), 0);
    }

    #[test]
    fn a_record_belongs_to_one_slice() {
        let at = Some("2026-11-25T08:10:00Z".parse().unwrap());
        let slices: Vec<_> = window("08:00:00", "08:20:00").slices().collect();
        assert_eq!(
            slices.iter().map(|slice| slice.has(at)).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn a_second_is_not_halved() {
        let halves = window("08:00:00", "08:00:10").halves();
        assert_eq!(
            halves,
            Some([
                window("08:00:00", "08:00:05"),
                window("08:00:05", "08:00:10")
            ])
        );
        assert_eq!(window("08:00:00", "08:00:01").halves(), None);
    }
}
