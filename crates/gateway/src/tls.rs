//! TLS on the webhook port, for who has nothing before us that ends it. The
//! certificate is read again when its files change: renewing needs no restart.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use service::Shutdown;
use settings::WebhookTls;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// How often to look whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate and its key, as the files have them now.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: WebhookTls,
    stamp: Stamp,
    current: Arc<Current>,
}

/// By what a change of the files is noticed.
type Stamp = [Option<(SystemTime, u64)>; 2];

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Certificate {
    pub(crate) fn load(files: WebhookTls) -> anyhow::Result<Self> {
        let stamp = stamp(&files);
        let current = Arc::new(Current(RwLock::new(Arc::new(read(&files)?))));
        Ok(Self { files, stamp, current })
    }

    /// Accepts connections with it, and looks after it until draining begins.
    pub(crate) fn acceptor(self, shutdown: &Shutdown) -> anyhow::Result<TlsAcceptor> {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        shutdown.spawn_unwaited(self.look_after());
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
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                    tracing::info!(file = %self.files.certificate.display(), "certificate read again");
                }
                // Perhaps only one of the two was written yet.
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "the certificate changed, and can't be read: the one before stays"
                ),
            }
        }
    }
}

fn stamp(files: &WebhookTls) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(files: &WebhookTls) -> anyhow::Result<CertifiedKey> {
    let (certificate, key) = (&files.certificate, &files.key);
    let chain = CertificateDer::pem_slice_iter(&bytes(certificate)?).collect::<Result<Vec<_>, _>>();
    let chain =
        chain.with_context(|| format!("reading {}: expected certificates in PEM", certificate.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{} has no certificate: expected PEM", certificate.display());
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?);
    let private =
        private.with_context(|| format!("reading {}: expected a private key in PEM", key.display()))?;
    CertifiedKey::from_der(chain, private, &default_provider())
        .with_context(|| format!("{} is not the key of {}", key.display(), certificate.display()))
}

fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read: io::Result<_> = std::fs::read(path);
    read.with_context(|| format!("reading {}", path.display()))
}
