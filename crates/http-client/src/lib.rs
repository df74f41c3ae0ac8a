//! An HTTP/1.1 client for requests that must not be made twice.
//!
//! A server that answered 2xx has done what it was asked for, even if the rest of its answer is
//! malformed, too long, or never ends. So the status of each answer is read beside the HTTP
//! library, from the first bytes on the connection. A request that went out on a connection which
//! the server was just closing is sent once more on a new one.
//!
//! Redirects are not followed, no proxy is taken from the environment, and only addresses that
//! [`addresses`] allows are connected to.
//!
//! Start reading at [`HttpClient::send`].

pub mod addresses;
mod client;
mod failure;
mod retry_after;
mod status_tap;

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

pub use crate::client::{Answer, HttpClient, RequestParts, SendError, uri_of, usual_headers};
pub use crate::failure::{SendFailure, Target};
pub use crate::retry_after::retry_after;

/// A cause of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes settings of TLS that trust the authorities of this machine. If nothing `is_needed`, none
/// is trusted, and the machine need not have certificates of any.
///
/// # Errors
/// If the machine's authorities are needed and can't be read.
pub fn machine_tls(is_needed: bool) -> Result<ClientConfig, BoxError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match is_needed {
        true => builder.with_platform_verifier()?,
        false => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}
