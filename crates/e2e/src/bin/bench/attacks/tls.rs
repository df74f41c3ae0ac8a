//! The certificate of a webhook port with TLS, and a client that trusts it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

#[derive(Clone)]
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    connector: TlsConnector,
}

impl Tls {
    /// Writes a certificate for this machine into `folder`.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let certificate = folder.join("webhook.pem");
        let key = folder.join("webhook.key");
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let mut trusted = RootCertStore::empty();
        trusted.add(made.cert.der().clone())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Self {
            certificate,
            key,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// More of `webhook` in the settings, as YAML.
    pub(crate) fn settings(&self) -> String {
        let Self {
            certificate, key, ..
        } = self;
        format!(", tls: {{ certificate: {certificate:?}, key: {key:?} }}")
    }

    pub(crate) async fn connect(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        self.connector.connect(name, stream).await
    }
}
