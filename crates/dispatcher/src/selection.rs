/// Which routes of the settings this process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(Vec<String>);

impl Selection {
    /// All of them, and what no route matches.
    pub fn everything() -> Self {
        Self::default()
    }

    /// These; none named means everything.
    pub fn of(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Whether nothing was left out.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The routes that were named.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether `route` is run here.
    pub fn has(&self, route: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name == route)
    }
}
