//! Whose bytes are these? Every way we know of to get that wrong.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod diagnosis;
mod forgeries;
mod keys;
mod policy;
mod properties;
mod stored;
mod support;
mod vectors;
mod vendor_sdk;
