//! Tests of the lines of `status`, fact by fact.

use queue::processes::{CertificateEnd, DiskUsage, ProcessReport, RefusedAccount, RestingLogin};
use queue::{Position, RouteProcessStatus, ServerHealth, StoreUsage};
use telemetry::alerts::Urgency;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn process(kind: &str, seen: i64, change: impl FnOnce(&mut ProcessReport)) -> ProcessSeen {
    let mut report = ProcessReport {
        kind: kind.to_owned(),
        host: "h".to_owned(),
        started_at: at(-9_000),
        is_ready: true,
        ..ProcessReport::default()
    };
    change(&mut report);
    ProcessSeen {
        has_died: false,
        id: format!("{kind}.1"),
        report,
        seen_at: at(seen),
    }
}

fn working(breaker: BreakerState) -> Vec<RouteProcessStatus> {
    vec![RouteProcessStatus {
        route: "r".to_owned(),
        process: "h:1".to_owned(),
        breaker,
        throttled: false,
        superseded_since: None,
    }]
}

fn route(name: &str, change: impl FnOnce(&mut RouteState)) -> RouteState {
    let mut route = RouteState {
        name: name.to_owned(),
        position: Position::new(0, 9).unwrap(),
        behind: 0,
        kept: 9,
        waiting: 0,
        in_flight: 0,
        oldest: None,
        dead: 0,
        paused: false,
        pause: None,
        filter: None,
        working: working(BreakerState::Closed),
    };
    change(&mut route);
    route
}

fn well() -> StatusFacts {
    StatusFacts {
        now: at(0),
        listed: None,
        routes: vec![
            route("r", |_| {}),
            route(UNROUTED, |route| route.working.clear()),
        ],
        failing: BTreeMap::new(),
        processes: vec![
            process("gateway", -5, |_| {}),
            process("dispatcher", -5, |report| {
                report.routes.push("r".to_owned())
            }),
            process("operator", -500, |report| report.is_closed = true),
        ],
        spools: Vec::new(),
        health: Ok(StoresHealth::default()),
        silent: Vec::new(),
        stuck_jobs: Vec::new(),
        dead_letters: 0,
        quarantined: 0,
        refused: 0,
        unrouted: 0,
        are_processes_unread: false,
        unreadable: None,
    }
}

fn names(known: &StatusFacts) -> Vec<&'static str> {
    lines(known).iter().map(|line| line.alert.name).collect()
}

#[track_caller]
fn check(change: impl FnOnce(&mut StatusFacts), expected: &[&str], words: &str) {
    let mut known = well();
    change(&mut known);
    let lines = lines(&known);
    let found: Vec<_> = lines.iter().map(|line| line.alert.name).collect();
    assert_eq!(found, expected, "{lines:?}");
    let text: String = lines.into_iter().map(|line| line.text).collect();
    assert!(text.contains(words), "{text}");
}

#[test]
fn a_cluster_whose_operator_has_no_routes_is_well() {
    assert!(names(&well()).is_empty(), "{:?}", lines(&well()));
}

#[test]
fn marks_of_one_id_that_reach_back_a_day_are_enough() {
    let known_for = |hours| {
        move |known: &mut StatusFacts| {
            known.health = Ok(StoresHealth {
                same_ids_known_for: Some(Duration::from_hours(hours)),
                ..StoresHealth::default()
            });
        }
    };
    check(known_for(26), &["FluentSameIdWindowShort"], "26 h");
    check(known_for(27), &[], "");
}

#[test]
fn two_services_with_different_matches_of_a_route_are_named_when_it_lasts() {
    let for_so_long = |minutes: i64| {
        move |known: &mut StatusFacts| {
            let running = &mut known.routes[0].working;
            running.extend(working(BreakerState::Closed));
            running[0].process = "old:7".to_owned();
            running[0].superseded_since = Some(at(-60 * minutes));
            let host = &mut known.processes[1].report;
            host.host = "old".to_owned();
            host.pid = 7;
        }
    };
    check(for_so_long(4), &[], "");
    check(
        for_so_long(6),
        &["FluentRouteConflict"],
        "route r: dispatcher old:7 and h:1 have different matches of it, and for 6 min its new events have gone by that of h:1",
    );
    let nobody_answers = |known: &mut StatusFacts| {
        for_so_long(6)(known);
        known.routes[0].working.pop();
    };
    check(
        nobody_answers,
        &["FluentRouteConflict"],
        "a process that does not answer",
    );
}

#[test]
fn a_route_is_of_others_of_nobody_or_not_wanted_any_more() {
    let nobody = |known: &mut StatusFacts| known.routes[0].working.clear();
    check(nobody, &["FluentRouteNotRun"], "route r: nobody runs it");
    let forgotten = |known: &mut StatusFacts| {
        known
            .routes
            .push(route("old", |route| route.working.clear()));
    };
    check(forgotten, &["FluentRouteForgotten"], "routes forget old");
    let restarting = |known: &mut StatusFacts| {
        known.routes[0].working.clear();
        known.processes[1].report.is_closed = true;
    };
    check(restarting, &["FluentRouteNotRun"], "nobody runs it");
    let nobody_has_any = |known: &mut StatusFacts| {
        known.processes[1].report.routes.clear();
        known.routes[0].working.clear();
    };
    check(nobody_has_any, &["FluentRouteNotRun"], "nobody runs it");
    let listed =
        |known: &mut StatusFacts| known.listed = Some(["r", "new"].map(str::to_owned).into());
    check(
        listed,
        &["FluentRouteNotRun"],
        "route new: it is in the settings, and has never run",
    );
}

#[test]
fn a_route_is_late_by_age_but_not_for_one_event_that_waits() {
    let old = Some(at(-960));
    check(
        |known| (known.routes[0].oldest, known.routes[0].waiting) = (old, 1),
        &[],
        "",
    );
    check(
        |known| (known.routes[0].oldest, known.routes[0].waiting) = (old, 11),
        &["FluentRouteLate"],
        "16 min ago",
    );
    check(
        |known| (known.routes[0].oldest, known.routes[0].behind) = (old, 1),
        &["FluentRouteLate"],
        "",
    );
    let paused = |known: &mut StatusFacts| {
        (
            known.routes[0].oldest,
            known.routes[0].behind,
            known.routes[0].paused,
        ) = (old, 1, true);
    };
    check(paused, &["FluentRoutePaused"], "paused, with 1 event");
}

#[test]
fn who_is_gone_is_named_until_it_is_forgotten_or_a_day_has_passed() {
    check(|known| known.processes[1].seen_at = at(-59), &[], "");
    check(
        |known| known.processes[1].seen_at = at(-200),
        &["FluentProcessGone"],
        "dispatcher on h",
    );
    check(|known| known.processes[1].seen_at = at(-90_000), &[], "");
    // A report of a time to come is of a moment with a wrong clock, and none came since.
    check(
        |known| known.processes[1].seen_at = at(90_000),
        &["FluentProcessGone"],
        "dispatcher on h",
    );
    check(
        |known| known.processes[0].seen_at = at(-200),
        &["FluentNobodyServes", "FluentProcessGone"],
        "",
    );
}

/// Everything that is wrong has a line with the words of the table.
#[test]
fn each_alert_of_the_table_that_status_sees_has_its_line() {
    let everything = StatusFacts {
        listed: Some(["r", "new"].map(str::to_owned).into()),
        routes: vec![
            route("r", |route| {
                (route.oldest, route.behind) = (Some(at(-5_000)), 5);
                route.working = working(BreakerState::HalfOpen);
            }),
            route("paused", |route| route.paused = true),
            route("old", |route| route.working.clear()),
        ],
        failing: [(
            "r".to_owned(),
            FailedAttempts {
                count: 7,
                first_at: at(-21),
            },
        )]
        .into(),
        processes: vec![
            process("gateway", -300, |_| {}),
            process("dispatcher", -5, |report| {
                report.is_ready = false;
                report.impediment = Some("the queue is full".to_owned());
                report.untrusted_proxy = Some("10.0.0.5".to_owned());
                report.disks = vec![DiskUsage {
                    path: "/data".to_owned(),
                    used: 95,
                    total: 100,
                }];
                report.certificates = vec![CertificateEnd {
                    file: "c.pem".to_owned(),
                    ends_at: at(3 * 86_400),
                }];
                report.logins = vec![RestingLogin {
                    account: "ACME".to_owned(),
                    environment: "sandbox".to_owned(),
                    rests_until: at(900),
                }];
                report.refused = vec![RefusedAccount {
                    account: "acme".to_owned(),
                    environment: "sandbox".to_owned(),
                    reason: "unknown-account".to_owned(),
                    nearest: Some("ACME".to_owned()),
                    count: 3,
                    last_at: at(-60),
                }];
            }),
        ],
        spools: vec![(
            "s".to_owned(),
            SpoolWatermark {
                host: "h".to_owned(),
                drained_to: at(-900),
                is_closed: false,
            },
        )],
        health: Ok(StoresHealth {
            servers: vec![
                ServerHealth {
                    name: "n1".to_owned(),
                    state: ServerState::Gone,
                },
                ServerHealth {
                    name: "n2".to_owned(),
                    state: ServerState::Behind(vec!["E".to_owned()]),
                },
            ],
            usage: vec![StoreUsage {
                name: "E".to_owned(),
                used: 8,
                limit: Some(10),
                has_settled: false,
            }],
            same_ids_known_for: Some(Duration::from_hours(2)),
        }),
        silent: vec![SilentEvent {
            account: "ACME".to_owned(),
            environment: "sandbox".to_owned(),
            name: "OrderBooked".to_owned(),
            last_at: at(-90_000),
        }],
        stuck_jobs: vec![StuckJob {
            id: "3f9ac2d81b07".to_owned(),
            state: "failed",
            detail: "there is no route r".to_owned(),
            since: at(-1_000),
        }],
        dead_letters: 1,
        quarantined: 1,
        refused: 1,
        unrouted: 1,
        ..well()
    };
    let mut found = names(&everything);
    let mut in_conflict = well();
    in_conflict.routes[0].working[0].superseded_since = Some(at(-3_600));
    found.extend(names(&in_conflict));
    let away = StatusFacts {
        health: Err(QueueError::unavailable("asking", "gone")),
        ..well()
    };
    assert_eq!(names(&away), ["FluentQueueAway"]);
    found.extend(names(&away));
    let expected = alerts::all().into_iter().filter(|alert| alert.is_in_status);
    for alert in expected {
        assert!(found.contains(&alert.name), "{} has no line", alert.name);
    }
    for name in &found {
        let alert = alerts::all()
            .into_iter()
            .find(|alert| alert.name == *name)
            .expect("in the table");
        assert!(
            alert.is_in_status,
            "{name} has a line, and the table does not know it"
        );
    }
    let said: String = lines(&everything)
        .into_iter()
        .map(|line| line.text)
        .collect();
    for words in [
        "3 genuine webhooks of account `acme` (sandbox) were refused, the last 60 s ago; `ACME` is listed",
        "it says that it can't do its work: the queue is full",
        "the disk at /data is 95 % full",
        "nearly all webhooks come from 10.0.0.5",
        "the certificate c.pem ends in 3 days",
        "E is 80 % full",
        "with `same-id: skip` has delivered is known for 2 h only",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let first = lines(&everything)
        .into_iter()
        .map(|line| line.alert.urgency)
        .next();
    assert_eq!(first, Some(Urgency::Now));
}
