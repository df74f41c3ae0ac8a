//! The reconciler as a service: compares again and again, from where it stopped.

use std::time::Duration;

use event_model::{Timestamp, token};
use futures::future::join_all;
use queue::facts::{compared_until, set_compared_until};
use settings::ApiAccount;
use telemetry::{ErrorChain, Label, metrics};
use tokio::time::sleep;

use crate::comparison::Mode;
use crate::error::ReconcileError;
use crate::fluent_log::SendStatus;
use crate::report::{Admission, MissingEvent, Observer, Summary};
use crate::run::Reconciler;
use crate::window::{SKEW, Window, earlier, later};

/// Longest time that is compared before its end is stored.
const CHUNK: Duration = Duration::from_hours(1);

/// Longest pause after a failure, and the pause before the first comparison: monitoring must have
/// seen the counters at their beginning.
const REST: Duration = Duration::from_mins(1);

/// Time for which an event on which Fluent still works is looked at again.
const PENDING_FOR: Duration = Duration::from_hours(24);

/// Most by which a clock that is only being corrected may lag between two runs; more means that
/// it was set back.
const STEP: Duration = Duration::from_mins(1);

/// Compares every account of a reconciler, again and again, until it is dropped. The end of what
/// was compared is kept in the stores, from which another process goes on. An account whose
/// Fluent does not answer delays no other.
pub async fn serve(reconciler: &Reconciler<'_>) {
    join_all(
        reconciler
            .settings
            .accounts
            .iter()
            .map(|account| serve_one(reconciler, account)),
    )
    .await;
}

async fn serve_one(reconciler: &Reconciler<'_>, account: &ApiAccount) {
    let every = reconciler.settings.interval;
    let name = format!("{}.{}", account.environment, token(Some(&account.name)));
    let mut place = ComparisonProgress::new(name, reconciler);
    for sending in SendStatus::LABELS {
        metrics::RECONCILE_MISSING.add(0, missing_labels(account, sending));
    }
    let mut rest = every.min(REST);
    loop {
        sleep(rest).await;
        rest = every;
        if let Err(error) = place.catch_up(reconciler, account).await {
            tracing::warn!(account = account.name, error = %ErrorChain(&error), "not compared with Fluent's log: tried again later");
            rest = every.min(REST).max(error.wait().unwrap_or_default());
        }
    }
}

/// Progress of an account.
struct ComparisonProgress {
    name: String,
    from: Option<Timestamp>,
    /// Time since which the clock may have been ahead, by the steady clock.
    since: Timestamp,
    last: Option<ComparisonRun>,
}

/// Time at which a run began.
#[derive(Clone, Copy, Debug)]
struct ComparisonRun {
    /// By the steady clock.
    at: Timestamp,
    latest: Timestamp,
}

impl ComparisonProgress {
    fn new(name: String, reconciler: &Reconciler<'_>) -> Self {
        Self {
            name,
            from: None,
            since: reconciler.steady.now(),
            last: None,
        }
    }

    /// Returns the time up to which the comparison is valid, if the clock was set back since the
    /// last run: it may have been ahead for as long as this process runs.
    fn compared_truly(&self, pass: ComparisonRun) -> Option<Timestamp> {
        let last = self.last?;
        let expected = later(last.latest, passed(last.at, pass.at));
        let is_set_back = pass.latest < earlier(expected, STEP);
        is_set_back.then(|| earlier(pass.latest, passed(self.since, pass.at)))
    }

    /// Returns the time since which missing events have not been logged yet. A start that lies
    /// ahead comes from a wrong clock.
    fn told_to(&self, latest: Timestamp, place: Timestamp) -> Timestamp {
        self.from
            .filter(|from| *from <= later(latest, SKEW))
            .map_or(place, |told_to| told_to.max(place))
    }

    async fn catch_up(
        &mut self,
        reconciler: &Reconciler<'_>,
        account: &ApiAccount,
    ) -> Result<(), ReconcileError> {
        let latest = reconciler.latest();
        let facts = reconciler.stores.facts();
        // Before anything can fail: monitoring must see the lag grow.
        self.from
            .into_iter()
            .for_each(|from| show(account, latest, from));
        let mut known = compared_until(facts, &self.name).await?;
        let earliest = reconciler.earliest().await?;
        let pass = ComparisonRun {
            at: reconciler.steady.now(),
            latest,
        };
        if let Some(truly) = self.compared_truly(pass) {
            let truly = truly.max(earlier(latest, reconciler.settings.lookback));
            if let Some(ahead) = known.filter(|known| *known > truly) {
                tracing::warn!(account = account.name, until = %ahead, from = %truly, "the clock was set back: compared anew");
                // Another process that goes on from here must know it, too.
                set_compared_until(facts, &self.name, truly).await?;
                known = Some(truly);
            }
            self.since = pass.at;
            self.from = self.from.map(|from| from.min(truly));
        }
        self.last = Some(pass);
        let place = self.begin(reconciler, account, known, earliest);
        let told_to = self.told_to(latest, place);
        self.from = Some(place);
        show(account, latest, place);
        // Fluent's log may show an event late, and its clock may be behind.
        let mut from = earlier(place, SKEW).max(earliest);
        let mut pending = None;
        // The limit is read each time: a clock that was ahead would have years to compare.
        while from < latest.min(reconciler.latest()) {
            let until = later(from, CHUNK).min(latest).min(reconciler.latest());
            let window = Window { from, until };
            let mut tally = Summary::default();
            let mut found = MissingObserver {
                account,
                told_to,
                count: 0,
            };
            let mode = Mode {
                admits: true,
                is_unknown: false,
            };
            let compared = reconciler
                .compare(account, window, mode, &mut tally, &mut found)
                .await;
            log_outcome(account, window, &found, &tally);
            if let Some(until) = tally.known_since {
                log_never_compared(account, from, until);
            }
            compared?;
            pending = [pending, tally.pending_since].into_iter().flatten().min();
            let held = pending.map_or(window.until, |since| {
                since.max(earlier(latest, PENDING_FOR))
            });
            // The clock may have been set back meanwhile: a time that has not come was not
            // compared.
            let held = held.min(window.until).min(reconciler.latest());
            set_compared_until(facts, &self.name, held).await?;
            from = window.until;
            self.from = Some(from);
            show(account, latest, from);
        }
        Ok(())
    }

    fn begin(
        &self,
        reconciler: &Reconciler<'_>,
        account: &ApiAccount,
        known: Option<Timestamp>,
        earliest: Timestamp,
    ) -> Timestamp {
        let latest = reconciler.latest();
        // Nothing can be known of a time that has not come: a clock was ahead.
        let (known, ahead) = match known {
            Some(known) if known > later(latest, SKEW) => (None, Some(known)),
            known => (known, None),
        };
        let from = known.unwrap_or_else(|| earlier(latest, reconciler.settings.lookback));
        if let Some(ahead) = ahead {
            tracing::warn!(account = account.name, until = %ahead, %from, "compared up to a time that has not come: a clock was ahead, compared anew");
        }
        if from < earliest && known.is_some() {
            log_never_compared(account, from, earliest);
        }
        from.max(earliest)
    }
}

fn passed(from: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(from)).unwrap_or_default()
}

fn labels(account: &ApiAccount) -> [Label; 2] {
    [
        account.environment.as_str().into(),
        account.name.clone().into(),
    ]
}

fn missing_labels(account: &ApiAccount, sending: &'static str) -> [Label; 3] {
    let [environment, account] = labels(account);
    [environment, account, sending.into()]
}

fn show(account: &ApiAccount, latest: Timestamp, from: Timestamp) {
    metrics::RECONCILE_LAG.set(passed(from, latest).as_secs_f64(), labels(account));
}

fn log_never_compared(account: &ApiAccount, from: Timestamp, until: Timestamp) {
    tracing::warn!(account = account.name, %from, %until, "never compared with Fluent's log: what came then is no longer kept");
}

fn log_outcome(account: &ApiAccount, window: Window, found: &MissingObserver<'_>, tally: &Summary) {
    if found.count > 0 {
        let Summary {
            logged,
            admitted,
            kept_out,
            ..
        } = *tally;
        tracing::warn!(account = account.name, logged, missing = found.count, admitted, kept_out, from = %window.from, until = %window.until, "webhooks never came");
    }
}

struct MissingObserver<'a> {
    account: &'a ApiAccount,
    /// Events from before this time that stay out were logged before.
    told_to: Timestamp,
    count: u64,
}

impl Observer for MissingObserver<'_> {
    fn missing(&mut self, missing: MissingEvent) {
        let is_admitted = matches!(missing.admission, Admission::Admitted { .. });
        let is_new = missing.logged_at.is_none_or(|at| at >= self.told_to);
        if missing.admission == Admission::Pending || !(is_admitted || is_new) {
            return;
        }
        self.count += 1;
        metrics::RECONCILE_MISSING.add(1, missing_labels(self.account, missing.sending.label()));
        let MissingEvent {
            account,
            fluent_event_id,
            name,
            sending,
            admission,
            ..
        } = missing;
        let event_id = match &admission {
            Admission::Admitted { event_id } => event_id.to_string(),
            _ => String::new(),
        };
        tracing::info!(account, fluent.id = fluent_event_id, event.name = name, %sending, state = admission.as_str(), event.id = event_id, "never came");
    }

    fn read(&mut self, _: Timestamp) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn place(from: Option<i64>, last: Option<(i64, i64)>) -> ComparisonProgress {
        let last = last.map(|(steady, latest)| ComparisonRun {
            at: at(steady),
            latest: at(latest),
        });
        ComparisonProgress {
            name: String::new(),
            from: from.map(at),
            since: at(0),
            last,
        }
    }

    #[test]
    fn what_was_told_by_a_clock_ahead_is_told_by_nobody() {
        for (from, expected) in [
            (None, 90),
            (Some(80), 90),
            (Some(95), 95),
            (Some(5_000_000), 90),
        ] {
            assert_eq!(
                place(from, None).told_to(at(100), at(90)),
                at(expected),
                "{from:?}"
            );
        }
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_what_came_since_the_process_began() {
        for (last, now, expected) in [
            (None, (50, 100), None),
            (Some((40, 90)), (50, 100), None),
            (Some((40, 90)), (50, 99), None),
            // The clock was set ahead, or the machine slept.
            (Some((40, 90)), (50, 500), None),
            (Some((40, 110)), (50, 100), Some(50)),
            (Some((40, 102)), (50, 100), Some(50)),
        ] {
            let (steady, latest) = now;
            let truly = place(None, last).compared_truly(ComparisonRun {
                at: at(steady),
                latest: at(latest),
            });
            assert_eq!(truly, expected.map(at), "{last:?} {now:?}");
        }
    }
}
