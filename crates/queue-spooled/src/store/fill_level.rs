//! Fill level of a spool.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of everything stored, and their limit.
#[derive(Debug)]
pub(crate) struct Level {
    bytes: AtomicU64,
    pub(crate) limit: u64,
    is_full: AtomicBool,
}

impl Level {
    pub(crate) fn new(bytes: u64, limit: u64) -> Self {
        Self {
            bytes: AtomicU64::new(bytes),
            limit,
            is_full: AtomicBool::new(false),
        }
    }

    /// Bytes as far as they are counted; a measurement of the file corrects the number.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Records that something was refused because the spool is full.
    pub(crate) fn note_full(&self) {
        if !self.is_full.swap(true, Ordering::AcqRel) {
            tracing::error!(
                limit = self.limit,
                "the spool is full: events go to the queue directly, or are refused"
            );
        }
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.bytes() >= self.limit
    }

    pub(crate) fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        if bytes < self.limit && self.is_full.swap(false, Ordering::AcqRel) {
            tracing::info!("the spool has room again");
        }
    }
}
