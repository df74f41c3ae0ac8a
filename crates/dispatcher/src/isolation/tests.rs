//! Suspects and others, with a clock that the test controls.

use std::sync::Mutex as StdMutex;

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Times at which a delivery that is no suspect was kept out.
#[derive(Clone, Debug, Default)]
struct KeptOut(Arc<StdMutex<Vec<(Instant, Instant)>>>);

impl KeptOut {
    /// Asks for a permit again and again, and gives it back at once.
    async fn watch(self, isolation: Isolation) {
        loop {
            let asked = Instant::now();
            drop(isolation.enter(0).await);
            if asked.elapsed() > Duration::ZERO {
                self.0.lock().unwrap().push((asked, Instant::now()));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns the longest time that others were kept out in any ten minutes.
    fn most(&self) -> Duration {
        let spans = self.0.lock().unwrap();
        let from = |begin: Instant| {
            let end = begin + Duration::from_mins(10);
            let within = spans.iter().filter(|(from, _)| (begin..end).contains(from));
            within.map(|(from, to)| *to.min(&end) - *from).sum()
        };
        spans
            .iter()
            .map(|(begin, _)| from(*begin))
            .max()
            .unwrap_or_default()
    }
}

/// Runs something that takes this long, and lets others in when its exclusive time is over.
/// Returns whether it ran exclusively; `None` if it was not run.
async fn run(isolation: &Isolation, crash_count: u32, takes: Duration) -> Option<bool> {
    let mut permit = isolation.enter(crash_count).await.ok()?;
    let ends = Instant::now() + takes;
    let was_exclusive = permit.exclusive_until();
    if let Some(until) = was_exclusive {
        sleep_until(until.min(ends)).await;
        permit.downgrade();
    }
    sleep_until(ends).await;
    Some(was_exclusive.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_suspect_runs_alone_once_nothing_else_runs() {
    let isolation = Isolation::default();
    let beside = isolation.enter(0).await.unwrap();
    let leaves = async {
        sleep(3 * SECOND).await;
        drop(beside);
    };
    let (permit, ()) = tokio::join!(isolation.enter(2), leaves);
    let mut permit = permit.unwrap();
    assert!(permit.exclusive_until().is_some());
    assert!(
        timeout(3 * SECOND, isolation.enter(1)).await.is_err(),
        "nobody runs beside it"
    );
    permit.downgrade();
    assert!(timeout(SECOND, isolation.enter(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_forgets_to_let_others_in_keeps_them_out_no_longer() {
    let isolation = Isolation::default();
    let suspect = isolation.enter(2).await.unwrap();
    assert!(
        timeout(ALONE_FOR + RELEASE_WITHIN + SECOND, isolation.enter(0))
            .await
            .is_ok()
    );
    assert!(suspect.exclusive_until().is_none());
    drop(suspect);
    assert_eq!(isolation.lock().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_gives_up_waiting_lets_others_in() {
    let isolation = Isolation::default();
    let beside = isolation.enter(0).await;
    assert!(
        timeout(SECOND, isolation.enter(2)).await.is_err(),
        "something runs"
    );
    assert!(timeout(SECOND / 10, isolation.enter(0)).await.is_ok());
    drop(beside);
    assert!(
        isolation
            .enter(2)
            .await
            .unwrap()
            .exclusive_until()
            .is_some(),
        "its turn is over too"
    );
}

#[tokio::test(start_paused = true)]
async fn beside_a_long_handler_a_suspect_runs_after_two_minutes() {
    let isolation = Isolation::default();
    let _handler = isolation.enter(0).await;
    let began = Instant::now();
    assert!(
        isolation
            .enter(2)
            .await
            .unwrap()
            .exclusive_until()
            .is_none()
    );
    assert!(
        began.elapsed() <= EXCLUSIVE_WITHIN + DRAIN_FOR,
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn with_five_crashes_it_is_not_run_beside_a_handler_of_an_hour() {
    let isolation = Isolation::default();
    let kept_out = KeptOut::default();
    let watched = kept_out.clone();
    let handler = isolation.enter(0).await;
    let suspect = async {
        let began = Instant::now();
        assert_eq!(run(&isolation, 5, SECOND).await, None);
        assert!(
            began.elapsed() <= EXCLUSIVE_WITHIN + SECOND,
            "{:?}",
            began.elapsed()
        );
        sleep(Duration::from_hours(1)).await;
    };
    tokio::select! {
        () = suspect => {}
        () = watched.watch(isolation.clone()) => {}
    }
    drop(handler);
    assert!(kept_out.most() <= 60 * SECOND, "{:?}", kept_out.most());
    assert_eq!(
        run(&isolation, 5, SECOND).await,
        Some(true),
        "alone, it may show what it is"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hundred_suspects_keep_others_out_for_a_tenth_of_the_time() {
    let isolation = Isolation::default();
    let kept_out = KeptOut::default();
    let mut others = JoinSet::new();
    others.spawn(kept_out.clone().watch(isolation.clone()));
    for number in 0..4 {
        let isolation = isolation.clone();
        others.spawn(async move {
            sleep(number * 7 * SECOND).await;
            while run(&isolation, 0, 30 * SECOND).await.is_some() {}
        });
    }
    let mut suspects = JoinSet::new();
    for _ in 0..100 {
        let isolation = isolation.clone();
        suspects.spawn(async move { run(&isolation, 2, 30 * SECOND).await });
    }
    assert!(
        suspects.join_all().await.iter().all(Option::is_some),
        "every one was run"
    );
    sleep(Duration::from_mins(20)).await;
    assert!(kept_out.most() <= 60 * SECOND, "{:?}", kept_out.most());
    assert!(kept_out.most() > SECOND, "it was tried");
}

#[tokio::test(start_paused = true)]
async fn suspects_of_quick_endpoints_are_all_proven() {
    let isolation = Isolation::default();
    let mut suspects = JoinSet::new();
    for _ in 0..100 {
        let isolation = isolation.clone();
        suspects.spawn(async move { run(&isolation, 5, SECOND / 10).await });
    }
    assert!(
        suspects
            .join_all()
            .await
            .iter()
            .all(|alone| *alone == Some(true))
    );
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_is_there_again_after_ten_minutes() {
    let isolation = Isolation::default();
    let kept_out = KeptOut::default();
    let watched = timeout(
        Duration::from_mins(25),
        kept_out.clone().watch(isolation.clone()),
    );
    let suspects = async {
        let mut alone = Vec::new();
        while alone.len() < 20 {
            alone.push(run(&isolation, 2, ALONE_FOR * 2).await == Some(true));
        }
        alone
    };
    let (alone, _) = tokio::join!(suspects, watched);
    assert!(kept_out.most() <= 60 * SECOND, "{:?}", kept_out.most());
    let spent = alone
        .iter()
        .position(|alone| !alone)
        .expect("the budget is spent");
    assert!(alone[spent..].contains(&true), "and there again: {alone:?}");
}
