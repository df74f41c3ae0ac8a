//! The types that every other crate uses: a webhook [`Inbound`], an admitted [`Event`], and the
//! [`Clock`] that says when.
//!
//! This crate does no I/O and knows no transport. A webhook changes type as it
//! is trusted more:
//!
//! ```text
//! Inbound ──verify──▶ Verified<Inbound> ──admit──▶ Event ──queue──▶ dispatcher
//!                                          │
//!                                          └─▶ AdmissionError: 403, or quarantine
//! ```
//!
//! Start reading at [`Event::admit`].

mod inbound;
mod verified;
mod view;

mod account;
mod event;
mod exact;
mod fields;
mod id;
mod key_id;
mod known_fields;
mod stored_verifier;

mod cloud_events;
mod subject;

#[cfg(feature = "testing")]
pub mod testing;

mod clock;
mod trace;
mod trace_state;

pub use crate::account::{
    Account, AccountClaim, Accounts, Environment, KeyName, UnknownEnvironment,
};
pub use crate::clock::{Clock, FixedClock, SteadyClock, SystemClock};
pub use crate::cloud_events::{EVENT_ID_HEADER, MAX_HEADER_VALUE, encode_header_value};
pub use crate::event::{AdmissionError, Event, RestoreError, StoredEvent};
pub use crate::exact::{Decimal, ExactJson, ExactNumber, ExactValue, Rounding};
pub use crate::fields::{Fields, MAX_FIELD, Malformed, id_text};
pub use crate::id::{EventId, FluentKey, InvalidEventId, InvalidFluentKey};
pub use crate::inbound::{Headers, Inbound};
pub use crate::key_id::{InvalidKeyId, KeyDigest, KeyId};
pub use crate::known_fields::{KNOWN_FIELDS, misspelt_field, nearest_name};
pub use crate::stored_verifier::{Forgery, StoredVerdict, StoredVerifier};
pub use crate::subject::{BUCKETS, bucket, token};
pub use crate::trace::TraceParent;
pub use crate::trace_state::TraceState;
pub use crate::verified::{Algorithm, Evidence, Origin, Proof, Verified};
pub use crate::view::ViewError;

pub use bytes::Bytes;
pub use jiff::Timestamp;
