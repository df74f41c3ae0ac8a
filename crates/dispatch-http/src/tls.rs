//! TLS: the authorities that we trust, and the certificate by which we are known.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dispatch::{BoxError, OpenContext};
use dispatch_kit::without_bom;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::settings::TlsSettings;

/// Makes the settings of TLS. If nothing is sent over TLS, no authority is trusted, and the
/// machine need not have certificates of any.
pub(crate) fn client_config(
    tls: &TlsSettings,
    is_needed: bool,
    cx: &OpenContext,
) -> Result<ClientConfig, BoxError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &tls.ca {
        Some(ca) => builder.with_root_certificates(authorities(&cx.resolve(ca))?),
        None if is_needed => builder.with_platform_verifier().map_err(|error| {
            format!("tls: {error}: name a file of authorities by tls.ca, or the machine's by SSL_CERT_FILE")
        })?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            known_by(builder, &cx.resolve(certificate), &cx.resolve(key))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("tls: expected certificate and key together".into()),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, BoxError> {
    let read = fs::read(path);
    let read = read.map_err(|error| format!("tls: reading {}: {error}", path.display()))?;
    Ok(without_bom(&read).to_vec())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|error| format!("tls: {}: {error}", path.display()))?;
    match found.is_empty() {
        true => Err(format!("tls: {}: no certificate in it", path.display()).into()),
        false => Ok(found),
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, BoxError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| format!("tls.ca: {error}"))?;
    }
    Ok(store)
}

fn known_by(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    certificate: &Path,
    key: &Path,
) -> Result<ClientConfig, BoxError> {
    let certificates = certificates(certificate)?;
    let key =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| format!("tls.key: {error}"))?;
    builder
        .with_client_auth_cert(certificates, key)
        .map_err(|error| format!("tls: {error}").into())
}
