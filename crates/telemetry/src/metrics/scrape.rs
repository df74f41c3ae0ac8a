//! The metrics as Prometheus reads them.

use prometheus::{Encoder, Registry, TextEncoder};

/// The content type of a scrape.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics as they are now.
#[derive(Clone, Debug)]
pub struct Scrape(Registry);

impl Scrape {
    pub(crate) fn new(registry: Registry) -> Self {
        Self(registry)
    }

    /// The metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing into memory can't fail, nor can names that the exporter made.
        let _ = TextEncoder::new().encode(&self.0.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}
