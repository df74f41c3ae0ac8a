//! What a dispatcher would send for an event, for a person who tries settings.

/// What stands in a preview for a secret, or for what only its holder can make.
pub const MASKED: &str = "***";

/// What a dispatcher would send for an event.
///
/// ```
/// let preview = fluent_dispatch::Preview::new("POST https://example.com/orders", "{}")
///     .with("content-type", "application/json")
///     .with("authorization", format!("Bearer {}", fluent_dispatch::MASKED));
/// assert_eq!(preview.headers[0].0, "content-type");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preview {
    /// Where it would go.
    pub target: String,
    /// Headers or fields with their values, in the order in which they would be sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Preview {
    /// Makes a preview without headers.
    pub fn new(target: impl Into<String>, body: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Adds a header. Put [`MASKED`] in place of a secret.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}
