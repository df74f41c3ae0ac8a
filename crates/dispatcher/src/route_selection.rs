//! The selection of routes that a process runs.

/// Routes of the settings that this process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSelection(Vec<String>);

impl RouteSelection {
    /// Selects all routes, and the unrouted events.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects these routes; none means everything.
    pub fn of(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the routes that were named.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether `route` runs here.
    pub fn has(&self, route: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name == route)
    }
}
