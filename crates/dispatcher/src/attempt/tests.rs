//! Attempts with a lease that records what becomes of it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, OpenContext};
use event_model::{Event, EventId, FluentKey};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use queue::same_id::{Claim, GrantedClaim, decide_claim};
use queue::{
    Consumer, Disposition, QueueError, ReconciledPair, Route, Settlement, Source, StatusSource,
};
use settings::OnSameId;
use tokio::time::sleep;

use super::*;
use crate::testing::{FakeLease, LEASE, ScriptedDispatcher, TestClock, attempting};

async fn attempt(attempting: &AttemptRunner, lease: &FakeLease, deaths: u32) {
    let delivery = lease.delivery("a", deaths);
    let begun = BreakerAttempt::on(&attempting.breaker, delivery.event.id());
    attempting.run(delivery, begun).await;
}

#[tokio::test(start_paused = true)]
async fn no_lease_is_silent_for_more_than_a_third_of_it() {
    for (waits, records, takes) in [(3, 0, 9), (9, 0, 12), (9, 4, 25), (119, 0, 9), (200, 0, 25)] {
        let isolation = Isolation::default();
        let lease = FakeLease {
            records_in: Duration::from_secs(records),
            ..FakeLease::default()
        };
        let dispatcher = ScriptedDispatcher::done_after(Duration::from_secs(takes));
        let attempting = attempting(dispatcher, &isolation, &CancellationToken::new());
        let beside = isolation.enter(0).await;
        let leaves = async {
            sleep(Duration::from_secs(waits)).await;
            drop(beside);
        };
        tokio::join!(attempt(&attempting, &lease, 2), leaves);
        assert_eq!(
            lease.fate(|fate| fate.settled.len()),
            1,
            "after {waits} s, in {takes} s"
        );
        let silence = lease.longest_silence();
        assert!(
            silence <= LEASE / 3 + Duration::from_millis(10),
            "{silence:?} after {waits} s"
        );
    }
}

/// A clock that is set ahead by a year once somebody says so.
#[derive(Debug, Default)]
struct SetClock(AtomicBool);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        let year = Duration::from_hours(365 * 24);
        let ahead = if self.0.load(Ordering::Relaxed) {
            year
        } else {
            Duration::ZERO
        };
        TestClock.now().saturating_add(ahead).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_during_an_attempt_makes_no_dead_letter() {
    let clock = Arc::new(SetClock::default());
    let sets = Arc::clone(&clock);
    let dispatcher = ScriptedDispatcher::new(move |_| {
        sets.0.store(true, Ordering::Relaxed);
        let failed = DispatchError::transient("sending", "the destination is away");
        async { Err(failed) }
    });
    let attempting = AttemptRunner {
        clock,
        ..attempting(dispatcher, &Isolation::default(), &CancellationToken::new())
    };
    let lease = FakeLease::default();
    attempt(&attempting, &lease, 0).await;
    let disposition = lease.fate(|fate| fate.settled[0].disposition);
    assert!(
        matches!(disposition, Disposition::Again(_)),
        "{disposition:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_recorded_as_alone_in_time_is_not_attempted() {
    let isolation = Isolation::default();
    let lease = FakeLease {
        records_in: Duration::from_mins(1),
        ..FakeLease::default()
    };
    let dispatcher = ScriptedDispatcher::new(|_| async { panic!("it is not to be attempted") });
    attempt(
        &attempting(dispatcher, &isolation, &CancellationToken::new()),
        &lease,
        5,
    )
    .await;
    assert!(lease.fate(|fate| fate.is_given_back));
    assert!(lease.longest_silence() <= LEASE / 3);
}

/// A settlement that waits for room may take days. Its attempt has ended: a suspect of any route
/// can be alone.
#[tokio::test(start_paused = true)]
async fn a_settlement_that_waits_keeps_no_suspect_from_running_alone() {
    for deaths in [0, 2] {
        let isolation = Isolation::default();
        let lease = FakeLease {
            settles_in: Duration::from_hours(24),
            ..FakeLease::default()
        };
        let dispatcher = ScriptedDispatcher::done_after(Duration::from_secs(1));
        let attempting = attempting(dispatcher, &isolation, &CancellationToken::new());
        let suspect = async {
            sleep(Duration::from_secs(3)).await;
            assert_eq!(lease.fate(|fate| fate.settled.len()), 0);
            isolation.enter(5).await
        };
        tokio::select! {
            () = attempt(&attempting, &lease, deaths) => panic!("it is settled"),
            permit = suspect => {
                let permit = permit.expect("a suspect is not alone");
                assert!(permit.exclusive_until().is_some(), "after {deaths} deaths");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_proven_alone_is_a_dead_letter_that_says_so() {
    let isolation = Isolation::default();
    let lease = FakeLease::default();
    let dispatcher = ScriptedDispatcher::new(|_| async { panic!("it is not to be attempted") });
    let attempting = attempting(dispatcher, &isolation, &CancellationToken::new());
    let _handler = isolation.enter(0).await;
    attempt(&attempting, &lease, 5).await;
    let settled = lease.fate(|fate| fate.settled.pop()).unwrap();
    assert_eq!(settled.disposition, Disposition::Dead(DeadReason::Crash));
    let why = "the process died 5 times while this event was attempted; not proven alone";
    assert_eq!(settled.attempt.detail.as_deref(), Some(why));
}

/// It may have been on its way when the suspect began.
#[tokio::test(start_paused = true)]
async fn what_a_suspect_keeps_out_is_given_back_at_once() {
    let isolation = Isolation::default();
    let lease = FakeLease::default();
    let dispatcher = ScriptedDispatcher::new(|_| async { panic!("it is not to be attempted") });
    let attempting = attempting(dispatcher, &isolation, &CancellationToken::new());
    let _suspect = isolation.enter(2).await;
    let began = Instant::now();
    attempt(&attempting, &lease, 1).await;
    assert!(lease.fate(|fate| fate.is_given_back && fate.settled.is_empty()));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_run_alone_in_time_is() {
    let isolation = Isolation::default();
    let lease = FakeLease::default();
    let attempting = attempting(
        ScriptedDispatcher::done_after(Duration::ZERO),
        &isolation,
        &CancellationToken::new(),
    );
    let handler = isolation.enter(0).await;
    let ends = async {
        sleep(Duration::from_secs(90)).await;
        drop(handler);
    };
    tokio::join!(attempt(&attempting, &lease, 5), ends);
    let (disposition, alone) = lease.fate(|fate| (fate.settled[0].disposition, fate.alone.clone()));
    assert_eq!((disposition, alone), (Disposition::Done, vec![true, false]));
}

/// What runs until then may crash the process: the suspect has not begun, and must not be blamed.
#[tokio::test(start_paused = true)]
async fn a_suspect_that_waits_for_its_turn_has_not_begun_until_it_is_run() {
    for (others_end_after, alone) in [(90, vec![true, false]), (300, vec![false])] {
        let isolation = Isolation::default();
        let lease = FakeLease::default();
        let attempting = attempting(
            ScriptedDispatcher::done_after(Duration::ZERO),
            &isolation,
            &CancellationToken::new(),
        );
        let handler = isolation.enter(0).await;
        let others = async {
            sleep(Duration::from_secs(60)).await;
            assert!(lease.fate(|fate| fate.is_waiting), "it waits");
            sleep(Duration::from_secs(others_end_after - 60)).await;
            drop(handler);
        };
        tokio::join!(attempt(&attempting, &lease, 2), others);
        let begun = lease.fate(|fate| (fate.is_waiting, fate.alone.clone()));
        assert_eq!(begun, (false, alone), "exclusively, or beside others");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_alone_that_takes_long_goes_on_beside_others() {
    let isolation = Isolation::default();
    let lease = FakeLease::default();
    let dispatcher = ScriptedDispatcher::done_after(Duration::from_mins(10));
    let attempting = attempting(dispatcher, &isolation, &CancellationToken::new());
    let others = async {
        sleep(Duration::from_secs(1)).await;
        drop(isolation.enter(0).await);
        assert_eq!(
            lease.fate(|fate| fate.alone.clone()),
            [true, false],
            "recorded before"
        );
    };
    tokio::join!(attempt(&attempting, &lease, 2), others);
    assert_eq!(lease.fate(|fate| fate.settled.len()), 1);
}

/// Its exclusive time ends while the queue takes long to settle it: an attempt that begins then
/// may crash the process, and this one must not be blamed for that.
#[tokio::test(start_paused = true)]
async fn what_is_being_settled_is_not_blamed_for_what_comes_in_meanwhile() {
    let isolation = Isolation::default();
    let lease = FakeLease {
        settles_in: Duration::from_secs(20),
        ..FakeLease::default()
    };
    let attempting = attempting(
        ScriptedDispatcher::done_after(Duration::ZERO),
        &isolation,
        &CancellationToken::new(),
    );
    let others = async {
        sleep(Duration::from_secs(1)).await;
        drop(isolation.enter(0).await);
        assert_eq!(
            lease.fate(|fate| fate.settled.len()),
            0,
            "it is still being settled"
        );
        assert_eq!(
            lease.fate(|fate| fate.alone.clone()),
            [true, false],
            "and recorded as accompanied"
        );
    };
    tokio::join!(attempt(&attempting, &lease, 2), others);
    assert_eq!(lease.fate(|fate| fate.settled.len()), 1);
}

/// Returns how long the attempt takes to end once the process has to stop, a second after the
/// beginning.
async fn stops_in(lease: &FakeLease, beside: Option<Isolation>, deaths: u32) -> Duration {
    let isolation = beside.unwrap_or_default();
    let hard_stop = CancellationToken::new();
    let attempting = attempting(
        ScriptedDispatcher::done_after(Duration::ZERO),
        &isolation,
        &hard_stop,
    );
    let stop = async {
        sleep(Duration::from_secs(1)).await;
        hard_stop.cancel();
        Instant::now()
    };
    let ((), since) = tokio::join!(attempt(&attempting, lease, deaths), stop);
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_run_is_given_back_when_the_process_has_to_stop() {
    let isolation = Isolation::default();
    let lease = FakeLease::default();
    let _handler = isolation.enter(0).await;
    let took = stops_in(&lease, Some(isolation.clone()), 2).await;
    assert!(
        lease.fate(|fate| fate.is_given_back) && took < Duration::from_millis(10),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_settled_is_given_back_when_the_process_has_to_stop() {
    let slow = FakeLease {
        settles_in: Duration::from_secs(20),
        ..FakeLease::default()
    };
    let away = FakeLease {
        settles_in: Duration::from_secs(3),
        is_away: true,
        ..FakeLease::default()
    };
    for lease in [slow, away] {
        let took = stops_in(&lease, None, 0).await;
        assert!(lease.fate(|fate| fate.is_given_back));
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    let soon = FakeLease {
        settles_in: Duration::from_millis(1_100),
        ..FakeLease::default()
    };
    stops_in(&soon, None, 0).await;
    assert_eq!(
        soon.fate(|fate| fate.settled.len()),
        1,
        "it was being settled"
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_outlasts_its_lease_is_settled_once() {
    let isolation = Isolation::default();
    let lease = FakeLease::default();
    let dispatcher = ScriptedDispatcher::done_after(LEASE * 7);
    let attempting = attempting(dispatcher, &isolation, &CancellationToken::new());
    attempt(&attempting, &lease, 0).await;
    assert_eq!(lease.fate(|fate| fate.settled.len()), 1);
    assert!(!lease.fate(|fate| fate.is_given_back));
}

/// A destination that answers this.
#[derive(Debug)]
struct Answering(&'static [u8]);

impl Dispatcher for Answering {
    const KIND: &'static str = "answering";
    type Settings = serde_json::Value;

    async fn open(_: serde_json::Value, _: &OpenContext) -> Result<Self, BoxError> {
        Err("a test makes it".into())
    }

    async fn dispatch(&self, _: &Event, cx: &Context) -> Result<Done, DispatchError> {
        assert!(cx.answered(self.0));
        Ok(Done::with_status(200).remarking("its answer broke off"))
    }
}

/// Delivers to a destination with this answer, and notifies one that answers `told`.
async fn told_by(
    answer: &'static [u8],
    told: impl Fn() -> DispatchError + Send + Sync + 'static,
) -> Settlement {
    let isolation = Isolation::default();
    let lease = FakeLease::default();
    let no = ScriptedDispatcher::done_after(Duration::ZERO);
    let mut attempting = attempting(no, &isolation, &CancellationToken::new());
    attempting.dispatcher = AnyDispatcher::of(Answering(answer));
    attempting.then.on_success = Some(AnyDispatcher::of(ScriptedDispatcher::new(move |_| {
        let told = told();
        async { Err(told) }
    })));
    attempt(&attempting, &lease, 0).await;
    lease.fate(|fate| fate.settled.pop()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_which_nothing_can_be_told_does_not_undo_the_delivery() {
    // Also one that is JSON, and has not what is told.
    for answer in [
        "",
        "<html>",
        "\"text\"",
        "null",
        "5",
        "true",
        "[]",
        "{}",
        r#"{"id": 7}"#,
    ] {
        let cant_be_made = || DispatchError::permanent("filling in a template", "line 1");
        let settled = told_by(answer.as_bytes(), cant_be_made).await;
        assert_eq!(
            (settled.disposition, settled.attempt.status),
            (Disposition::Done, Some(200)),
            "{answer}"
        );
        let detail = settled.attempt.detail.unwrap();
        assert!(
            detail.starts_with("its answer broke off; delivered, and nobody was told"),
            "{answer}: {detail}"
        );
    }
}

/// What was posted back is part of an event's story.
#[tokio::test(start_paused = true)]
async fn what_a_hook_remarks_is_in_the_history() {
    let remarking = || {
        Some(AnyDispatcher::of(ScriptedDispatcher::new(|_| async {
            Ok(Done::default().remarking("posted `Ack` back to Fluent"))
        })))
    };
    for is_dead in [false, true] {
        let lease = FakeLease::default();
        let destination = ScriptedDispatcher::new(move |_| async move {
            match is_dead {
                true => Err(DispatchError::permanent("testing", "no")),
                false => Ok(Done::with_status(200)),
            }
        });
        let mut attempting = attempting(
            destination,
            &Isolation::default(),
            &CancellationToken::new(),
        );
        attempting.then.on_success = remarking();
        attempting.then.on_dead_letter = remarking();
        attempt(&attempting, &lease, 0).await;
        let settled = lease.fate(|fate| fate.settled.pop()).unwrap();
        let detail = settled.attempt.detail.unwrap();
        let hook = if is_dead {
            "on-dead-letter"
        } else {
            "on-success"
        };
        let expected = format!("{hook}: posted `Ack` back to Fluent");
        assert!(detail.ends_with(&expected), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_will_never_be_told_of_a_delivery_is_a_matter_for_a_person() {
    let refuses = || DispatchError::Permanent {
        action: "telling",
        status: Some(400),
        source: "no".into(),
    };
    assert_eq!(
        told_by(b"{}", refuses).await.disposition,
        Disposition::Dead(DeadReason::Permanent)
    );
}

/// A hook is notified of a dead letter before that is settled. The time that this takes must not
/// change what is settled: a letter without a notification, or a notification without a letter.
#[tokio::test(start_paused = true)]
async fn who_is_told_of_a_dead_letter_is_told_what_is_settled() {
    for (attempts, is_dead) in [(1, true), (2, false)] {
        let isolation = Isolation::default();
        let lease = FakeLease::default();
        let destination =
            ScriptedDispatcher::new(|_| async { Err(DispatchError::transient("testing", "away")) });
        let mut attempting = attempting(destination, &isolation, &CancellationToken::new());
        attempting.settings.retry.attempts = Some(attempts);
        let breaker = Arc::clone(&attempting.breaker);
        let told = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&told);
        attempting.then.on_dead_letter =
            Some(AnyDispatcher::of(ScriptedDispatcher::new(move |_| {
                // With an open breaker nothing becomes a dead letter, but this was decided before.
                for other in 0..20 {
                    let other = queue::conformance::event("a", &format!("other-{other}"));
                    BreakerAttempt::on(&breaker, other.id()).ended(true);
                }
                count.fetch_add(1, Ordering::Relaxed);
                async { Ok(Done::default()) }
            })));
        attempt(&attempting, &lease, 0).await;
        let settled = lease.fate(|fate| fate.settled.pop()).unwrap();
        assert_eq!(
            matches!(
                settled.disposition,
                Disposition::Dead(DeadReason::Exhausted)
            ),
            is_dead,
            "{settled:?}"
        );
        assert_eq!(told.load(Ordering::Relaxed), u32::from(is_dead));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expression_that_was_asked_is_not_asked_again() {
    use queue::{Condition, ConditionError};
    let when = Condition::parse("event.missing == 1").unwrap();
    let no_answer: ConditionError = when
        .holds(&queue::conformance::event("E", "a"))
        .unwrap_err();
    for (matched, is_delivered) in [
        (Some(Ok(())), true),
        (Some(Err(no_answer)), false),
        (None, false),
    ] {
        let isolation = Isolation::default();
        let lease = FakeLease::default();
        let done = ScriptedDispatcher::done_after(Duration::ZERO);
        let mut attempting = attempting(done, &isolation, &CancellationToken::new());
        attempting.settings.terms.when = Some(when.clone());
        let delivery = Delivery {
            matched: matched.clone(),
            ..lease.delivery("a", 0)
        };
        let begun = BreakerAttempt::on(&attempting.breaker, delivery.event.id());
        attempting.run(delivery, begun).await;
        let settled = lease.fate(|fate| fate.settled.pop()).unwrap();
        let expected = if is_delivered {
            Disposition::Done
        } else {
            Disposition::Dead(DeadReason::Undecided)
        };
        assert_eq!(settled.disposition, expected, "{matched:?}");
    }
}

/// A queue that has no room to note what was delivered.
#[derive(Debug)]
struct FullSource;

impl Source for FullSource {
    fn subscribe(&self, _: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>> {
        ready(Err(QueueError::Closed)).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        ready(Ok(())).boxed()
    }

    fn show_status(&self, _: StatusSource) {}

    fn reconciled_duplicate<'a>(
        &'a self,
        _: FluentKey,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<ReconciledPair>, QueueError>> {
        ready(Ok(None)).boxed()
    }

    fn same_id_delivered<'a>(
        &'a self,
        _: FluentKey,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<EventId>, QueueError>> {
        ready(Ok(None)).boxed()
    }

    fn claim_same_id<'a>(
        &'a self,
        _: FluentKey,
        _: &'a str,
        id: EventId,
        now_until: (Timestamp, Timestamp),
    ) -> BoxFuture<'a, Result<Claim, QueueError>> {
        ready(Ok(decide_claim(None, id, now_until).0)).boxed()
    }

    fn release_same_id<'a>(
        &'a self,
        _: FluentKey,
        _: &'a str,
        _: EventId,
        _: GrantedClaim,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        ready(Ok(())).boxed()
    }

    fn note_same_id_delivered<'a>(
        &'a self,
        _: FluentKey,
        _: &'a str,
        _: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        ready(Err(QueueError::Full)).boxed()
    }

    fn note_delivered<'a>(
        &'a self,
        _: FluentKey,
        _: &'a str,
        _: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        ready(Err(QueueError::Full)).boxed()
    }
}

/// Its destination has it: given back, it would be delivered once more.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_waits_for_its_note_is_settled_as_done_when_the_process_stops() {
    let lease = FakeLease::default();
    let hard_stop = CancellationToken::new();
    let done = ScriptedDispatcher::done_after(Duration::ZERO);
    let mut attempting = attempting(done, &Isolation::default(), &hard_stop);
    attempting.settings.same_id = OnSameId::Skip;
    let source: Arc<dyn Source> = Arc::new(FullSource);
    attempting.same_id = SameId::of(&attempting.settings, &source);
    let stops = async {
        sleep(Duration::from_hours(1)).await;
        assert!(
            lease.fate(|fate| fate.settled.is_empty()),
            "it waits for its note"
        );
        hard_stop.cancel();
    };
    tokio::join!(attempt(&attempting, &lease, 0), stops);
    let settled = lease
        .fate(|fate| fate.settled.pop())
        .expect("it is settled");
    assert_eq!(settled.disposition, Disposition::Done);
}
