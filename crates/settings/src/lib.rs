//! Reads `application.yml` as one located tree, and each section of it
//! strictly.
//!
//! ```text
//! file ─┐
//!       ├─▶ SettingsTree: every value knows its place ─▶ section ─▶ Gateway, QueueSettings, Routes
//! env ──┘        (file:line, or the variable)      │
//!                                                  └─▶ error: place, expectation, nearest spelling
//! ```
//!
//! A key that is unknown, misspelt or not built yet is an error, never
//! ignored. A process reads the sections it needs; a route's dispatcher table
//! stays opaque to everybody but the process that runs the route.
//!
//! ```
//! use std::path::Path;
//!
//! use fluent_settings::SettingsTree;
//!
//! let text = "
//! fluent-connect:
//!   accounts: [{ name: ACME, region: sydney, environment: sandbox }]
//!   routes:
//!     - { name: audit, match: {}, dispatcher: log }
//! ";
//! let file = Path::new("application.yml");
//! let settings = SettingsTree::parse(file, text, std::iter::empty())?;
//! let routes = settings.routes(None)?;
//! assert_eq!(routes.0[0].name, "audit");
//!
//! let typo = text.replace("dispatcher", "dispatchr");
//! let error = SettingsTree::parse(file, &typo, std::iter::empty())?.routes(None).unwrap_err();
//! assert!(error.to_string().contains("application.yml:5"), "{error}");
//! # Ok::<(), fluent_settings::SettingsError>(())
//! ```
//!
//! Start reading at [`SettingsTree::load`]; `mistakes` finds all that is wrong in one run.

mod tree;

mod overrides;
mod pem;
mod yaml;
mod yaml_message;

mod error;
mod examples;
mod expectation;
mod message;
mod mistakes;
mod names;
mod section;

mod console_settings;
mod files_settings;
mod fluent_settings;
mod jet_stream_settings;
mod listeners;
mod match_warnings;
mod matching;
mod operator_settings;
mod plaintext;
mod policies;
mod queue_settings;
mod reconcile_settings;
mod route_list;
mod routes;
mod seal_settings;
mod spool_settings;
mod telemetry_settings;
mod trusted_proxies;
mod values;
mod warnings;
mod webhook;
mod webhook_keys;

mod schema;

pub use crate::console_settings::ConsoleSettings;
pub use crate::error::SettingsError;
pub use crate::fluent_settings::{
    ApiAccount, ApiSettings, EnrichSettings, EntityCheckSource, FreshnessSettings, OutdatedPolicy,
};
pub use crate::jet_stream_settings::{FileSettings, JetStreamSettings, NatsTlsSettings};
pub use crate::mistakes::Section;
pub use crate::operator_settings::{
    CertificateSettings, OperatorSettings, OperatorTls, Role, TokenSettings,
};
pub use crate::pem::read_pem;
pub use crate::plaintext::is_this_machine;
pub use crate::policies::{BreakerSettings, RateSettings};
pub use crate::queue_settings::{
    EmbeddedSettings, MIN_DEDUP_WINDOW, QueueSettings, RetentionSettings,
};
pub use crate::reconcile_settings::ReconcileSettings;
pub use crate::routes::{OnSameId, OutcomeHookSettings, RetrySettings, RouteSettings, Routes};
pub use crate::schema::schema;
pub use crate::section::nearest;
pub use crate::spool_settings::{Acknowledge, SpoolSettings};
pub use crate::telemetry_settings::{
    OtlpProtocol, OtlpSettings, SecretFile, TelemetrySettings, TracesSettings,
};
pub use crate::tree::{Location, SettingsTree, UncheckedSettings};
pub use crate::trusted_proxies::{AddressFrom, TrustedProxies};
pub use crate::values::ByteSize;
pub use crate::webhook::{Gateway, OnMalformed, REGIONS, ServerTls};

pub use verifier::SealingKey;
