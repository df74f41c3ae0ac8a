//! TLS on a port of ours, for installations where nothing before us ends it. The certificate is
//! read again when its files change: renewing needs no restart.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use settings::ServerTls;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::Shutdown;

/// Interval at which the files are checked for a change.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate and its key, as the files have them now.
#[derive(Debug)]
pub struct Certificate {
    files: ServerTls,
    stamp: Stamp,
    current: Arc<CurrentCertificate>,
}

/// The facts of the two files that show a change.
type Stamp = [Option<(SystemTime, u64)>; 2];

#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl Certificate {
    /// Reads both files.
    pub fn load(files: ServerTls) -> anyhow::Result<Self> {
        let stamp = stamp(&files);
        let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(read(&files)?))));
        Ok(Self {
            files,
            stamp,
            current,
        })
    }

    /// Reads the files as a listener with them would.
    ///
    /// # Errors
    /// If one can't be read, or is not what it is to be.
    pub fn check(files: ServerTls, client_ca: Option<&Path>) -> anyhow::Result<()> {
        Self::load(files)?;
        client_ca.map_or(Ok(()), Self::check_authorities)
    }

    /// Reads a file with certificates of authorities.
    ///
    /// # Errors
    /// If it can't be read, or has none.
    pub fn check_authorities(file: &Path) -> anyhow::Result<()> {
        clients_of(file).map(drop)
    }

    /// Accepts connections of this protocol (`http/1.1`, `h2`), and reads the certificate again
    /// when it changes, for as long as the process lives. With `client_ca`, a caller needs a
    /// certificate of an authority in that file.
    pub fn acceptor(
        self,
        protocol: &str,
        client_ca: Option<&Path>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<TlsAcceptor> {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?;
        let config = match client_ca {
            Some(authorities) => config.with_client_cert_verifier(clients_of(authorities)?),
            None => config.with_no_client_auth(),
        };
        let mut config =
            config.with_cert_resolver(Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        shutdown.spawn_detached(self.look_after());
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    async fn look_after(mut self) {
        loop {
            sleep(LOOK_EVERY).await;
            let stamp = stamp(&self.files);
            if stamp == self.stamp {
                continue;
            }
            match read(&self.files) {
                Ok(certified) => {
                    self.stamp = stamp;
                    *self
                        .current
                        .0
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                    tracing::info!(file = %self.files.certificate.display(), "certificate read again");
                }
                // Perhaps only one of the two files was written yet.
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "the certificate changed, and can't be read: the one before stays"
                ),
            }
        }
    }
}

/// A verifier that trusts clients with a certificate of these authorities.
fn clients_of(authorities: &Path) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(authorities)? {
        let place = || {
            format!(
                "{}: expected certificates of authorities",
                authorities.display()
            )
        };
        roots.add(certificate).with_context(place)?;
    }
    let provider = Arc::new(default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

fn stamp(files: &ServerTls) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(files: &ServerTls) -> anyhow::Result<CertifiedKey> {
    let certificate = &files.certificate;
    let key = &files.key;
    let chain = chain(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?);
    let private = private
        .with_context(|| format!("reading {}: expected a private key in PEM", key.display()))?;
    CertifiedKey::from_der(chain, private, &default_provider()).with_context(|| {
        format!(
            "{} is not the key of {}",
            key.display(),
            certificate.display()
        )
    })
}

fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(&bytes(path)?).collect::<Result<Vec<_>, _>>();
    let chain = chain
        .with_context(|| format!("reading {}: expected certificates in PEM", path.display()))?;
    anyhow::ensure!(
        !chain.is_empty(),
        "{} has no certificate: expected PEM",
        path.display()
    );
    Ok(chain)
}

fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    settings::read_pem(path).with_context(|| format!("reading {}", path.display()))
}
