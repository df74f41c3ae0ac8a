use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::line::Line;
use crate::settings::SubscriptionSettings;

/// Where routes and those who ask for their events find each other: one a process,
/// shared by its dispatchers and its gRPC service.
#[derive(Clone, Debug, Default)]
pub struct Switchboard(Arc<Mutex<HashMap<String, Arc<Line>>>>);

impl Switchboard {
    /// Opens a route's line.
    pub(crate) fn open(&self, route: &str, settings: SubscriptionSettings) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry(route.to_owned()).or_insert_with(|| Arc::new(Line::new(settings))))
    }

    /// The line of a route that this process runs.
    pub(crate) fn line(&self, route: &str) -> Option<Arc<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(route).cloned()
    }
}
