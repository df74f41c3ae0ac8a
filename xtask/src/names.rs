//! Names that were replaced stay away, and what ARCHITECTURE.md points at is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Types that have the term of the field now, each with the type to look for instead.
const RETIRED_TYPES: [(&str, &str); 147] = [
    ("About", "DeliveryInfo, EventSummary"),
    ("Acknowledged", "AcknowledgedRow"),
    ("Admitting", "MissingAdmitter"),
    ("Answered", "EndpointAnswer, HandlerError, HandlerAnswer"),
    ("Arrived", "InboxBatch"),
    ("Aside", "NetworkNamespace"),
    ("Attempting", "AttemptRunner"),
    ("Begun", "BreakerAttempt, OpenEntry"),
    ("Beside", "SqliteStores, JetStreamStores"),
    ("Blocked", "SettlementBlocks"),
    ("Blocking", "BlockGuard"),
    ("Board", "StatusRegistry"),
    ("Bucket", "TokenBucket"),
    ("Burst", "ResponseCache"),
    ("Came", "Fetched"),
    ("Cause", "Parent"),
    ("Chain", "ErrorChain"),
    ("Checked", "CheckedResolver"),
    ("Circumstances", "RetryInput"),
    ("Common", "CommonArgs"),
    ("Comparing", "Comparison"),
    ("Confirm", "EntityCheckSource"),
    ("Confirmed", "PresenceCounts"),
    ("Confirmer", "EntityCheck"),
    ("Confirming", "PresenceCheck"),
    ("Current", "CurrentCertificate"),
    ("Damaged", "RestoreError"),
    ("Denied", "ShareDenied"),
    ("Dispatching", "RunningRoutes"),
    ("Drained", "DrainReport"),
    ("Ended", "SpanStatus, AttemptResult, WorkError"),
    ("Erased", "ErasedDispatcher"),
    ("Extra", "ExtraHeaders"),
    ("Fate", "RedeliveryDecision, ScriptedOutcome"),
    ("Feed", "Fetcher"),
    ("Feeder", "TailReader"),
    ("Floor", "SettledFloor"),
    ("Forgotten", "HistoryHorizon"),
    ("Gate", "Isolation"),
    ("Gone", "CallerGone"),
    ("Granted", "GrantedClaim"),
    ("GuardSettings", "FreshnessSettings"),
    ("Guarded", "AuthorizedService, DeadlineStream"),
    ("HasFacts", "FactAccess"),
    ("HasMarks", "FactAccess"),
    ("Held", "ThrottleGuard, OpenLease, PermitState, HeldLease"),
    ("Hold", "CaptureJob"),
    ("HoldInGroups", "GroupedRejected"),
    ("Holding", "RejectedCapture"),
    ("Hours", "SeenHours"),
    ("InFlight", "InFlightWriter"),
    ("InHand", "Outstanding"),
    ("Keep", "ResponseCapture, StoreEvent, QuarantineJob"),
    ("KeepBody", "StoreBody"),
    ("KeepInGroups", "GroupedQuarantine"),
    ("LastLook", "ClockReading"),
    ("Left", "ViewerGone"),
    ("Lenient", "LenientCodec"),
    ("Link", "NatsConnection"),
    ("Listed", "RawRoute, RawFluentAccount"),
    ("ListedKeys", "RawKeys"),
    ("LookedUp", "RedeliveryLookup"),
    ("Made", "RequestBody"),
    ("Mark", "InFlightMarker"),
    ("MarkEntry", "Fact"),
    ("Marks", "FactStore"),
    ("MayAsk", "FetchQuota"),
    ("Misfit", "EventDecodeError"),
    ("Misread", "ConditionSyntaxError"),
    ("Miss", "Mismatch"),
    ("Missing", "MissingEvent"),
    ("MovedOn", "OutdatedPolicy"),
    ("MovedOnPolicy", "OutdatedPolicy"),
    ("Needed", "RequiredPart"),
    ("Observed", "ObservabilitySettings"),
    ("OldSpool", "DamagedSpool"),
    ("OnKept", "OnStored"),
    ("Opened", "OpenedFile, OpenedQueue, OpenedRoutes"),
    ("Others", "DuplicateChecks"),
    ("Pace", "RateLimiter"),
    ("Pass", "ComparisonRun"),
    ("Past", "DeliveryState"),
    ("Placed", "PublishedAt"),
    ("Probing", "ProbeSchedule"),
    ("Published", "PublishResults"),
    ("Pulse", "ConnectionWatchdog"),
    ("Ready", "ReadyDelivery"),
    ("Receiving", "ReceiveState"),
    ("Recent", "RecentEvents"),
    ("Reconciling", "ReconcilerTask"),
    ("Recorded", "ActiveSpan, CollectedSpans"),
    ("Refusal", "AdmissionError"),
    ("RefusedCount", "RejectedCount"),
    ("RefusedHold", "RejectedStore"),
    ("RefusedWebhook", "RejectedWebhook"),
    ("Rejection", "SignatureError"),
    ("Renewed", "NewToken"),
    ("Replayed", "ReplayOutcome"),
    ("Reporting", "SpoolReporter"),
    ("Said", "AttributeValue"),
    ("Salvaged", "SalvageReport"),
    ("Scripted", "ScriptedDispatcher"),
    ("Seat", "SubscriberHandle"),
    ("SeenHere", "SeenEventsRecorder"),
    (
        "Selection",
        "RouteSelection, LetterSelection, LetterArgs, FieldSelection",
    ),
    ("Serving", "ConnectionServer"),
    ("SetAside", "QuarantineDamaged"),
    ("Sharing", "ProcessResources"),
    ("Signed", "SignedBody, SignedInput"),
    ("Size", "ByteSize"),
    ("Skip", "SkipReason"),
    ("SomebodyIsNeeded", "NeedsAttention"),
    ("SpoolMark", "SpoolWatermark"),
    ("Stage", "ConnectionStage"),
    ("Standing", "StreamMonitor, RouteProgress, Freshness"),
    ("Start", "StartPosition"),
    ("Started", "TelemetryHandle"),
    ("Switchboard", "SubscriptionRegistry"),
    ("Taken", "ClaimedDeliveries, PendingDelivery, MailReceipt"),
    ("Taking", "RouteConsumer"),
    ("Tallies", "ProgressStream"),
    ("Tapped", "TappedStream"),
    ("Teller", "ProgressReporter"),
    ("Tells", "ProgressMessage"),
    ("Terms", "MatchFields"),
    ("ThenListed", "RawOutcomeHook"),
    ("ThenSettings", "OutcomeHookSettings"),
    ("Time", "Duration"),
    ("Touched", "AffectedItems"),
    ("Tree", "SettingsTree"),
    ("Twin", "ReconciledPair"),
    ("Twins", "ReconciledDedup"),
    ("Unconfirmed", "UnconfirmedRow"),
    ("Undecided", "ConditionError"),
    ("Unfit", "RecordError"),
    ("Unmade", "MailError"),
    ("Unseen", "Expected"),
    ("Unsettled", "SettleError"),
    ("Unviewable", "ViewError"),
    ("Used", "UsedSpace"),
    ("Verdict", "Disposition, DemoVerdict"),
    ("Want", "FetchRequest"),
    ("Wanted", "DeliveryRequest"),
    ("Watch", "RequestTelemetry, DeliveryTelemetry"),
    ("When", "TimeArg"),
    ("Which", "LetterChoice"),
    ("Working", "RouteProcessStatus"),
];

/// Files and folders below `crates`, and what they are called now.
const RETIRED_FILES: [(&str, &str); 20] = [
    ("adapters", "queues"),
    ("alone.rs", "exclusive_marker.rs"),
    ("apis.rs", "fluent_clients.rs"),
    ("beside", "stores"),
    ("board.rs", "route_status.rs"),
    ("burst.rs", "response_cache.rs"),
    ("feed.rs", "fetcher.rs"),
    ("feeder.rs", "tail_reader.rs"),
    ("gate.rs", "isolation.rs"),
    ("holding.rs", "rejected_capture.rs, presence.rs"),
    ("janitor.rs", "retention.rs"),
    ("marks.rs", "facts.rs"),
    ("pace.rs", "rate_limit.rs"),
    ("past.rs", "delivery_state.rs"),
    ("pulse.rs", "connection_watchdog.rs"),
    ("switchboard.rs", "registry.rs"),
    ("then.rs", "notify.rs"),
    ("twins.rs", "reconciled_dedup.rs"),
    ("waves.rs", "rounds.rs"),
    ("wire", "proto"),
];

/// Keys of the settings, as documents and examples name them, and what they are called now. The
/// settings themselves refuse an old key.
const RETIRED_SETTINGS: [(&str, &str); 19] = [
    ("`at-once`", "concurrency"),
    ("api.per-second", "requests-per-second"),
    ("`patience`", "max-wait"),
    ("patience:", "max-wait"),
    ("`guard`", "freshness"),
    ("moved-on:", "outdated"),
    ("confirm: fluent", "entity-check"),
    ("`confirm`", "entity-check"),
    ("`excerpt`", "error-body-bytes"),
    ("excerpt:", "error-body-bytes"),
    ("`longest`", "max-duration"),
    ("longest:", "max-duration"),
    ("reconcile.events", "event-names"),
    ("reconcile.every", "interval"),
    ("reconcile.delay", "min-age"),
    ("reconcile.back", "lookback"),
    ("metrics-every", "metrics-interval"),
    ("traces.sample`", "sample-ratio"),
    ("inbox: _INBOX", "inbox-prefix"),
];

/// Words of the contract, of metrics and of the log, and what they are called now.
const RETIRED_WORDS: [(&str, &str); 20] = [
    ("fluent.held", "fluent.pending_review"),
    ("fluent_held", "fluent_pending_review"),
    ("fluent.queue.ids.known", "fluent.queue.dedup_window"),
    ("fluent_queue_ids_known", "fluent_queue_dedup_window"),
    ("api.login.rests_until", "api.login.blocked_until"),
    ("api.login.rests_until", "api.login.blocked_until"),
    ("fluent.certificate.ends", "fluent.certificate.expiry"),
    ("fluent_certificate_ends", "fluent_certificate_expiry"),
    ("webhooks.refused.known\"", "webhooks.refused.known_client"),
    (
        "webhooks_refused_known_total",
        "webhooks_refused_known_client_total",
    ),
    ("webhooks.durable.duration", "webhooks.publish.duration"),
    ("webhooks_durable_duration", "webhooks_publish_duration"),
    ("fluent.reconcile.behind", "fluent.reconcile.lag"),
    ("fluent_reconcile_behind", "fluent_reconcile_lag"),
    ("message Tally", "message BulkProgress"),
    ("v1::Tally", "v1::BulkProgress"),
    ("v1::Refused ", "v1::RefusedWebhook"),
    ("v1::Working", "v1::RouteProcess"),
    ("v1::EventStory", "v1::EventHistory"),
    ("again_ms", "retry_after_ms"),
];

/// Folders that hold what others made.
const NOT_OURS: [&str; 4] = ["target", "generated", "node_modules", ".git"];

/// Every file and folder below `folder` that is ours.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if path.is_dir() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

/// The types that this code defines.
fn types(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        while let Some(word) = words.next() {
            if ["struct", "enum", "trait", "type", "union"].contains(&word) {
                found.extend(words.next().map(str::to_owned));
            }
        }
    }
    found
}

/// Whether a text points at the type: in a link, or where it is imported.
fn points_at(text: &str, name: &str) -> bool {
    let link = format!("[`{name}");
    let is_linked = text.match_indices(&link).any(|(at, _)| {
        let rest = &text[at + link.len()..];
        rest.starts_with('`') || rest.starts_with("::")
    });
    let end = format!("::{name};");
    is_linked
        || text
            .lines()
            .any(|line| line.starts_with("use ") && line.ends_with(&end))
}

pub(crate) fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rs")
}

#[test]
fn retired_names_stay_away() {
    let mut wrong = Vec::new();
    for path in below(&root().join("crates")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some((old, now)) = RETIRED_FILES.iter().find(|(old, _)| *old == name) {
            wrong.push(format!("{}: `{old}` is called {now}", path.display()));
        }
        if is_rust(&path) {
            let defined = types(&fs::read_to_string(&path).unwrap());
            let retired = RETIRED_TYPES
                .iter()
                .filter(|(old, _)| defined.contains(*old));
            wrong.extend(retired.map(|(old, now)| format!("{}: `{old}` is {now}", path.display())));
        }
    }
    assert!(
        wrong.is_empty(),
        "names that were replaced:\n{}",
        wrong.join("\n")
    );
}

/// What is compiled nowhere, or only as a comment, is not renamed with the code.
#[test]
fn nothing_points_at_a_retired_name() {
    let mut wrong = Vec::new();
    for folder in ["crates", "docs", "examples", "xtask/templates"] {
        for path in below(&root().join(folder)) {
            let is_text = is_rust(&path) || path.extension().is_some_and(|end| end == "md");
            if !is_text {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let retired = RETIRED_TYPES
                .iter()
                .filter(|(old, _)| points_at(&text, old));
            wrong.extend(retired.map(|(old, now)| format!("{}: `{old}` is {now}", path.display())));
        }
    }
    assert!(
        wrong.is_empty(),
        "names that were replaced:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn documents_name_settings_as_they_are_called_now() {
    let mut files: Vec<_> = ["docs", "config", "examples"]
        .iter()
        .flat_map(|folder| below(&root().join(folder)))
        .collect();
    files.extend(["README.md", "ARCHITECTURE.md"].map(|name| root().join(name)));
    let is_text = |path: &&PathBuf| {
        let end = path.extension().unwrap_or_default();
        ["md", "yml", "json", "conf"]
            .iter()
            .any(|text| end == *text)
    };
    let mut wrong = Vec::new();
    for path in files.iter().filter(is_text) {
        let text = fs::read_to_string(path).unwrap();
        let retired = RETIRED_SETTINGS
            .iter()
            .filter(|(old, _)| text.contains(old));
        wrong.extend(retired.map(|(old, now)| format!("{}: {old} is {now}", path.display())));
    }
    assert!(
        wrong.is_empty(),
        "settings that were renamed:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn retired_words_stay_away() {
    let mut wrong = Vec::new();
    for folder in ["config", "crates", "docs", "examples", "proto"] {
        for path in below(&root().join(folder)) {
            // What is no text has no words.
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let retired = RETIRED_WORDS.iter().filter(|(old, _)| text.contains(old));
            wrong.extend(retired.map(|(old, now)| format!("{}: `{old}` is {now}", path.display())));
        }
    }
    assert!(
        wrong.is_empty(),
        "words that were replaced:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn what_replaced_them_is_there() {
    let files = below(&root().join("crates"));
    let code = files.iter().filter(|path| is_rust(path));
    let defined: BTreeSet<_> = code
        .flat_map(|path| types(&fs::read_to_string(path).unwrap()))
        .collect();
    let of_others = ["Duration"];
    let named = RETIRED_TYPES.iter().flat_map(|(_, now)| now.split(", "));
    let missing: Vec<_> = named
        .filter(|now| !defined.contains(*now) && !of_others.contains(now))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (_, now) in RETIRED_FILES {
        for now in now.split(", ") {
            assert!(files.iter().any(|path| path.ends_with(now)), "{now}");
        }
    }
}

#[test]
fn the_map_names_files_that_are_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for line in text.lines() {
        // Within a line a path may go on from the one before it.
        let mut base = None;
        for path in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.contains(".rs") || code.contains('/'))
        {
            let is_path = path
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-{},".contains(c));
            if !is_path || path.starts_with('/') {
                continue;
            }
            let from_crates = root().join("crates").join(path);
            let beside = base
                .iter()
                .flat_map(|base: &PathBuf| base.ancestors().take(3))
                .map(|near| near.join(path));
            match [root().join(path), from_crates]
                .into_iter()
                .chain(beside)
                .find(|path| path.exists())
            {
                Some(there) if there.is_file() => base = there.parent().map(Path::to_owned),
                Some(folder) => base = Some(folder),
                None => missing.push(path.to_owned()),
            }
        }
    }
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what is not there: {missing:?}"
    );
}
