//! Two dispatchers with different matches of one route. Each of them is right while a new version
//! takes over; if it lasts, two services have the route, and one of them gets none of its new
//! events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use event_model::Timestamp;
use queue::{CONFLICT_AFTER, RouteProcessStatus};

use crate::consuming::fetcher::Fetcher;
use crate::route_status;
use crate::shared::Shared;

/// The routes of this process that have another dispatcher's match.
#[derive(Debug, Default)]
pub(crate) struct Conflicts(Mutex<BTreeMap<String, Conflict>>);

/// One route's conflict.
#[derive(Clone, Copy, Debug)]
struct Conflict {
    since: Timestamp,
    /// When the route had our match again, if it has.
    ended: Option<Timestamp>,
    is_said: bool,
}

impl Conflicts {
    /// Notes whether the route has another dispatcher's match now; true once for each conflict
    /// that lasts. Processes that join again and again take the route from each other: it is the
    /// same conflict if this process had it for a shorter time than that.
    pub(crate) fn note(&self, route: &str, is_superseded: bool, now: Timestamp) -> bool {
        let mut conflicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_superseded {
            if let Some(conflict) = conflicts.get_mut(route) {
                conflict.ended.get_or_insert(now);
            }
            return false;
        }
        let new = Conflict {
            since: now,
            ended: None,
            is_said: false,
        };
        let conflict = conflicts.entry(route.to_owned()).or_insert(new);
        if conflict.ended.is_some_and(|ended| lasts(ended, now)) {
            *conflict = new;
        }
        conflict.ended = None;
        let is_due = lasts(conflict.since, now) && !conflict.is_said;
        conflict.is_said |= is_due;
        is_due
    }

    /// Writes into the reports on this process's routes since when another match decides.
    pub(crate) fn fill_in(&self, reports: &mut [RouteProcessStatus]) {
        let conflicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for report in reports {
            report.superseded_since = conflicts
                .get(&report.route)
                .filter(|conflict| conflict.ended.is_none())
                .map(|conflict| conflict.since);
        }
    }
}

fn lasts(since: Timestamp, now: Timestamp) -> bool {
    since
        .checked_add(CONFLICT_AFTER)
        .is_ok_and(|then| then <= now)
}

impl Fetcher {
    /// Notes whose match the route has, and logs a conflict that lasts.
    pub(super) fn note_conflict(&self) {
        let shared = &self.taking.shared;
        let now = shared.clock.now();
        let route = &self.route.name;
        if shared.conflicts.note(route, self.is_superseded, now) {
            let said = say(Arc::clone(shared), route.clone());
            shared.tasks.spawn(said);
        }
    }
}

/// Logs who serves the route with another match.
async fn say(shared: Arc<Shared>, route: String) {
    let served_by = match route_status::ask(&shared.link).await {
        Ok(reports) => others(&reports, &route),
        Err(_) => String::new(),
    };
    tracing::error!(
        route,
        served_by,
        "another service has served this route with another match for {} min, and new events are left to it: give both the same match, or one of the routes another name",
        CONFLICT_AFTER.as_secs() / 60
    );
}

/// The processes that serve the route with the match that decides.
fn others(reports: &[RouteProcessStatus], route: &str) -> String {
    let serve = reports
        .iter()
        .filter(|report| report.route == route && report.superseded_since.is_none());
    let names: Vec<_> = serve.map(|report| report.process.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
    }

    #[test]
    fn a_conflict_is_said_once_when_it_lasts() {
        let after = CONFLICT_AFTER.as_secs();
        let conflicts = Conflicts::default();
        assert!(!conflicts.note("r", true, at(0)));
        assert!(!conflicts.note("r", true, at(after - 1)), "a new version");
        assert!(conflicts.note("r", true, at(after)));
        assert!(!conflicts.note("r", true, at(after * 2)), "it was said");
        assert!(!conflicts.note("r", false, at(after * 3)));
        assert!(!conflicts.note("r", true, at(after * 4)), "another one");
        assert!(conflicts.note("r", true, at(after * 5)));
    }

    #[test]
    fn who_takes_a_route_from_each_other_again_and_again_is_in_one_conflict() {
        let conflicts = Conflicts::default();
        let noted = (0..=CONFLICT_AFTER.as_secs())
            .filter(|second| conflicts.note("r", second % 2 == 0, at(*second)))
            .count();
        assert_eq!(noted, 1);
    }
}
