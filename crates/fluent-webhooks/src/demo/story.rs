//! The events of the demo, printed as they happen and kept for the verdict.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use owo_colors::{AnsiColors, OwoColorize};
use simulator::Attempted;

use super::script::Scene;
use crate::output::line;

/// The events of the demo, shared by the sender and the endpoints.
#[derive(Clone, Debug)]
pub(super) struct Story(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    delivered: Mutex<HashMap<String, Vec<DeliveredEvents>>>,
}

/// One request to an endpoint.
#[derive(Clone, Debug)]
pub(super) struct DeliveredEvents {
    pub(super) id: String,
    pub(super) endpoint: String,
    pub(super) name: String,
    pub(super) reference: String,
    pub(super) attempt: String,
    pub(super) status: u16,
    /// True if the webhook never came, and the event was found in Fluent's log.
    pub(super) is_reconciled: bool,
}

impl Story {
    pub(super) fn begin(began: Instant) -> Self {
        Self(Arc::new(Inner {
            began,
            delivered: Mutex::default(),
        }))
    }

    /// Prints a line that is not about one event.
    pub(super) fn tell(&self, what: &str, about: &str) {
        self.print(what, AnsiColors::Magenta, about);
    }

    pub(super) fn sent(&self, scene: &Scene, attempted: &Attempted) {
        let (color, answer) = match &attempted.answer {
            None => (AnsiColors::Red, "no answer".to_owned()),
            Some(answer) if answer.body["duplicate"] == true => {
                (AnsiColors::Cyan, format!("{} duplicate", answer.status))
            }
            Some(answer) if answer.body["quarantined"] == true => {
                (AnsiColors::Cyan, format!("{} quarantined", answer.status))
            }
            Some(answer) if answer.status == 200 => (AnsiColors::Blue, "200 accepted".to_owned()),
            Some(answer) => (AnsiColors::Yellow, format!("{} refused", answer.status)),
        };
        let again = if attempted.attempts > 1 {
            format!(", at Fluent's attempt {}", attempted.attempts)
        } else {
            String::new()
        };
        let about = if scene.about.is_empty() {
            String::new()
        } else {
            format!("  ({})", scene.about)
        };
        self.print(
            "sent",
            color,
            &format!(
                "{:<39} {:<14} {answer}{again}{about}",
                scene.name, scene.reference
            ),
        );
    }

    pub(super) fn delivered(&self, delivered: DeliveredEvents) {
        let DeliveredEvents {
            endpoint,
            name,
            reference,
            attempt,
            status,
            is_reconciled,
            ..
        } = &delivered;
        let found = if *is_reconciled {
            ", found in Fluent's log"
        } else {
            ""
        };
        let (what, color) = if *status == 200 {
            ("delivered", AnsiColors::Green)
        } else {
            ("failed", AnsiColors::Yellow)
        };
        let answer = if *status == 200 {
            String::new()
        } else {
            format!(": the endpoint answered {status}")
        };
        self.print(
            what,
            color,
            &format!("{name:<39} {reference:<14} to /{endpoint}, attempt {attempt}{found}{answer}"),
        );
        self.all()
            .entry(delivered.id.clone())
            .or_default()
            .push(delivered);
    }

    /// The requests about this event.
    pub(super) fn of(&self, id: &str) -> Vec<DeliveredEvents> {
        self.all().get(id).cloned().unwrap_or_default()
    }

    /// The requests about reconciled events that were answered 200.
    pub(super) fn recovered(&self) -> Vec<DeliveredEvents> {
        let all: Vec<DeliveredEvents> = self.all().values().flatten().cloned().collect();
        all.into_iter()
            .filter(|delivered| delivered.is_reconciled && delivered.status == 200)
            .collect()
    }

    /// The ids of all events that an endpoint has got.
    pub(super) fn ids(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<DeliveredEvents>>> {
        self.0
            .delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self, what: &str, color: AnsiColors, about: &str) {
        let at = self.0.began.elapsed().as_secs_f32();
        line(format!(
            "{:>6} {} {about}",
            format!("{at:.1}s").dimmed(),
            format!("{what:<9}").color(color)
        ));
    }
}
