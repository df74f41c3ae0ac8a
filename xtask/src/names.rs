//! Names that were replaced stay away, and what ARCHITECTURE.md points at is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Types that have the field's term now: `now` is what a reader looks for.
const RETIRED_TYPES: [(&str, &str); 74] = [
    ("Acknowledged", "AcknowledgedRow"),
    ("Aside", "NetworkNamespace"),
    ("Attempting", "AttemptRunner"),
    ("Beside", "SqliteStores, JetStreamStores"),
    ("Board", "StatusRegistry"),
    ("Burst", "ResponseCache"),
    ("Came", "Fetched"),
    ("Cause", "Parent"),
    ("Circumstances", "RetryInput"),
    ("Confirming", "PresenceCheck"),
    ("Denied", "ShareDenied"),
    ("Drained", "DrainReport"),
    ("Ended", "AttemptResult, SpanStatus"),
    ("Erased", "ErasedDispatcher"),
    ("Fate", "RedeliveryDecision"),
    ("Feed", "Fetcher"),
    ("Feeder", "TailReader"),
    ("Floor", "SettledFloor"),
    ("Forgotten", "HistoryHorizon"),
    ("Gate", "Isolation"),
    ("Gone", "CallerGone"),
    ("Guarded", "DeadlineStream, AuthorizedService"),
    ("HasMarks", "HasFacts"),
    ("Hold", "CaptureJob"),
    ("HoldInGroups", "GroupedRejected"),
    ("Holding", "RejectedCapture, Presence"),
    ("InHand", "Outstanding"),
    ("Keep", "ResponseCapture"),
    ("KeepBody", "StoreBody"),
    ("KeepInGroups", "GroupedQuarantine"),
    ("Left", "ViewerGone"),
    ("Listed", "RawRoute"),
    ("ListedKeys", "RawKeys"),
    ("Made", "RequestBody"),
    ("Mark", "InFlightMarker"),
    ("MarkEntry", "Fact"),
    ("Marks", "FactStore"),
    ("Misfit", "EventDecodeError"),
    ("Miss", "Mismatch"),
    ("Needed", "RequiredPart"),
    ("NotAsked", "EnrichmentFailed"),
    ("NotTold", "NotificationFailed"),
    ("OldSpool", "DamagedSpool"),
    ("Pace", "RateLimiter"),
    ("Past", "DeliveryState"),
    ("Placed", "PublishedAt"),
    ("Probing", "ProbeSchedule"),
    ("Pulse", "ConnectionWatchdog"),
    ("RefusedHold", "RejectedStore"),
    ("RefusedWebhook", "RejectedWebhook"),
    ("Refusal", "AdmissionError"),
    ("Rejection", "SignatureError"),
    ("Renewed", "NewToken"),
    ("Reporting", "SpoolReporter"),
    ("Said", "AttributeValue"),
    ("Salvaged", "SalvageReport"),
    ("Seat", "SubscriberHandle"),
    ("SetAside", "QuarantineDamaged"),
    ("Sharing", "ProcessResources"),
    ("Size", "ByteSize"),
    ("SpoolMark", "SpoolWatermark"),
    ("Standing", "QueueHealth, StreamMonitor, Freshness"),
    ("Switchboard", "SubscriptionRegistry"),
    ("Taken", "PendingDelivery"),
    ("Taking", "RouteConsumer"),
    ("Teller", "ProgressReporter"),
    ("Tells", "ProgressMessage"),
    ("Terms", "MatchFields"),
    ("Tree", "SettingsTree"),
    ("Twin", "ReconciledPair"),
    ("Twins", "ReconciledDedup"),
    ("Unmade", "MailError"),
    ("Unseen", "Expected"),
    ("Want", "FetchRequest"),
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

/// Every file and folder below `folder` that is ours.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

/// The types that a file defines.
fn types(code: &str) -> BTreeSet<&str> {
    let words: Vec<_> = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let mut found = BTreeSet::new();
    for line in words {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        while let Some(word) = words.next() {
            if ["struct", "enum", "trait", "type", "union"].contains(&word) {
                found.extend(words.next());
            }
        }
    }
    found
}

#[test]
fn retired_names_stay_away() {
    let mut wrong = Vec::new();
    for path in below(&root().join("crates")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some((old, now)) = RETIRED_FILES.iter().find(|(old, _)| *old == name) {
            wrong.push(format!("{}: `{old}` is called {now}", path.display()));
        }
        if path.extension().is_none_or(|end| end != "rs")
            || path.ends_with("generated/fluent.webhooks.v1.rs")
        {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let defined = types(&text);
        for (old, now) in RETIRED_TYPES
            .iter()
            .filter(|(old, _)| defined.contains(old))
        {
            wrong.push(format!("{}: `{old}` is called {now}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "names that were replaced:\n{}",
        wrong.join("\n")
    );
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
