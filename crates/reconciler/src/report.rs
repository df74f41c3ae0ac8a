//! The report of a comparison.

use event_model::{EventId, Timestamp};
use serde::{Serialize, Serializer};

use crate::fluent_log::SendStatus;

/// An event that Fluent logged and that was not received.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingEvent {
    /// Name of its account.
    pub account: String,
    /// Environment of the account.
    pub environment: &'static str,
    /// Fluent's id of the event.
    pub fluent_event_id: String,
    /// Name of the event.
    pub name: String,
    /// Entity, as `<entityType>/<entityRef>`, if the log has it.
    pub entity: Option<String>,
    /// Time at which Fluent logged it.
    pub logged_at: Option<Timestamp>,
    /// Record of sending it: a status, `no-setting`, `none` or `unknown`.
    pub sending: SendStatus,
    /// Decision about the event.
    #[serde(flatten)]
    pub admission: Admission,
}

/// Decision about a missing event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    tag = "state"
)]
pub enum Admission {
    /// It would be admitted.
    Admissible,
    /// It was admitted.
    Admitted {
        /// The event's id.
        #[serde(serialize_with = "as_text")]
        event_id: EventId,
    },
    /// Another process admitted it meanwhile.
    AdmittedBefore,
    /// Fluent still works on it: it stays out for now.
    Pending,
    /// Its workflow failed before sending: it stays out.
    WorkflowFailed,
    /// It stays out: no route for reconciled events matches it.
    NoRoute,
    /// It stays out: the `when` of a route gives no answer with what the log has of it.
    Undecided,
    /// It stays out: admission refused it.
    Refused {
        /// Reason of the refusal.
        reason: String,
    },
}

impl Admission {
    /// Whether the settings keep it out, and not Fluent.
    pub fn is_kept_out(&self) -> bool {
        matches!(self, Self::NoRoute | Self::Undecided | Self::Refused { .. })
    }

    /// Returns the value of its field `state`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Admissible => "admissible",
            Self::Admitted { .. } => "admitted",
            Self::AdmittedBefore => "admitted-before",
            Self::Pending => "pending",
            Self::WorkflowFailed => "workflow-failed",
            Self::NoRoute => "no-route",
            Self::Undecided => "undecided",
            Self::Refused { .. } => "refused",
        }
    }
}

fn as_text<S: Serializer>(id: &EventId, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(id)
}

/// Counts of a comparison, up to the point that it has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Events that Fluent logged and that should have been received.
    pub logged: u64,
    /// Of these, those that were received.
    pub received: u64,
    /// Of these, those that were not.
    pub missing: u64,
    /// Of the missing, those that would be admitted, or were.
    pub admissible: u64,
    /// Of the missing, those that were admitted.
    pub admitted: u64,
    /// Of the missing, those that the settings keep out.
    pub kept_out: u64,
    /// Set if retention removed what came while Fluent's log was read: the time before this one
    /// was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_since: Option<Timestamp>,
    /// Earliest log time of a missing event on which Fluent still works.
    #[serde(skip)]
    pub pending_since: Option<Timestamp>,
}

impl Summary {
    pub(crate) fn add(&mut self, missing: &MissingEvent) {
        self.missing += 1;
        match &missing.admission {
            Admission::Admissible | Admission::AdmittedBefore => self.admissible += 1,
            Admission::Admitted { .. } => {
                self.admissible += 1;
                self.admitted += 1;
            }
            Admission::Pending => {
                self.pending_since = [self.pending_since, missing.logged_at]
                    .into_iter()
                    .flatten()
                    .min();
            }
            Admission::WorkflowFailed => {}
            Admission::NoRoute | Admission::Undecided | Admission::Refused { .. } => {
                self.kept_out += 1
            }
        }
    }
}

/// Receives each finding while a comparison runs.
pub trait Observer: Send {
    /// Called with an event that is missing, and the decision about it.
    fn missing(&mut self, missing: MissingEvent);

    /// Called when Fluent's log was read up to this time.
    fn read(&mut self, until: Timestamp);
}
