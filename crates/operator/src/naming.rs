//! Bodies that name an entity, though they are no events: nothing of them is parsed, since what
//! is wrong with one may be its JSON.

/// Webhooks that are read together, and how often for one page: 1,000 in all.
pub(crate) const TOGETHER: usize = 100;
pub(crate) const LOOKS: usize = 10;

/// A ref as JSON writes it.
#[derive(Debug)]
pub(crate) struct NameInBody(Vec<u8>);

impl NameInBody {
    pub(crate) fn new(reference: &str) -> Self {
        // A text can always be written.
        Self(serde_json::to_vec(reference).unwrap_or_default())
    }

    /// True if the body has the ref as a whole text, wherever. One that is written with other
    /// escapes than needed is not found.
    pub(crate) fn is_in(&self, body: &[u8]) -> bool {
        body.windows(self.0.len()).any(|part| part == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ref_is_found_whole_and_in_what_is_no_json() {
        let name = NameInBody::new("HD_\"1");
        assert!(name.is_in(br#"{"entityRef":"HD_\"1""#));
        assert!(!name.is_in(br#"{"entityRef":"HD_\"10"}"#));
        assert!(!name.is_in(b""));
    }
}
