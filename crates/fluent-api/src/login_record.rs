//! The record of a login, which decides when it may be tried: a pure function of earlier tries.
//!
//! Fluent locks a user for 15 minutes at the fifth failed login within 15 minutes, counted from
//! the last one, right password or not. So of one secret at most two tries fail, and then it
//! rests for longer than that. Another secret has tries of its own, within what Fluent allows for
//! all.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Number of failed tries after which a secret rests.
pub(crate) const MOST_FAILED: usize = 2;

/// Length of the rest: longer than Fluent's lock and than the time in which Fluent counts.
pub(crate) const REST: Duration = Duration::from_mins(16);

/// Most failed tries of all secrets together within that time: one below Fluent's five.
const MOST_FAILED_OF_ALL: usize = 4;

/// Most tries at once of a login that is known to be good. Each could fail, if the password was
/// changed this moment.
const AT_ONCE: usize = 2;

/// Most secrets that are remembered, and failed tries of each.
const SECRETS: usize = 8;
const REMEMBERED: usize = 8;

/// Record of one login, which all processes share. Version 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoginRecord {
    version: u8,
    /// Salt of the fingerprints.
    pub(crate) salt: String,
    secrets: Vec<SecretRecord>,
}

/// Record of one secret of the login.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretRecord {
    fingerprint: String,
    succeeded_at: Option<Timestamp>,
    failed_at: Vec<Timestamp>,
    trying: Vec<Try>,
}

/// A try without a recorded result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Try {
    id: String,
    since: Timestamp,
    /// After this time its process has crashed, and its result is unknown.
    until: Timestamp,
}

/// Decision whether a login may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Try,
    /// Wait: another process tries, and its result is known soon.
    Wait,
    /// Not for this long.
    Rest(Duration),
}

/// Result of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryResult {
    Accepted,
    Refused,
    /// Fluent did not check the password: not reached, overloaded, broken.
    NotLookedAt,
    /// The answer is lost: the login may have been refused.
    Unknown,
}

impl LoginRecord {
    pub(crate) fn new(salt: String) -> Self {
        Self {
            version: 1,
            salt,
            secrets: Vec::new(),
        }
    }

    /// Decides for the secret of this fingerprint.
    pub(crate) fn decide(&self, fingerprint: &str, now: Timestamp) -> Decision {
        let nothing = SecretRecord::default();
        let secret = self
            .secrets
            .iter()
            .find(|secret| secret.fingerprint == fingerprint);
        let secret = secret.unwrap_or(&nothing);
        if let Some(rest) = secret.rest(now).or_else(|| self.rest_of_all(now)) {
            return Decision::Rest(rest);
        }
        let under_way: usize = self
            .secrets
            .iter()
            .map(|secret| secret.under_way(now))
            .sum();
        let at_once = if secret.is_known_good() { AT_ONCE } else { 1 };
        let left = MOST_FAILED.saturating_sub(secret.recent_failures(now).len());
        let failed: usize = self
            .secrets
            .iter()
            .map(|secret| secret.recent_failures(now).len())
            .sum();
        let left_of_all = MOST_FAILED_OF_ALL.saturating_sub(failed);
        if under_way < at_once.min(left).min(left_of_all) {
            Decision::Try
        } else {
            Decision::Wait
        }
    }

    /// Returns how long every secret rests, if the tries of all together are used up.
    fn rest_of_all(&self, now: Timestamp) -> Option<Duration> {
        let mut failed: Vec<_> = self
            .secrets
            .iter()
            .flat_map(|secret| secret.recent_failures(now))
            .collect();
        failed.sort_unstable();
        let oldest_that_counts = failed.len().checked_sub(MOST_FAILED_OF_ALL)?;
        Some(until_rested(failed[oldest_that_counts], now))
    }

    /// Records that a try begins, which takes at most this long.
    pub(crate) fn begin(&mut self, fingerprint: &str, id: &str, now: Timestamp, takes: Duration) {
        let until = now.saturating_add(takes).unwrap_or(Timestamp::MAX);
        // A try without a result that began so long ago does not count any more.
        let is_young = |other: &Try| now.duration_since(other.since) < signed(REST);
        self.secrets
            .iter_mut()
            .for_each(|secret| secret.trying.retain(is_young));
        self.secret(fingerprint, now).trying.push(Try {
            id: id.to_owned(),
            since: now,
            until,
        });
    }

    /// Records the result of a try.
    pub(crate) fn end(&mut self, fingerprint: &str, id: &str, result: TryResult, now: Timestamp) {
        let secret = self.secret(fingerprint, now);
        secret.trying.retain(|other| other.id != id);
        match result {
            TryResult::Accepted => {
                secret.succeeded_at = Some(now);
                // Tries of this secret that ended with a crash had the right one, too.
                secret.trying.retain(|other| other.until > now);
            }
            TryResult::Refused => secret.failed_at.push(now),
            TryResult::Unknown if !secret.is_known_good() => secret.failed_at.push(now),
            TryResult::Unknown | TryResult::NotLookedAt => {}
        }
        let forgotten = secret.failed_at.len().saturating_sub(REMEMBERED);
        secret.failed_at.drain(..forgotten);
    }

    /// Whether this try was recorded.
    pub(crate) fn is_trying(&self, fingerprint: &str, id: &str) -> bool {
        let of = self
            .secrets
            .iter()
            .filter(|secret| secret.fingerprint == fingerprint);
        of.flat_map(|secret| &secret.trying)
            .any(|other| other.id == id)
    }

    /// Returns how many tries this secret has left before it rests.
    pub(crate) fn tries_left(&self, fingerprint: &str, now: Timestamp) -> usize {
        let found = self
            .secrets
            .iter()
            .find(|secret| secret.fingerprint == fingerprint);
        MOST_FAILED.saturating_sub(found.map_or(0, |secret| secret.recent_failures(now).len()))
    }

    fn secret(&mut self, fingerprint: &str, now: Timestamp) -> &mut SecretRecord {
        let known = self
            .secrets
            .iter()
            .position(|secret| secret.fingerprint == fingerprint);
        let index = known.unwrap_or_else(|| {
            if self.secrets.len() >= SECRETS {
                // A record that has nothing to say is removed first, then the oldest.
                let idle = self
                    .secrets
                    .iter()
                    .position(|secret| secret.is_idle(now))
                    .unwrap_or(0);
                self.secrets.remove(idle);
            }
            self.secrets.push(SecretRecord {
                fingerprint: fingerprint.to_owned(),
                ..SecretRecord::default()
            });
            self.secrets.len() - 1
        });
        &mut self.secrets[index]
    }
}

impl SecretRecord {
    /// Whether it worked, and has not failed since.
    fn is_known_good(&self) -> bool {
        self.succeeded_at
            .is_some_and(|worked| self.failed_at.iter().all(|failed| *failed < worked))
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        self.trying.is_empty() && self.recent_failures(now).is_empty()
    }

    fn under_way(&self, now: Timestamp) -> usize {
        self.trying.iter().filter(|other| other.until > now).count()
    }

    /// Returns the failures that count, in order. A process that crashed while it tried may have
    /// failed, unless the secret is known to be good.
    fn failures(&self, now: Timestamp) -> Vec<Timestamp> {
        let is_good = self.is_known_good();
        let dead = self
            .trying
            .iter()
            .filter(|other| !is_good && other.until <= now);
        let mut failed: Vec<_> = self
            .failed_at
            .iter()
            .copied()
            .chain(dead.map(|other| other.since))
            .collect();
        // If the clock was set back by more than that, it had been wrong before.
        failed.retain(|at| *at <= now || at.duration_since(now) <= signed(REST));
        failed.sort_unstable();
        failed
    }

    fn recent_failures(&self, now: Timestamp) -> Vec<Timestamp> {
        let mut failed = self.failures(now);
        failed.retain(|at| now.duration_since(*at) < signed(REST));
        failed
    }

    /// Returns how long the secret still rests, after as many failures as it may have.
    fn rest(&self, now: Timestamp) -> Option<Duration> {
        let failed = self.failures(now);
        let latest = *failed.last()?;
        let together = failed
            .iter()
            .filter(|at| latest.duration_since(**at) < signed(REST))
            .count();
        let rest = until_rested(latest, now);
        (together >= MOST_FAILED && !rest.is_zero()).then_some(rest)
    }
}

fn until_rested(failed: Timestamp, now: Timestamp) -> Duration {
    let passed = Duration::try_from(now.duration_since(failed)).unwrap_or_default();
    REST.saturating_sub(passed)
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKES: Duration = Duration::from_secs(15);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn rest(seconds: u64) -> Decision {
        Decision::Rest(Duration::from_secs(seconds))
    }

    /// Records a try of this secret at that second, with this result.
    fn tried(record: &mut LoginRecord, secret: &str, second: i64, result: TryResult) {
        assert_eq!(
            record.decide(secret, at(second)),
            Decision::Try,
            "{secret} at {second}"
        );
        record.begin(secret, "p", at(second), TAKES);
        record.end(secret, "p", result, at(second));
    }

    #[test]
    fn two_fail_and_then_it_rests_for_sixteen_minutes_after_the_last() {
        let mut record = LoginRecord::new(String::new());
        tried(&mut record, "a", 0, TryResult::Refused);
        assert_eq!(record.tries_left("a", at(1)), 1);
        tried(&mut record, "a", 900, TryResult::Refused);
        assert_eq!(
            record.decide("a", at(960)),
            rest(900),
            "not when the first is forgotten"
        );
        assert_eq!(record.decide("a", at(1859)), rest(1));
        tried(&mut record, "a", 1860, TryResult::Accepted);
        tried(&mut record, "a", 1861, TryResult::Accepted);
    }

    #[test]
    fn another_secret_is_tried_at_once_and_all_of_them_stay_below_fluents_limit() {
        let mut record = LoginRecord::new(String::new());
        for (second, secret) in [(0, "a"), (1, "a"), (2, "b"), (3, "b")] {
            tried(&mut record, secret, second, TryResult::Refused);
        }
        assert_eq!(
            record.decide("c", at(4)),
            rest(956),
            "until the first of four is forgotten"
        );
        // Two versions of a secret in turn get no more tries than each of them alone.
        assert_eq!(record.decide("a", at(5)), rest(956));
        tried(&mut record, "c", 960, TryResult::Accepted);
    }

    #[test]
    fn tries_at_once_of_a_good_secret_stay_below_fluents_limit_too() {
        let mut record = LoginRecord::new(String::new());
        tried(&mut record, "good", 0, TryResult::Accepted);
        for (second, secret) in [(1, "b"), (2, "b"), (3, "c")] {
            tried(&mut record, secret, second, TryResult::Refused);
        }
        record.begin("good", "1", at(4), TAKES);
        assert_eq!(
            record.decide("good", at(4)),
            Decision::Wait,
            "three have failed, and this may be the fourth"
        );
    }

    #[test]
    fn one_tries_while_it_is_not_known_to_be_good_and_two_at_once_after() {
        let mut record = LoginRecord::new(String::new());
        record.begin("a", "1", at(0), TAKES);
        assert_eq!(record.decide("a", at(1)), Decision::Wait);
        record.end("a", "1", TryResult::Accepted, at(1));
        record.begin("a", "2", at(2), TAKES);
        assert_eq!(record.decide("a", at(2)), Decision::Try);
        record.begin("a", "3", at(2), TAKES);
        assert_eq!(
            record.decide("a", at(2)),
            Decision::Wait,
            "each of them could fail"
        );
        record.end("a", "2", TryResult::Refused, at(3));
        assert_eq!(
            record.decide("a", at(3)),
            Decision::Wait,
            "one has failed, and one is under way"
        );
    }

    #[test]
    fn who_died_while_it_tried_had_failed_unless_the_secret_is_good() {
        let mut record = LoginRecord::new(String::new());
        for second in [0, 20] {
            assert_eq!(record.decide("a", at(second)), Decision::Try);
            record.begin("a", &second.to_string(), at(second), TAKES);
        }
        assert_eq!(
            record.decide("a", at(34)),
            Decision::Wait,
            "the second may be at work"
        );
        assert_eq!(record.decide("a", at(35)), rest(945), "both are dead");
        let mut good = LoginRecord::new(String::new());
        tried(&mut good, "a", 0, TryResult::Accepted);
        for second in [20, 40, 60, 80] {
            assert_eq!(good.decide("a", at(second)), Decision::Try);
            good.begin("a", &second.to_string(), at(second), TAKES);
        }
    }

    #[test]
    fn what_fluent_did_not_look_at_is_no_failure_and_a_lost_answer_may_be_one() {
        let mut record = LoginRecord::new(String::new());
        for second in 0..9 {
            tried(&mut record, "a", second, TryResult::NotLookedAt);
        }
        tried(&mut record, "a", 10, TryResult::Unknown);
        tried(&mut record, "a", 11, TryResult::Unknown);
        assert_eq!(record.decide("a", at(12)), rest(959));
        let mut good = LoginRecord::new(String::new());
        tried(&mut good, "a", 0, TryResult::Accepted);
        for second in 1..9 {
            tried(&mut good, "a", second, TryResult::Unknown);
        }
    }

    #[test]
    fn a_clock_that_jumps_locks_nobody_out_and_lets_nobody_in() {
        let mut record = LoginRecord::new(String::new());
        tried(&mut record, "a", 10, TryResult::Refused);
        tried(&mut record, "a", 20, TryResult::Refused);
        assert_eq!(
            record.decide("a", at(-60)),
            rest(960),
            "an old time counts as now"
        );
        assert_eq!(
            record.decide("a", at(-86_400)),
            Decision::Try,
            "that time was wrong"
        );
        assert_eq!(record.decide("a", at(86_400)), Decision::Try);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut record = LoginRecord::new(String::new());
        for number in 0..100 {
            tried(
                &mut record,
                &number.to_string(),
                number * 2000,
                TryResult::Refused,
            );
        }
        // And tries that end with a crash, again and again.
        for number in 200..300 {
            assert_eq!(record.decide("dies", at(number * 2000)), Decision::Try);
            record.begin("dies", &number.to_string(), at(number * 2000), TAKES);
        }
        assert!(serde_json::to_vec(&record).unwrap().len() < 2000);
    }
}
