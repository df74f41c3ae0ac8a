//! The lines of `status`: a pure function of the facts, with the alerts of the table.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use event_model::Timestamp;
use queue::processes::ProcessSeen;
use queue::{
    BreakerState, QueueError, RouteProcessStatus, RouteState, ServerState, SpoolWatermark,
    StoresHealth, UNROUTED,
};
use settings::MIN_DEDUP_WINDOW;
use telemetry::alerts::{self, Alert};
use telemetry::{count, count_of};

use crate::routes::{FailedAttempts, paused_in_words};

/// Age from which a waiting event is late.
const LATE: Duration = Duration::from_mins(15);

/// A route with no events behind is late only if more deliveries than this wait for a retry.
const FEW: u64 = 10;

/// Time before its end at which a certificate is named.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_hours(14 * 24);

/// Time without progress after which a spool counts as waiting.
const SPOOL_WAITS: Duration = Duration::from_mins(5);

/// Time that a process may take to become ready.
const BEGINS_WITHIN: Duration = Duration::from_mins(1);

/// Time for which a process that is gone is named, unless `processes forget` ends it.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Time for which refused genuine webhooks are named.
const REFUSED_LATELY: Duration = Duration::from_hours(24);

/// Share of its limit from which a store counts as filling.
const FILLS: f64 = 0.7;

/// Share from which a disk counts as filling.
const DISK_FILLS: f64 = 0.9;

/// The facts that the lines are made of.
#[derive(Debug)]
pub(crate) struct StatusFacts {
    pub(crate) now: Timestamp,
    /// The routes of this process's settings; `None` if they have none.
    pub(crate) listed: Option<HashSet<String>>,
    pub(crate) routes: Vec<RouteState>,
    /// Routes without a recent success, with their failures.
    pub(crate) failing: BTreeMap<String, FailedAttempts>,
    pub(crate) processes: Vec<ProcessSeen>,
    pub(crate) spools: Vec<(String, SpoolWatermark)>,
    pub(crate) health: Result<StoresHealth, QueueError>,
    /// Kinds of events that do not come any more.
    pub(crate) silent: Vec<SilentEvent>,
    pub(crate) stuck_jobs: Vec<StuckJob>,
    pub(crate) dead_letters: u64,
    pub(crate) quarantined: u64,
    pub(crate) refused: u64,
    pub(crate) unrouted: u64,
    /// True if the process reports could not be read.
    pub(crate) are_processes_unread: bool,
    /// The reason why some facts could not be read and are missing.
    pub(crate) unreadable: Option<QueueError>,
}

/// A kind of event that came on each of the last days at this time, and does not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SilentEvent {
    pub(crate) account: String,
    pub(crate) environment: String,
    pub(crate) name: String,
    pub(crate) last_at: Timestamp,
}

/// A job that does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StuckJob {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    /// Why, as far as it is known.
    pub(crate) detail: String,
    pub(crate) since: Timestamp,
}

/// One line of `status`.
#[derive(Debug)]
pub(crate) struct StatusLine {
    pub(crate) alert: &'static Alert,
    pub(crate) text: String,
}

/// The lines, in the order of the table of alerts.
pub(crate) fn lines(known: &StatusFacts) -> Vec<StatusLine> {
    let mut lines = Lines {
        known,
        lines: Vec::new(),
    };
    lines.of_processes();
    lines.of_refused_accounts();
    lines.of_routes();
    lines.of_machinery();
    lines.of_what_waits_for_people();
    let mut lines = lines.lines;
    let place = |line: &StatusLine| {
        alerts::all()
            .iter()
            .position(|alert| alert.name == line.alert.name)
    };
    lines.sort_by_key(place);
    lines
}

struct Lines<'k> {
    known: &'k StatusFacts,
    lines: Vec<StatusLine>,
}

impl Lines<'_> {
    fn say(&mut self, alert: &'static Alert, text: String) {
        self.lines.push(StatusLine { alert, text });
    }

    fn ago(&self, then: Timestamp) -> String {
        format!("{} ago", in_words(since(then, self.known.now)))
    }

    fn of_processes(&mut self) {
        let now = self.known.now;
        for process in &self.known.processes {
            let report = &process.report;
            let who = format!(
                "{} on {} (process {})",
                report.kind, report.host, report.pid
            );
            if process.is_gone(now) && since(process.seen_at, now) < REMEMBERED {
                let seen = self.ago(process.seen_at);
                let id = &process.id;
                let how = match process.has_died {
                    true => format!("it is not there any more, last heard of {seen},"),
                    false => format!("heard of {seen},"),
                };
                self.say(
                    &alerts::PROCESS_GONE,
                    format!("{who}: {how} and it did not say that it ends; gone for good: `processes forget {id}`"),
                );
            }
            if !process.is_running(now) {
                continue;
            }
            if !report.is_ready
                && !report.is_stopping
                && since(report.started_at, now) > BEGINS_WITHIN
            {
                let why = report.impediment.as_deref();
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                self.say(
                    &alerts::NOT_READY,
                    format!("{who}: it says that it can't do its work{why}"),
                );
            }
            for disk in report
                .disks
                .iter()
                .filter(|disk| share(disk.used, disk.total) > DISK_FILLS)
            {
                let full = percent(share(disk.used, disk.total));
                self.say(
                    &alerts::DISK_FILLS,
                    format!("{who}: the disk at {} is {full} full", disk.path),
                );
            }
            if let Some(address) = &report.untrusted_proxy {
                let text = format!(
                    "{who}: nearly all webhooks come from {address}, a private address; if it is a load balancer, name it in `webhook.trusted-proxies`"
                );
                self.say(&alerts::PROXY_UNTRUSTED, text);
            }
            for end in &report.certificates {
                let left = since(now, end.ends_at);
                if end.ends_at <= now {
                    self.say(
                        &alerts::CERTIFICATE_ENDS,
                        format!("{who}: the certificate {} has ended", end.file),
                    );
                } else if left < CERTIFICATE_ENDS_SOON {
                    let text = format!(
                        "{who}: the certificate {} ends in {}",
                        end.file,
                        in_words(left)
                    );
                    self.say(&alerts::CERTIFICATE_ENDS, text);
                }
            }
            for login in report.logins.iter().filter(|login| login.rests_until > now) {
                let account = &login.account;
                let environment = &login.environment;
                let left = in_words(since(now, login.rests_until));
                self.say(
                    &alerts::LOGIN_REFUSED,
                    format!("account {account} ({environment}): Fluent refused its login twice; nobody tries it for {left}, or until its secret changes"),
                );
            }
        }
        let accepts = |process: &&ProcessSeen| matches!(&*process.report.kind, "gateway" | "serve");
        let is_known = !self.known.are_processes_unread;
        if is_known
            && !self
                .known
                .processes
                .iter()
                .filter(accepts)
                .any(|process| process.is_running(now))
        {
            self.say(
                &alerts::NOBODY_SERVES,
                "no gateway, and no `serve`, is at work on this queue: webhooks are lost"
                    .to_owned(),
            );
        }
    }

    fn of_refused_accounts(&mut self) {
        let mut counted: BTreeMap<_, (u64, Timestamp, Option<&String>)> = BTreeMap::new();
        // A gateway that has ended may be mended: the next webhook will show it. One process with
        // everything goes on under the same name, and says what it refused before.
        let open = self
            .known
            .processes
            .iter()
            .filter(|process| !process.report.is_closed || process.report.kind == "serve");
        let all = open.flat_map(|process| &process.report.refused);
        for refused in all.filter(|refused| since(refused.last_at, self.known.now) < REFUSED_LATELY)
        {
            let whose = (&refused.account, &refused.environment, &refused.reason);
            let entry = counted.entry(whose).or_insert((0, refused.last_at, None));
            *entry = (
                entry.0 + refused.count,
                entry.1.max(refused.last_at),
                entry.2.or(refused.nearest.as_ref()),
            );
        }
        for ((account, environment, reason), (count, last_at, nearest)) in counted {
            let hint = match (&**reason, nearest) {
                ("unknown-account", Some(nearest)) => {
                    format!("; `{nearest}` is listed: is it spelled as Fluent does?")
                }
                ("unknown-account", None) => "; it is not listed".to_owned(),
                ("unknown-retailer", _) => "; its `retailers` do not have theirs".to_owned(),
                _ => "; it is listed for another region or environment".to_owned(),
            };
            let last = self.ago(last_at);
            let were = if count == 1 { "was" } else { "were" };
            let webhooks = telemetry::count(count, "genuine webhook");
            self.say(
                &alerts::GENUINE_REFUSED,
                format!(
                    "{webhooks} of account `{account}` ({environment}) {were} refused, the last {last}{hint}"
                ),
            );
        }
    }

    fn of_routes(&mut self) {
        let known = self.known;
        let routes = || known.routes.iter().filter(|route| route.name != UNROUTED);
        for route in routes() {
            self.of_route(route);
        }
        for name in known
            .listed
            .iter()
            .flatten()
            .filter(|_| known.unreadable.is_none())
        {
            if !routes().any(|route| route.name == *name) {
                let text = format!("route {name}: it is in the settings, and has never run");
                self.say(&alerts::ROUTE_NOT_RUN, text);
            }
        }
    }

    fn of_route(&mut self, route: &RouteState) {
        let name = &route.name;
        let now = self.known.now;
        if route.paused {
            let pause = paused_in_words(route.pause.as_ref());
            let text = format!(
                "route {name}: {pause}, with {} not looked at",
                count(route.behind, "event")
            );
            return self.say(&alerts::ROUTE_PAUSED, text);
        }
        let is_wanted = self.is_wanted(name);
        if route.working.is_empty() && is_wanted != Some(false) {
            let waits = route.behind + route.waiting;
            let text = format!(
                "route {name}: nobody runs it, with {} waiting",
                count(waits, "event")
            );
            self.say(&alerts::ROUTE_NOT_RUN, text);
        } else if route.working.is_empty() {
            self.say(
                &alerts::ROUTE_FORGOTTEN,
                format!("route {name}: no settings have it any more, and its position keeps events from being removed: `routes forget {name}` gives it up"),
            );
        }
        if let Some(failed) = self.known.failing.get(name) {
            let FailedAttempts { count, first_at } = failed;
            let first = self.ago(*first_at);
            let text = format!(
                "route {name}: the last {count} attempts failed, the first of them {first}, and none went well since: `deliveries --route {name}`"
            );
            self.say(&alerts::ROUTE_FAILS, text);
        }
        let is_open = |breaker: &BreakerState| *breaker != BreakerState::Closed;
        if route
            .working
            .iter()
            .any(|working| is_open(&working.breaker))
        {
            let text = format!(
                "route {name}: its destination fails and is left alone; `routes resume {name}` asks at once"
            );
            self.say(&alerts::BREAKER_OPEN, text);
        }
        self.of_conflict(route);
        let late = route.oldest.filter(|oldest| since(*oldest, now) > LATE);
        if let Some(oldest) = late.filter(|_| route.behind > 0 || route.waiting > FEW) {
            let text = format!(
                "route {name}: its oldest event came {}, {} are behind it and {} wait for a retry",
                self.ago(oldest),
                route.behind,
                route.waiting
            );
            self.say(&alerts::ROUTE_LATE, text);
        }
    }

    /// Two services that have the route, each with another match.
    fn of_conflict(&mut self, route: &RouteState) {
        let now = self.known.now;
        let (superseded, deciding): (Vec<_>, Vec<_>) = route
            .working
            .iter()
            .partition(|working| working.superseded_since.is_some());
        if !superseded.iter().any(|working| working.is_in_conflict(now)) {
            return;
        }
        let since = superseded
            .iter()
            .filter_map(|working| working.superseded_since)
            .min();
        let lasts = since.map_or_else(String::new, |then| in_words(self::since(then, now)));
        let text = format!(
            "route {}: {} and {} have different matches of it, and for {lasts} its new events have gone by that of {}: give both the same match, or one of the routes another name",
            route.name,
            self.names(&superseded),
            self.names(&deciding),
            self.names(&deciding)
        );
        self.say(&alerts::ROUTE_CONFLICT, text);
    }

    /// The processes by kind, host and id, as far as their reports are known.
    fn names(&self, working: &[&RouteProcessStatus]) -> String {
        let named = working.iter().map(|working| {
            let reports = self.known.processes.iter().map(|process| &process.report);
            let found = reports
                .filter(|report| format!("{}:{}", report.host, report.pid) == working.process)
                .map(|report| format!("{} {}", report.kind, working.process))
                .next();
            found.unwrap_or_else(|| working.process.clone())
        });
        let names: Vec<_> = named.collect();
        if names.is_empty() {
            return "a process that does not answer".to_owned();
        }
        names.join(", ")
    }

    /// True if the settings of any process have the route; `None` if none have any routes.
    fn is_wanted(&self, route: &str) -> Option<bool> {
        // A process that is stopped or gone may come back. After a day its routes count no more.
        let now = self.known.now;
        let of_others = self
            .known
            .processes
            .iter()
            .filter(|process| since(process.seen_at, now) < REMEMBERED);
        let mut others = of_others
            .flat_map(|process| &process.report.routes)
            .peekable();
        if self.known.listed.is_none() && others.peek().is_none() {
            return None;
        }
        let is_listed = self
            .known
            .listed
            .as_ref()
            .is_some_and(|listed| listed.contains(route));
        Some(is_listed || others.any(|other| other == route))
    }

    fn of_machinery(&mut self) {
        let known = self.known;
        if let Some(error) = &known.unreadable {
            let text = format!(
                "some of what the queue keeps can't be read now, and is missing here: {}",
                telemetry::ErrorChain(error)
            );
            self.say(&alerts::QUEUE_AWAY, text);
        }
        match &known.health {
            Err(error) => {
                self.say(
                    &alerts::QUEUE_AWAY,
                    format!(
                        "the queue's servers can't be asked: {}",
                        telemetry::ErrorChain(error)
                    ),
                );
            }
            Ok(health) => {
                for server in &health.servers {
                    match &server.state {
                        ServerState::Well => {}
                        ServerState::Gone => {
                            self.say(
                                &alerts::SERVER_GONE,
                                format!("server {}: it does not answer", server.name),
                            );
                        }
                        ServerState::Behind(streams) => {
                            let text = format!(
                                "server {}: its copy of {} is not complete",
                                server.name,
                                streams.join(", ")
                            );
                            self.say(&alerts::SERVER_BEHIND, text);
                        }
                    }
                }
                for usage in &health.usage {
                    if let Some(share) = usage.share().filter(|share| *share > FILLS) {
                        let text = format!(
                            "{} is {} full of what nothing may remove yet",
                            usage.name,
                            percent(share)
                        );
                        self.say(&alerts::QUEUE_FILLS, text);
                    }
                }
                let known_for = health.same_ids_known_for;
                if let Some(known_for) = known_for.filter(|known| *known < MIN_DEDUP_WINDOW) {
                    let text = format!(
                        "which event of one Fluent id a route with `same-id: skip` has delivered is known for {} only, since older facts had to make room: a later one is delivered as well (`queue.retention.bytes`)",
                        in_words(known_for)
                    );
                    self.say(&alerts::SAME_ID_WINDOW_SHORT, text);
                }
            }
        }
        for (id, spool) in known.spools.iter().filter(|(_, spool)| !spool.is_closed) {
            if since(spool.drained_to, known.now) > SPOOL_WAITS {
                let text = format!(
                    "the spool of {} ({id}): what came since {:.0} may still be in it",
                    spool.host, spool.drained_to
                );
                self.say(&alerts::SPOOL_WAITS, text);
            }
        }
    }

    fn of_what_waits_for_people(&mut self) {
        let known = self.known;
        for silent in &known.silent {
            let SilentEvent {
                account,
                environment,
                name,
                last_at,
            } = silent;
            let last = self.ago(*last_at);
            self.say(
                &alerts::SILENCE,
                format!("`{name}` of {account} ({environment}) came on each of the last seven days at this time, and not today; the last one {last}"),
            );
        }
        for job in &known.stuck_jobs {
            let ago = self.ago(job.since);
            let StuckJob {
                id, state, detail, ..
            } = job;
            let why = match detail.as_str() {
                "" => String::new(),
                detail => format!(": {detail}"),
            };
            self.say(
                &alerts::JOB_STUCK,
                format!("job {id} is {state}, and last went on {ago}{why}; `fluent-webhooks jobs show {id}`"),
            );
        }
        for (alert, found, [one, many], command) in [
            (
                &alerts::DEAD_LETTERS,
                known.dead_letters,
                ["dead letter", "dead letters"],
                "dead-letters",
            ),
            (
                &alerts::QUARANTINED,
                known.quarantined,
                [
                    "genuine webhook that is no event",
                    "genuine webhooks that are not events",
                ],
                "quarantine",
            ),
            (
                &alerts::REFUSED_HELD,
                known.refused,
                ["refused webhook is held", "refused webhooks are held"],
                "refused",
            ),
            (
                &alerts::UNROUTED,
                known.unrouted,
                [
                    "event that no route matched",
                    "events that no route matched",
                ],
                "unrouted",
            ),
        ] {
            if found > 0 {
                let what = count_of(found, one, many);
                self.say(alert, format!("{what}: `fluent-webhooks {command} list`"));
            }
        }
    }
}

/// A name that Fluent's rules chose, without what a terminal would obey, and cut.
pub(crate) fn plain(name: &str) -> String {
    let replaced = name.chars().map(|letter| match letter {
        ' ' => letter,
        _ if letter.is_alphanumeric() || letter.is_ascii_graphic() => letter,
        _ => char::REPLACEMENT_CHARACTER,
    });
    replaced.take(64).collect()
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn share(used: u64, total: u64) -> f64 {
    used as f64 / total.max(1) as f64
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A length of time in the one unit that matters.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
