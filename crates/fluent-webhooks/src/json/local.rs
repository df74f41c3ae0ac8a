//! What commands print that work on the settings, the queue and the files of this machine.

use std::path::{Path, PathBuf};

use operator::WebhookDiagnosis;
use queue::SpoolWatermark;
use reconciler::{Admission, MissingEvent, Summary};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Seconds, Server, UtcTime};

/// What `verify` found.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifiedWebhook {
    /// Whether a listed key signed it.
    genuine: bool,
    /// Whether it would be admitted.
    admitted: bool,
    /// What was found, in words.
    finding: String,
    /// What to do.
    advice: Option<String>,
}

impl From<&WebhookDiagnosis> for VerifiedWebhook {
    fn from(diagnosis: &WebhookDiagnosis) -> Self {
        Self {
            genuine: diagnosis.genuine,
            admitted: diagnosis.admitted,
            finding: diagnosis.says.clone(),
            advice: diagnosis.advice.clone(),
        }
    }
}

/// The files that `certificate` made.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MadeCertificates {
    folder: String,
    files: Vec<String>,
}

impl MadeCertificates {
    /// These files in this folder.
    pub(crate) fn new(folder: &Path, files: &[PathBuf]) -> Self {
        Self {
            folder: folder.display().to_string(),
            files: files
                .iter()
                .map(|file| file.display().to_string())
                .collect(),
        }
    }
}

/// What a restart with these settings does to one route.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteChange {
    pub(crate) route: String,
    /// `new`, `orphaned`, `rematched`, `changed` or `same`.
    pub(crate) change: String,
    /// The largest number of events to which the change applies.
    pub(crate) events: u64,
    /// Deliveries that began under the former settings.
    pub(crate) begun: u64,
    /// The same in words.
    pub(crate) means: String,
    /// The keys of the route that have other values than what runs, apart from its match.
    pub(crate) changed_settings: Vec<String>,
}

/// A spool of the cluster, as its gateway says.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spool {
    /// What `spool forget` takes.
    id: String,
    host: String,
    /// Everything that came before this is in the queue.
    drained_to: UtcTime,
    /// Whether its gateway ended, and left it empty.
    closed: bool,
}

impl Spool {
    /// The spool of this id.
    pub(crate) fn new(id: &str, spool: &SpoolWatermark) -> Self {
        Self {
            id: id.to_owned(),
            host: spool.host.clone(),
            drained_to: spool.drained_to.into(),
            closed: spool.is_closed,
        }
    }
}

/// What a spool's file holds.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpoolState {
    /// The spool's file.
    path: String,
    /// Events that the queue has not acknowledged yet.
    unsent: u64,
    /// Events that it acknowledged, and that are to be read back before they go.
    unconfirmed: u64,
    /// Damaged ones, and those that are larger than the queue takes.
    set_aside: u64,
    /// Bodies for the quarantine.
    quarantined: u64,
    bytes: u64,
    /// When the oldest unsent event arrived.
    oldest_unsent_at: Option<UtcTime>,
}

impl SpoolState {
    /// The state of this file.
    pub(crate) fn new(path: &Path, state: &queues::SpoolState) -> Self {
        Self {
            path: path.display().to_string(),
            unsent: state.unsent,
            unconfirmed: state.unconfirmed,
            set_aside: state.set_aside,
            quarantined: state.quarantined,
            bytes: state.bytes,
            oldest_unsent_at: state.oldest_unsent.map(UtcTime::from),
        }
    }
}

/// What `spool drain` gave to the queue.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DrainedSpool {
    /// Events that the queue had never acknowledged.
    sent: u64,
    /// Events that it had acknowledged, and has.
    confirmed: u64,
    /// Events that it had acknowledged and lost, and that were sent again.
    republished: u64,
    /// Bodies for the quarantine.
    quarantined: u64,
    /// What stays in the spool: damaged, or too large for the queue.
    left: u64,
    /// Whether comparing with Fluent's log still waits for this spool.
    waited_for: bool,
}

impl From<&queues::DrainReport> for DrainedSpool {
    fn from(drained: &queues::DrainReport) -> Self {
        Self {
            sent: drained.sent,
            confirmed: drained.confirmed,
            republished: drained.refed,
            quarantined: drained.quarantined,
            left: drained.left,
            waited_for: drained.is_waited_for,
        }
    }
}

/// What `salvage` brought over.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SalvagedFile {
    /// Unsettled events that were published again.
    pub(crate) events: u64,
    /// Those of them that the queue had already.
    pub(crate) known: u64,
    /// Bodies of the old quarantine.
    pub(crate) quarantined: u64,
    /// What could not be read.
    pub(crate) lost: u64,
}

/// The result of `events index`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexState {
    /// How long it took to bring it up to date.
    pub(crate) duration_seconds: Seconds,
}

/// The state of a NATS cluster.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterState {
    /// The version of the server that answered.
    pub(crate) server: String,
    /// Whether its streams are as they are to be.
    pub(crate) good: bool,
    pub(crate) streams: Vec<ClusterStream>,
    pub(crate) servers: Vec<Server>,
    /// The servers' ports for each other, for `cluster check`.
    pub(crate) route_ports: Option<Vec<RoutePortState>>,
}

/// A stream of a cluster.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterStream {
    pub(crate) name: String,
    /// `good`, `missing`, `made`, `changed` or `drifted`.
    pub(crate) state: String,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// What differs, in words.
    pub(crate) differs: Option<String>,
}

/// A server's port for other servers, as a stranger sees it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoutePortState {
    pub(crate) server: String,
    pub(crate) address: String,
    /// `closed`, `certificate`, `password`, `open` or `other`.
    pub(crate) state: String,
    pub(crate) detail: Option<String>,
    pub(crate) certificate_ends_at: Option<UtcTime>,
}

/// What `reconcile` found.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reconciled {
    /// As many as `--limit` allows.
    missing: Vec<MissingEventState>,
    counts: ReconcileCounts,
    /// Set if retention removed what came while Fluent's log was read: the time before this one
    /// was not compared.
    known_since: Option<UtcTime>,
}

/// An event that Fluent logged and that never came.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MissingEventState {
    account: String,
    environment: String,
    /// Fluent's own id.
    fluent_event_id: String,
    /// The event's name.
    event: String,
    /// `<entityType>/<entityRef>`.
    entity: Option<String>,
    logged_at: Option<UtcTime>,
    /// What Fluent says of sending it: a status, `no-setting`, `none` or `unknown`.
    sending: String,
    /// `admissible`, `admitted`, `admitted-before`, `pending`, `workflow-failed`, `no-route`,
    /// `undecided` or `refused`.
    state: String,
    /// Admitted: the event's id here.
    event_id: Option<String>,
    /// Refused: why.
    reason: Option<String>,
}

/// Counts of a comparison.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ReconcileCounts {
    /// Events that Fluent logged and that should have come.
    logged: u64,
    /// Of these, those that came.
    received: u64,
    /// Of these, those that did not.
    missing: u64,
    /// Of the missing, those that would be admitted, or were.
    admissible: u64,
    /// Of the missing, those that were admitted.
    admitted: u64,
    /// Of the missing, those that the settings keep out.
    kept_out: u64,
}

impl Reconciled {
    /// What was found, of which `missing` is shown.
    pub(crate) fn new(missing: &[MissingEvent], summary: &Summary) -> Self {
        Self {
            missing: missing.iter().map(MissingEventState::from).collect(),
            counts: ReconcileCounts {
                logged: summary.logged,
                received: summary.received,
                missing: summary.missing,
                admissible: summary.admissible,
                admitted: summary.admitted,
                kept_out: summary.kept_out,
            },
            known_since: summary.known_since.map(UtcTime::from),
        }
    }
}

impl From<&MissingEvent> for MissingEventState {
    fn from(missing: &MissingEvent) -> Self {
        let event_id = match &missing.admission {
            Admission::Admitted { event_id } => Some(event_id.to_string()),
            _ => None,
        };
        let reason = match &missing.admission {
            Admission::Refused { reason } => Some(reason.clone()),
            _ => None,
        };
        Self {
            account: missing.account.clone(),
            environment: missing.environment.to_owned(),
            fluent_event_id: missing.fluent_event_id.clone(),
            event: missing.name.clone(),
            entity: missing.entity.clone(),
            logged_at: missing.logged_at.map(UtcTime::from),
            sending: missing.sending.to_string(),
            state: missing.admission.as_str().to_owned(),
            event_id,
            reason,
        }
    }
}
