//! The accounts whose genuine webhooks were refused. The likeliest mistake of a first day is a
//! name in the settings that is not quite Fluent's, and without this report it loses every event
//! in silence.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_model::{AccountClaim, Accounts, Environment, Timestamp};
use queue::processes::{ProcessReport, RefusedAccount};

/// Most names that are remembered, of listed or similar accounts and of strangers each. Another
/// tenant of Fluent's chooses the latter, and must not take the room of ours.
const MOST_NAMES: usize = 100;

/// Most characters of a name that are shown.
const MOST_CHARACTERS: usize = 64;

/// Least similarity, up to 1, at which a listed name is suggested.
const ALIKE: f64 = 0.85;

/// The accounts that were refused since this process began. Clones share them.
#[derive(Clone, Debug)]
pub struct RefusedAccounts {
    accounts: Arc<Accounts>,
    seen: Arc<RefusalTimes>,
}

#[derive(Debug, Default)]
struct RefusalTimes {
    /// Webhooks of accounts that are not listed.
    unlisted: AtomicU64,
    known: Mutex<BTreeMap<Whose, RefusedAccount>>,
}

/// A key of the counts: true if the account is listed or nearly so, its name, its environment,
/// and the reason of the refusal.
type Whose = (bool, String, Environment, &'static str);

impl RefusedAccounts {
    /// Starts with no refusals.
    pub fn new(accounts: Accounts) -> Self {
        Self {
            accounts: Arc::new(accounts),
            seen: Arc::default(),
        }
    }

    /// Counts a refused webhook under the account that its body names. The first one of an
    /// account is logged.
    pub(crate) fn note(
        &self,
        body: &[u8],
        environment: Environment,
        reason: &'static str,
        at: Timestamp,
    ) {
        let (is_ours, name, nearest) = match self.accounts.claim(body) {
            AccountClaim::Listed(name) => (true, name, None),
            AccountClaim::Alike { name, listed } => {
                self.seen.unlisted.fetch_add(1, Ordering::Relaxed);
                (true, name, Some(listed))
            }
            AccountClaim::Unlisted(name) => {
                self.seen.unlisted.fetch_add(1, Ordering::Relaxed);
                let Some(name) = name else { return };
                let nearest = self.nearest(&name);
                (false, name, nearest)
            }
        };
        let shown = shown(&name);
        let mut known = self
            .seen
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let whose = (is_ours, shown.clone(), environment, reason);
        if let Some(refused) = known.get_mut(&whose) {
            refused.count += 1;
            refused.last_at = at;
            return;
        }
        if known.keys().filter(|(ours, ..)| *ours == is_ours).count() >= MOST_NAMES {
            return;
        }
        // The log does not have the name, which is from a stranger's body: `status` shows it to
        // those who may see it.
        tracing::error!(
            environment = environment.as_str(),
            reason,
            nearest,
            "genuine webhooks of an account are refused: `fluent-webhooks status` names it as Fluent spells it"
        );
        let environment = environment.as_str().to_owned();
        let refused = RefusedAccount {
            account: shown,
            environment,
            reason: reason.to_owned(),
            nearest,
            count: 1,
            last_at: at,
        };
        known.insert(whose, refused);
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let scored = self
            .accounts
            .names()
            .map(|listed| (strsim::jaro_winkler(name, listed), listed));
        let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.filter(|(score, _)| *score >= ALIKE)
            .map(|(_, listed)| listed.to_owned())
    }

    pub(crate) fn add_to(&self, report: &mut ProcessReport) {
        let known = self
            .seen
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        report.refused = known.values().cloned().collect();
        report.refused_count = self.seen.unlisted.load(Ordering::Relaxed);
    }
}

/// A name for people: characters that a terminal would obey or hide are escaped, and a long name
/// is cut.
fn shown(name: &str) -> String {
    let is_plain = |letter: char| {
        letter == ' '
            || (!letter.is_control() && letter.is_ascii_graphic())
            || letter.is_alphanumeric()
    };
    let escaped = name.chars().flat_map(|letter| {
        let plain = is_plain(letter).then_some(letter);
        let escape = plain.is_none().then(|| letter.escape_unicode());
        plain.into_iter().chain(escape.into_iter().flatten())
    });
    escaped.take(MOST_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use event_model::{Account, KeyName};

    use super::*;

    fn refused() -> RefusedAccounts {
        let key = KeyName::new("sydney", Environment::Sandbox);
        RefusedAccounts::new(Accounts::new([Account {
            name: "ACME".to_owned(),
            key,
            retailers: None,
        }]))
    }

    fn note(refused: &RefusedAccounts, account: &str) {
        let body = format!("{{\"accountId\":{account:?}}}");
        refused.note(
            body.as_bytes(),
            Environment::Sandbox,
            "unknown-account",
            Timestamp::UNIX_EPOCH,
        );
    }

    fn report(refused: &RefusedAccounts) -> ProcessReport {
        let mut report = ProcessReport::default();
        refused.add_to(&mut report);
        report
    }

    #[test]
    fn names_are_counted_and_the_nearest_listed_one_is_told() {
        let refused = refused();
        for name in ["acme", "acme", "ACMEE", "SOMEBODY"] {
            note(&refused, name);
        }
        let report = report(&refused);
        let found: Vec<_> = report
            .refused
            .iter()
            .map(|one| (one.account.as_str(), one.count, one.nearest.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("ACMEE", 1, Some("ACME")),
                ("SOMEBODY", 1, None),
                ("acme", 2, Some("ACME"))
            ]
        );
        assert_eq!(report.refused_count, 4);
    }

    #[test]
    fn what_others_choose_is_bounded_and_shown_plainly() {
        let refused = refused();
        for number in 0..500 {
            note(&refused, &format!("TENANT_{number}"));
        }
        let many = report(&refused);
        assert_eq!((many.refused.len(), many.refused_count), (MOST_NAMES, 500));
        note(&refused, "acme");
        assert!(
            report(&refused)
                .refused
                .iter()
                .any(|one| one.account == "acme"),
            "ours has room of its own"
        );
        assert_eq!(
            shown("a\u{202e}b\u{200b}\u{1b}[31m").as_str(),
            "a\\u{202e}b\\u{200b}\\u{1b}[31m"
        );
        assert_eq!(shown(&"x".repeat(500)).chars().count(), MOST_CHARACTERS);
        assert_eq!(shown("Größe & Söhne"), "Größe & Söhne");
    }
}
