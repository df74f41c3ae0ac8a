//! The table itself, in the order of the file and of `status`.

use super::{Alert, Rule, Urgency};

macro_rules! alerts {
    ($($name:ident: $alert:expr,)*) => {
        $(
            #[doc = concat!("See its page of the runbook: `", stringify!($name), "`.")]
            pub static $name: Alert = $alert;
        )*

        /// All of them, in the order of the file.
        pub fn all() -> Vec<&'static Alert> {
            vec![$(&$name),*]
        }
    };
}

alerts! {
    NOBODY_SERVES: Alert {
        name: "FluentNobodyServes",
        urgency: Urgency::Now,
        title: "Nobody accepts webhooks",
        rule: None,
        is_in_status: true,
    },
    NOT_READY: Alert {
        name: "FluentNotReady",
        urgency: Urgency::Now,
        title: "A process is not ready",
        rule: Some(Rule {
            group: "accepting",
            comment: "",
            expression: "fluent_ready == 0",
            holds_for: Some("1m"),
            summary: "{{ $labels.instance }} can't do its work",
        }),
        is_in_status: true,
    },
    PROCESS_GONE: Alert {
        name: "FluentProcessGone",
        urgency: Urgency::Now,
        title: "A process does not answer",
        rule: Some(Rule {
            group: "accepting",
            comment: "",
            expression: r#"up{job="fluent-webhooks"} == 0"#,
            holds_for: Some("1m"),
            summary: "{{ $labels.instance }} does not answer",
        }),
        is_in_status: true,
    },
    NOT_ACCEPTING: Alert {
        name: "FluentNotAccepting",
        urgency: Urgency::Now,
        title: "Webhooks are turned away with 503",
        rule: Some(Rule {
            group: "accepting",
            comment: "Fluent tries four times within 14 s, then the event is lost to us. Strangers who find no room wake nobody.",
            expression: r#"sum by (instance) (increase(fluent_webhooks_refused_total{reason="unavailable"}[5m])) > 0
  or
  sum by (instance) (increase(fluent_webhooks_refused_known_client_total{reason=~"busy|over-share|connections"}[5m])) > 0"#,
            holds_for: None,
            summary: "{{ $labels.instance }} turns requests away with 503",
        }),
        is_in_status: false,
    },
    SLOW_TO_DURABLE: Alert {
        name: "FluentSlowToDurable",
        urgency: Urgency::Now,
        title: "Events take long to become durable",
        rule: Some(Rule {
            group: "accepting",
            comment: "Fluent gives up after 14 s.",
            expression: "histogram_quantile(0.99, sum by (instance, le) (rate(fluent_webhooks_publish_duration_seconds_bucket[5m]))) > 2",
            holds_for: Some("5m"),
            summary: "{{ $labels.instance }} takes {{ $value | humanizeDuration }} to make an event durable",
        }),
        is_in_status: false,
    },
    KEY_CHANGED: Alert {
        name: "FluentKeyChanged",
        urgency: Urgency::Now,
        title: "A key of Fluent's seems to have changed",
        rule: Some(Rule {
            group: "accepting",
            comment: "Forgeries come from addresses that never sent a genuine webhook, and silence no key.",
            expression: r#"sum(increase(fluent_webhooks_refused_known_client_total{reason=~"signature-.*"}[5m])) > 1
  and
  count(
    sum by (key) (increase(fluent_webhooks_verified_total[1d])) > 0
    unless
    sum by (key) (increase(fluent_webhooks_verified_total[5m])) > 0
  ) > 0"#,
            holds_for: Some("1m"),
            summary: "{{ $value | humanize }} webhooks from Fluent's own addresses were refused for their signature, and a key verifies nothing any more",
        }),
        is_in_status: false,
    },
    SIGNATURES_FAIL: Alert {
        name: "FluentSignaturesFail",
        urgency: Urgency::Later,
        title: "Many signatures are refused",
        rule: Some(Rule {
            group: "accepting",
            comment: "Anybody who reaches the port can make this true: it wakes nobody.",
            expression: r#"sum(rate(fluent_webhooks_refused_total{reason=~"signature-.*"}[10m]))
  > 0.05 * (
    sum(rate(fluent_webhooks_refused_total{reason=~"signature-.*"}[10m]))
    + (sum(rate(fluent_webhooks_accepted_total[10m])) or vector(0))
  )"#,
            holds_for: Some("10m"),
            summary: "more than 5 % of what comes is refused for its signature",
        }),
        is_in_status: false,
    },
    WEBHOOKS_MISSING: Alert {
        name: "FluentWebhooksMissing",
        urgency: Urgency::Later,
        title: "Fluent logged webhooks that never came",
        rule: Some(Rule {
            group: "accepting",
            comment: "What comes is well, and something does not come.",
            expression: "sum by (environment, account) (increase(fluent_reconcile_missing_total[1h])) > 0",
            holds_for: None,
            summary: "{{ $value | humanize }} webhooks of {{ $labels.account }} ({{ $labels.environment }}) never came, and were found in Fluent's log",
        }),
        is_in_status: false,
    },
    NOT_COMPARED: Alert {
        name: "FluentNotCompared",
        urgency: Urgency::Later,
        title: "Nobody knows whether something is missing",
        rule: Some(Rule {
            group: "accepting",
            comment: "",
            expression: "max by (environment, account) (fluent_reconcile_lag_seconds) > 7200",
            holds_for: Some("30m"),
            summary: "{{ $value | humanizeDuration }} of Fluent's log of {{ $labels.account }} ({{ $labels.environment }}) is not compared with what came",
        }),
        is_in_status: false,
    },
    QUARANTINED: Alert {
        name: "FluentQuarantined",
        urgency: Urgency::Later,
        title: "Genuine webhooks that are not events",
        rule: Some(Rule {
            group: "accepting",
            comment: "",
            expression: "sum by (reason) (increase(fluent_webhooks_quarantined_total[15m])) > 0",
            holds_for: None,
            summary: "genuine webhooks that are not events ({{ $labels.reason }}) wait for a person",
        }),
        is_in_status: true,
    },
    QUARANTINE_FULL: Alert {
        name: "FluentQuarantineFull",
        urgency: Urgency::Now,
        title: "The quarantine is full",
        rule: Some(Rule {
            group: "accepting",
            comment: "Genuine bodies are held where the oldest goes.",
            expression: "sum(increase(fluent_webhooks_quarantine_full_total[15m])) > 0",
            holds_for: None,
            summary: "{{ $value | humanize }} genuine bodies had no room in the quarantine, and are held with what was refused for 72 h",
        }),
        is_in_status: false,
    },
    SILENCE: Alert {
        name: "FluentSilence",
        urgency: Urgency::Later,
        title: "Webhooks that come every day do not come",
        rule: Some(Rule {
            group: "accepting",
            comment: "",
            expression: r#"max by (environment, account) (fluent_webhooks_silent) > 0
  or (
    (sum(increase(fluent_webhooks_accepted_total[1h])) or vector(0)) == 0
    and sum(increase(fluent_webhooks_accepted_total[1h] offset 1d)) > 0
  )"#,
            holds_for: Some("10m"),
            summary: "webhooks that came on each of the last days at this time do not come: `fluent-webhooks status` names them",
        }),
        is_in_status: true,
    },
    GENUINE_REFUSED: Alert {
        name: "FluentGenuineRefused",
        urgency: Urgency::Now,
        title: "Genuine webhooks are refused",
        rule: Some(Rule {
            group: "accepting",
            comment: "Their signature is Fluent's: an account, a retailer or an environment is missing in the settings.",
            expression: r#"sum by (reason) (increase(fluent_webhooks_refused_total{reason=~"wrong-key|unknown-account|unknown-retailer"}[15m])) > 0"#,
            holds_for: None,
            summary: "{{ $value | humanize }} genuine webhooks were refused ({{ $labels.reason }}): `fluent-webhooks status` names their accounts",
        }),
        is_in_status: true,
    },
    QUEUE_AWAY: Alert {
        name: "FluentQueueAway",
        urgency: Urgency::Now,
        title: "The queue can't be reached",
        rule: Some(Rule {
            group: "waiting",
            comment: "",
            expression: "fluent_queue_reachable == 0",
            holds_for: Some("1m"),
            summary: "{{ $labels.instance }} can't reach the queue, or the queue is full",
        }),
        is_in_status: true,
    },
    SPOOL_WAITS: Alert {
        name: "FluentSpoolWaits",
        urgency: Urgency::Now,
        title: "Events wait in a gateway's spool",
        rule: Some(Rule {
            group: "waiting",
            comment: "",
            expression: "fluent_spool_oldest_age_seconds > 300",
            holds_for: None,
            summary: "the oldest event in the spool of {{ $labels.instance }} has waited for {{ $value | humanizeDuration }}",
        }),
        is_in_status: true,
    },
    ROUTE_LATE: Alert {
        name: "FluentRouteLate",
        urgency: Urgency::Now,
        title: "A route is late",
        rule: Some(Rule {
            group: "waiting",
            comment: "One event that waits for its next attempt, or was sent again by a person, is not it.",
            expression: r#"max by (route) (fluent_route_oldest_age_seconds{route!="unrouted"}) > 900
  and on (route) (max by (route) (fluent_route_behind) > 0 or max by (route) (fluent_route_waiting) > 10)
  unless on (route) max by (route) (fluent_route_paused) == 1"#,
            holds_for: Some("5m"),
            summary: "the oldest event of route {{ $labels.route }} has waited for {{ $value | humanizeDuration }}",
        }),
        is_in_status: true,
    },
    ROUTE_PAUSED: Alert {
        name: "FluentRoutePaused",
        urgency: Urgency::Later,
        title: "A route has been paused for long",
        rule: Some(Rule {
            group: "waiting",
            comment: "",
            expression: "max by (route) (fluent_route_paused) == 1",
            holds_for: Some("4h"),
            summary: "route {{ $labels.route }} has been paused for four hours",
        }),
        is_in_status: true,
    },
    QUEUE_FILLS: Alert {
        name: "FluentQueueFills",
        urgency: Urgency::Now,
        title: "The queue fills",
        rule: Some(Rule {
            group: "waiting",
            comment: "",
            expression: "max by (store) (fluent_queue_usage_ratio) > 0.7",
            holds_for: Some("5m"),
            summary: "{{ $labels.store }} is {{ $value | humanizePercentage }} full of what nothing may remove yet",
        }),
        is_in_status: true,
    },
    SERVER_GONE: Alert {
        name: "FluentServerGone",
        urgency: Urgency::Now,
        title: "A server of the queue is gone",
        rule: Some(Rule {
            group: "waiting",
            comment: "",
            expression: r#"max(fluent_queue_servers{state="gone"}) > 0"#,
            holds_for: Some("2m"),
            summary: "{{ $value }} of the queue's servers do not answer: `fluent-webhooks status` names them",
        }),
        is_in_status: true,
    },
    SERVER_BEHIND: Alert {
        name: "FluentServerBehind",
        urgency: Urgency::Later,
        title: "A server of the queue is behind",
        rule: Some(Rule {
            group: "waiting",
            comment: "",
            expression: r#"max(fluent_queue_servers{state="behind"}) > 0"#,
            holds_for: Some("15m"),
            summary: "{{ $value }} of the queue's servers do not have all that they should: another one must not fail now",
        }),
        is_in_status: true,
    },
    CLOCK_SKEW: Alert {
        name: "FluentClockSkew",
        urgency: Urgency::Later,
        title: "A clock is wrong",
        rule: Some(Rule {
            group: "waiting",
            comment: "",
            expression: "max by (instance) (abs(fluent_queue_clock_skew_seconds)) > 2",
            holds_for: Some("5m"),
            summary: "the clock of {{ $labels.instance }} is {{ $value | humanizeDuration }} apart from that of the queue's servers",
        }),
        is_in_status: false,
    },
    FORGED: Alert {
        name: "FluentForged",
        urgency: Urgency::Now,
        title: "Somebody writes into the streams",
        rule: Some(Rule {
            group: "waiting",
            comment: "What a dispatcher takes is verified again. Nothing of ours writes what does not verify.",
            expression: "sum(increase(fluent_queue_forged_total[15m])) > 0",
            holds_for: None,
            summary: "{{ $value | humanize }} messages in the streams are not genuine: kept in quarantine, and not delivered",
        }),
        is_in_status: false,
    },
    KEY_UNKNOWN: Alert {
        name: "FluentKeyUnknown",
        urgency: Urgency::Now,
        title: "Deliveries wait for a key",
        rule: Some(Rule {
            group: "waiting",
            comment: "A gateway has a key that this dispatcher does not have.",
            expression: "sum by (instance) (increase(fluent_queue_key_unknown_total[10m])) > 0",
            holds_for: Some("2m"),
            summary: "{{ $labels.instance }} has deliveries whose key is not in its settings: they wait for that key",
        }),
        is_in_status: false,
    },
    WINDOW_SHORT: Alert {
        name: "FluentWindowShort",
        urgency: Urgency::Later,
        title: "Ids are forgotten too soon",
        rule: Some(Rule {
            group: "waiting",
            comment: "Fluent may send a webhook again within a day.",
            expression: "min(fluent_queue_dedup_window_seconds) < 27 * 3600",
            holds_for: Some("5m"),
            summary: "the queue knows ids for {{ $value | humanizeDuration }} only: what comes again later is delivered again",
        }),
        is_in_status: false,
    },
    SAME_ID_WINDOW_SHORT: Alert {
        name: "FluentSameIdWindowShort",
        urgency: Urgency::Later,
        title: "Which event of one id was delivered is forgotten too soon",
        rule: Some(Rule {
            group: "waiting",
            comment: "Fluent may make a webhook anew within a day.",
            expression: "min(fluent_queue_same_id_window_seconds) < 27 * 3600",
            holds_for: Some("5m"),
            summary: "the queue knows for {{ $value | humanizeDuration }} only which event of one Fluent id a route delivered: a later one is delivered as well",
        }),
        is_in_status: true,
    },
    BREAKER_OPEN: Alert {
        name: "FluentBreakerOpen",
        urgency: Urgency::Later,
        title: "A destination is left alone",
        rule: Some(Rule {
            group: "delivering",
            comment: "1 while it is asked once, which it is again and again.",
            expression: "max by (route) (fluent_route_breaker) > 0",
            holds_for: Some("10m"),
            summary: "the destination of route {{ $labels.route }} is left alone, since it fails",
        }),
        is_in_status: true,
    },
    DEAD_LETTERS: Alert {
        name: "FluentDeadLetters",
        urgency: Urgency::Later,
        title: "Dead letters wait for a person",
        rule: Some(Rule {
            group: "delivering",
            comment: "1 while it is asked once, which it is again and again.",
            expression: r#"max by (route) (fluent_route_dead_letters{route!="unrouted"}) > 0"#,
            holds_for: None,
            summary: "{{ $value }} dead letters of route {{ $labels.route }} wait for a person",
        }),
        is_in_status: true,
    },
    UNROUTED: Alert {
        name: "FluentUnrouted",
        urgency: Urgency::Later,
        title: "Events matched no route",
        rule: Some(Rule {
            group: "delivering",
            comment: "",
            expression: r#"sum(increase(fluent_dead_letters_total{route="unrouted"}[1h])) > 0"#,
            holds_for: None,
            summary: "{{ $value | humanize }} events of the last hour matched no route",
        }),
        is_in_status: true,
    },
    UNSETTLED: Alert {
        name: "FluentUnsettled",
        urgency: Urgency::Later,
        title: "Ends of attempts can't be recorded",
        rule: Some(Rule {
            group: "delivering",
            comment: "",
            expression: "sum by (route) (rate(fluent_attempts_unsettled_total[10m])) > 0",
            holds_for: Some("10m"),
            summary: "the ends of attempts of route {{ $labels.route }} can't be recorded: their events come again",
        }),
        is_in_status: false,
    },
    ROUTE_NOT_RUN: Alert {
        name: "FluentRouteNotRun",
        urgency: Urgency::Now,
        title: "Nobody runs a route",
        rule: Some(Rule {
            group: "delivering",
            comment: "A route that is paused needs nobody.",
            expression: r#"max by (route) (fluent_route_processes{route!="unrouted"}) == 0
  and on (route) (max by (route) (fluent_route_behind) > 0 or max by (route) (fluent_route_waiting) > 0)
  unless on (route) max by (route) (fluent_route_paused) == 1"#,
            holds_for: Some("5m"),
            summary: "route {{ $labels.route }} has events to deliver, and no process runs it",
        }),
        is_in_status: true,
    },
    ROUTE_CONFLICT: Alert {
        name: "FluentRouteConflict",
        urgency: Urgency::Later,
        title: "Two services have different matches of one route",
        rule: Some(Rule {
            group: "delivering",
            comment: "While a new version takes over, two matches are right.",
            expression: "max by (route) (fluent_route_conflict) > 0",
            holds_for: Some("5m"),
            summary: "two services serve route {{ $labels.route }} with different matches: only one of them gets its new events",
        }),
        is_in_status: true,
    },
    ROUTE_FAILS: Alert {
        name: "FluentRouteFails",
        urgency: Urgency::Now,
        title: "A route fails",
        rule: Some(Rule {
            group: "delivering",
            comment: "Nothing of it went well for a quarter of an hour.",
            expression: r#"sum by (route) (increase(fluent_attempts_total{outcome!~"done|unrouted|returned"}[15m])) >= 3
  unless on (route) sum by (route) (increase(fluent_attempts_total{outcome="done"}[15m])) > 0"#,
            holds_for: Some("5m"),
            summary: "every attempt of route {{ $labels.route }} fails",
        }),
        is_in_status: true,
    },
    LOGIN_REFUSED: Alert {
        name: "FluentLoginRefused",
        urgency: Urgency::Now,
        title: "Fluent refuses a login",
        rule: Some(Rule {
            group: "delivering",
            comment: "",
            expression: "max by (environment, account) (fluent_api_login_blocked_until_seconds) > time()",
            holds_for: None,
            summary: "Fluent refused the login of {{ $labels.account }} ({{ $labels.environment }}) twice: nobody tries it until its secret changes, or for 16 minutes",
        }),
        is_in_status: true,
    },
    JOB_STUCK: Alert {
        name: "FluentJobStuck",
        urgency: Urgency::Later,
        title: "A job does not go on",
        rule: Some(Rule {
            group: "delivering",
            comment: "",
            expression: "max(fluent_jobs_stuck) > 0",
            holds_for: Some("5m"),
            summary: "{{ $value }} job(s) failed, or nobody goes on with them",
        }),
        is_in_status: true,
    },
    RESTARTS: Alert {
        name: "FluentRestarts",
        urgency: Urgency::Later,
        title: "A process begins anew again and again",
        rule: Some(Rule {
            group: "processes",
            comment: "",
            expression: "changes(fluent_process_started_seconds[30m]) > 2",
            holds_for: None,
            summary: "{{ $labels.instance }} began {{ $value }} times anew in half an hour",
        }),
        is_in_status: false,
    },
    MEMORY: Alert {
        name: "FluentMemory",
        urgency: Urgency::Later,
        title: "A process uses nearly all its memory",
        rule: Some(Rule {
            group: "processes",
            comment: "docker-compose.yml and the how-to give each service 256 MiB.",
            expression: r#"process_memory_usage_bytes{job="fluent-webhooks"} > 220 * 1024 * 1024"#,
            holds_for: Some("10m"),
            summary: "{{ $labels.instance }} uses {{ $value | humanize1024 }}B of its 256 MiB",
        }),
        is_in_status: false,
    },
    TELEMETRY_LOST: Alert {
        name: "FluentTelemetryLost",
        urgency: Urgency::Later,
        title: "Traces are lost",
        rule: Some(Rule {
            group: "processes",
            comment: "",
            expression: r#"sum by (instance) (increase(fluent_telemetry_exports_failed_total[15m])) > 0
  or sum by (instance) (increase(otel_sdk_processor_span_processed_total{error_type!=""}[15m])) > 0"#,
            holds_for: Some("15m"),
            summary: "traces of {{ $labels.instance }} are lost: the collector is away or too slow",
        }),
        is_in_status: false,
    },
    DISK_FILLS: Alert {
        name: "FluentDiskFills",
        urgency: Urgency::Now,
        title: "A disk fills",
        rule: Some(Rule {
            group: "processes",
            comment: "",
            expression: "fluent_disk_usage_ratio > 0.9",
            holds_for: Some("5m"),
            summary: "the disk of {{ $labels.instance }} at {{ $labels.path }} is {{ $value | humanizePercentage }} full",
        }),
        is_in_status: true,
    },
    CERTIFICATE_ENDS: Alert {
        name: "FluentCertificateEnds",
        urgency: Urgency::Now,
        title: "A certificate ends soon",
        rule: Some(Rule {
            group: "processes",
            comment: "A fortnight is a holiday and the days around it.",
            expression: "fluent_certificate_expiry_seconds - time() < 14 * 86400",
            holds_for: Some("1h"),
            summary: "the certificate {{ $labels.file }} of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}",
        }),
        is_in_status: true,
    },
    ROUTE_FORGOTTEN: Alert {
        name: "FluentRouteForgotten",
        urgency: Urgency::Later,
        title: "A route is no longer in the settings",
        rule: None,
        is_in_status: true,
    },
    PROXY_UNTRUSTED: Alert {
        name: "FluentProxyUntrusted",
        urgency: Urgency::Later,
        title: "A proxy is not trusted",
        rule: None,
        is_in_status: true,
    },
    REFUSED_HELD: Alert {
        name: "FluentRefusedHeld",
        urgency: Urgency::Later,
        title: "Refused webhooks are held",
        rule: None,
        is_in_status: true,
    },
}
