//! Tables of results and what is decided about them.

use super::*;

const RETRY: RetrySettings = RetrySettings {
    initial: Duration::from_secs(1),
    max_delay: Duration::from_mins(1),
    max_elapsed: Duration::from_hours(1),
    attempts: None,
};

fn transient(retry_after: Option<u64>) -> AttemptResult {
    let retry_after = retry_after.map(Duration::from_secs);
    AttemptResult::Answered(Err(DispatchError::Transient {
        action: "testing",
        retry_after,
        status: Some(503),
        source: "x".into(),
    }))
}

/// Input of an attempt after others that all called the destination.
fn at(attempt: u32, elapsed: u64) -> RetryInput {
    let elapsed = Duration::from_secs(elapsed);
    RetryInput {
        attempt,
        asked: attempt - 1,
        elapsed,
        is_breaker_open: false,
        chance: 1.0,
    }
}

#[track_caller]
fn check(ended: &AttemptResult, attempt: u32, elapsed: u64, chance: f64, expected: Disposition) {
    let at = RetryInput {
        chance,
        ..at(attempt, elapsed)
    };
    assert_eq!(disposition(ended, at, &RETRY), expected);
}

fn after(seconds: u64) -> Disposition {
    Disposition::Again(Duration::from_secs(seconds))
}

#[test]
fn what_the_dispatcher_says_is_final_is_final() {
    check(
        &AttemptResult::Answered(Ok(Done::default())),
        9,
        99_999,
        0.0,
        Disposition::Done,
    );
    let permanent = AttemptResult::Answered(Err(DispatchError::permanent("testing", "x")));
    check(
        &permanent,
        1,
        0,
        0.0,
        Disposition::Dead(DeadReason::Permanent),
    );
}

#[test]
fn what_was_cut_off_comes_again_however_often_until_the_time_is_up() {
    let cut = AttemptResult::Answered(Err(DispatchError::interrupted("testing", "x")));
    let once = RetrySettings {
        attempts: Some(1),
        ..RETRY
    };
    let at = |elapsed| at(7, elapsed);
    assert_eq!(
        disposition(&cut, at(5), &once),
        Disposition::Again(Duration::from_secs(1))
    );
    assert_eq!(
        disposition(&cut, at(3600), &once),
        Disposition::Dead(DeadReason::Exhausted)
    );
}

#[test]
fn what_is_cut_off_again_and_again_waits_longer_each_time() {
    let cut = AttemptResult::Answered(Err(DispatchError::interrupted("testing", "x")));
    // A deploy, or two of them, and the crash of another event delay nothing. What makes each
    // handler crash must not go on doing so every second for days.
    let interrupted = [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 2),
        (5, 4),
        (6, 8),
        (9, 60),
        (400, 60),
    ];
    for (times, expected) in interrupted {
        check_after(&cut, 0, times, 1.0, after(expected));
        check_after(&cut, 0, times, 0.0, after(1));
        // Attempts that reached the destination were no interruptions.
        check_after(&cut, 30, times, 1.0, after(expected));
    }
}

/// Checks an attempt after `asked` that called the destination, the last of so many that did not.
#[track_caller]
fn check_after(ended: &AttemptResult, asked: u32, times: u32, chance: f64, expected: Disposition) {
    let at = RetryInput {
        attempt: asked + times,
        asked,
        elapsed: Duration::from_secs(5),
        is_breaker_open: false,
        chance,
    };
    assert_eq!(disposition(ended, at, &RETRY), expected);
}

#[test]
fn what_fluent_does_not_show_yet_uses_up_time_and_no_attempts() {
    let once = RetrySettings {
        attempts: Some(1),
        ..RETRY
    };
    let at = |elapsed| at(3, elapsed);
    let missing = AttemptResult::EnrichmentFailed(DispatchError::transient("testing", "x"));
    assert_eq!(
        missing.is_failure(),
        None,
        "it says nothing of the destination"
    );
    assert_eq!(disposition(&missing, at(5), &once), after(8));
    assert_eq!(
        disposition(&missing, at(3600), &once),
        Disposition::Dead(DeadReason::Exhausted)
    );
    let never = AttemptResult::EnrichmentFailed(DispatchError::permanent("testing", "x"));
    assert_eq!(
        disposition(&never, at(5), &once),
        Disposition::Dead(DeadReason::Permanent)
    );
    assert_eq!(
        disposition(
            &AttemptResult::Skipped(SkipReason::ReconciledDuplicate),
            at(5),
            &once
        ),
        Disposition::Done
    );
}

#[test]
fn who_waits_for_another_of_its_id_waits_shortly_and_is_never_given_up() {
    let once = RetrySettings {
        attempts: Some(1),
        ..RETRY
    };
    let id = EventId::of(event_model::Environment::Sandbox, b"{}");
    let waiting = |left| AttemptResult::Waiting(id, Duration::from_secs(left));
    assert_eq!(
        (waiting(9).is_failure(), waiting(9).has_asked()),
        (None, false)
    );
    for (elapsed, left, expected) in [(0, 60, 1), (40, 60, 5), (40, 3, 3), (99_999, 60, 10)] {
        for attempt in [1, 40] {
            assert_eq!(
                disposition(&waiting(left), at(attempt, elapsed), &once),
                after(expected)
            );
        }
    }
    let ended = Disposition::Again(SHORTEST_WAIT_FOR_OTHER);
    assert_eq!(
        disposition(&waiting(0), at(1, 0), &once),
        ended,
        "its claim has ended"
    );
}

#[test]
fn what_failed_before_the_destination_was_asked_makes_no_later_wait_longer() {
    let first = RetryInput {
        asked: 0,
        ..at(40, 5)
    };
    assert_eq!(disposition(&transient(None), first, &RETRY), after(2));
}

#[test]
fn waits_double_up_to_the_ceiling_with_full_jitter() {
    for ended in [
        transient(None),
        AttemptResult::TimedOut,
        AttemptResult::Panicked,
    ] {
        check(&ended, 1, 0, 0.0, after(1));
        check(&ended, 1, 0, 1.0, after(2));
        check(&ended, 3, 0, 1.0, after(8));
        check(&ended, 3, 0, 0.0, after(1));
        check(&ended, 40, 0, 1.0, after(60));
    }
}

#[test]
fn a_destination_is_left_alone_for_as_long_as_it_asks_and_a_little_longer() {
    check(&transient(Some(30)), 1, 0, 0.0, after(30));
    check(&transient(Some(30)), 1, 0, 1.0, after(33));
    // Not past the budget: one last attempt at its end.
    check(&transient(Some(999_999)), 1, 600, 0.5, after(3000));
}

#[test]
fn a_destination_that_asks_for_little_gets_no_more_attempts_for_it() {
    check(&transient(Some(0)), 1, 0, 0.0, after(1));
    check(&transient(Some(1)), 6, 0, 0.0, after(1));
    let Disposition::Again(wait) = disposition(&transient(Some(1)), at(6, 0), &RETRY) else {
        panic!()
    };
    assert!(
        wait >= Duration::from_mins(1),
        "the waits double all the same: {wait:?}"
    );
}

#[test]
fn what_can_t_begin_waits_for_as_long_as_it_says() {
    let wait = Some(Duration::from_secs(30));
    let not_begun = AttemptResult::Answered(Err(DispatchError::not_asked("testing", wait, "x")));
    check(&not_begun, 1, 0, 0.0, after(30));
    check(&not_begun, 1, 0, 1.0, after(33));
}

#[test]
fn nobody_may_ask_for_more_than_a_day() {
    let three_days = RetrySettings {
        max_elapsed: Duration::from_hours(72),
        ..RETRY
    };
    for (asked, expected) in [(999_999, 24 * 3600), (23 * 3600, 24 * 3600), (3600, 3960)] {
        assert_eq!(
            disposition(&transient(Some(asked)), at(1, 0), &three_days),
            after(expected)
        );
    }
}

#[test]
fn time_and_attempts_run_out() {
    check(
        &transient(None),
        5,
        3600,
        0.0,
        Disposition::Dead(DeadReason::Exhausted),
    );
    let retry = RetrySettings {
        attempts: Some(3),
        ..RETRY
    };
    for ended in [
        transient(None),
        AttemptResult::TimedOut,
        AttemptResult::Panicked,
    ] {
        assert_eq!(
            disposition(
                &ended,
                RetryInput {
                    chance: 0.0,
                    ..at(2, 0)
                },
                &retry
            ),
            after(1)
        );
        assert_eq!(
            disposition(&ended, at(3, 0), &retry),
            Disposition::Dead(DeadReason::Exhausted)
        );
    }
}

#[test]
fn only_attempts_that_asked_the_destination_are_counted() {
    let once = RetrySettings {
        attempts: Some(1),
        ..RETRY
    };
    // Deploys, crashes, a subscriber that left: the destination was not called.
    let first = RetryInput {
        asked: 0,
        ..at(40, 5)
    };
    for ended in [
        AttemptResult::Answered(Err(DispatchError::interrupted("testing", "x"))),
        AttemptResult::Answered(Err(DispatchError::not_asked("testing", None, "x"))),
        AttemptResult::EnrichmentFailed(DispatchError::transient("testing", "x")),
    ] {
        assert!(
            !ended.has_asked()
                && ended.is_failure().is_none()
                && matches!(disposition(&ended, first, &once), Disposition::Again(_))
        );
    }
    let twice = RetrySettings {
        attempts: Some(2),
        ..RETRY
    };
    assert!(matches!(
        disposition(&transient(None), first, &twice),
        Disposition::Again(_)
    ));
    assert_eq!(
        disposition(&transient(None), first, &once),
        Disposition::Dead(DeadReason::Exhausted)
    );
}

#[test]
fn nothing_is_given_up_while_the_breaker_is_open() {
    let retry = RetrySettings {
        attempts: Some(3),
        ..RETRY
    };
    for ended in [
        transient(None),
        transient(Some(1)),
        AttemptResult::TimedOut,
        AttemptResult::Answered(Err(DispatchError::interrupted("testing", "x"))),
        AttemptResult::Answered(Err(DispatchError::not_asked("testing", None, "x"))),
        AttemptResult::EnrichmentFailed(DispatchError::transient("testing", "x")),
    ] {
        for at in [at(7, 5), at(9, 3600), at(9, 99_999)] {
            let open = RetryInput {
                is_breaker_open: true,
                ..at
            };
            assert!(
                matches!(disposition(&ended, open, &retry), Disposition::Again(_)),
                "{ended:?}"
            );
        }
        assert_eq!(
            disposition(&ended, at(9, 3600), &retry),
            Disposition::Dead(DeadReason::Exhausted)
        );
    }
    let open = RetryInput {
        is_breaker_open: true,
        ..at(9, 99_999)
    };
    assert_eq!(
        disposition(&transient(None), open, &retry),
        after(60),
        "others are asked for first"
    );
    let permanent = AttemptResult::Answered(Err(DispatchError::permanent("testing", "x")));
    assert_eq!(
        disposition(&permanent, open, &retry),
        Disposition::Dead(DeadReason::Permanent)
    );
}

#[test]
fn what_is_about_one_event_is_no_failure_of_the_destination() {
    let status = |status| {
        let action = "testing";
        let source = "x".into();
        AttemptResult::Answered(Err(DispatchError::Transient {
            action,
            retry_after: None,
            status: Some(status),
            source,
        }))
    };
    for (code, failed) in [
        (404, false),
        (409, false),
        (401, true),
        (403, true),
        (429, true),
        (500, true),
    ] {
        assert_eq!(status(code).is_failure(), Some(failed), "{code}");
    }
    assert_eq!(
        (
            AttemptResult::TimedOut.is_failure(),
            AttemptResult::Panicked.is_failure()
        ),
        (Some(true), Some(true))
    );
}
