//! Tests of the verifier: every way that we know of to get verification wrong.

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
