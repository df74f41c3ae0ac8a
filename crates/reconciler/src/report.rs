//! What a comparison says.

use event_model::{EventId, Timestamp};
use serde::{Serialize, Serializer};

use crate::log::Sending;

/// An event that Fluent logged and that never came.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// Whose it is.
    pub account: String,
    /// And in which world.
    pub environment: &'static str,
    /// Fluent's id of it.
    pub fluent_event_id: String,
    /// Its name.
    pub name: String,
    /// `<entityType>/<entityRef>`, where the log says so.
    pub entity: Option<String>,
    /// When Fluent logged it.
    pub logged_at: Option<Timestamp>,
    /// What Fluent says of sending it: a status, `no-setting`, `none` or `unknown`.
    pub sending: Sending,
    /// What becomes of it.
    #[serde(flatten)]
    pub admission: Admission,
}

/// What becomes of what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "state")]
pub enum Admission {
    /// It would be admitted.
    Admissible,
    /// It was admitted.
    Admitted {
        /// The event's id.
        #[serde(serialize_with = "as_text")]
        event_id: EventId,
    },
    /// Somebody else admitted it meanwhile.
    AdmittedBefore,
    /// Fluent still works on it: it stays out for now.
    Pending,
    /// Its workflow failed and did not get to sending: it stays out.
    WorkflowFailed,
    /// It stays out: no route that takes what is reconciled matches it.
    NoRoute,
    /// It stays out: the `when` of a route gives no answer for what the log has of it.
    Undecided,
    /// It stays out: it may not come in.
    Refused {
        /// Why not.
        reason: String,
    },
}

impl Admission {
    /// Whether the settings keep it out, and not Fluent.
    pub fn is_kept_out(&self) -> bool {
        matches!(self, Self::NoRoute | Self::Undecided | Self::Refused { .. })
    }

    /// Its `state`.
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

/// How many of what, up to where a comparison has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Events that Fluent logged, and that should have come.
    pub logged: u64,
    /// Of these, those that came.
    pub received: u64,
    /// Those that did not.
    pub missing: u64,
    /// Of these, those that would be admitted, or were.
    pub admissible: u64,
    /// Of these, those that were.
    pub admitted: u64,
    /// Of the missing, those that the settings keep out.
    pub kept_out: u64,
    /// Since when Fluent works on one of the missing.
    #[serde(skip)]
    pub pending_since: Option<Timestamp>,
}

impl Tally {
    pub(crate) fn add(&mut self, missing: &Missing) {
        self.missing += 1;
        match &missing.admission {
            Admission::Admissible | Admission::AdmittedBefore => self.admissible += 1,
            Admission::Admitted { .. } => {
                self.admissible += 1;
                self.admitted += 1;
            }
            Admission::Pending => {
                self.pending_since = [self.pending_since, missing.logged_at].into_iter().flatten().min();
            }
            Admission::WorkflowFailed => {}
            Admission::NoRoute | Admission::Undecided | Admission::Refused { .. } => self.kept_out += 1,
        }
    }
}

/// Hears what is found, as it is found.
pub trait Observer: Send {
    /// One that is missing, and what became of it.
    fn missing(&mut self, missing: Missing);

    /// Fluent's log was read up to there.
    fn read(&mut self, until: Timestamp);
}
