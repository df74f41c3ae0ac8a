//! The caller's side: how another process is reached.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How often a connection with calls on it is asked whether it is there, and for how
/// long: a peer whose machine is gone says nothing.
const ASK_EVERY: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where somebody serves, and how to be believed there.
#[derive(Clone, Debug)]
pub struct Target {
    uri: Uri,
    tls: Option<TlsTarget>,
}

/// Protects what is said to a target.
#[derive(Clone, Debug, Default)]
pub struct TlsTarget {
    /// PEM: who vouches for it, instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// PEM: our own certificate, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in its certificate, where it is not the one in the address.
    pub name: Option<String>,
}

/// Why a target can't be reached as the settings say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Not an address of gRPC.
    #[error("expected an address such as https://host:50051, or http:// for one without TLS")]
    Address,
    /// `http://` with TLS settings: what was meant?
    #[error("`tls` is for https:// addresses")]
    PlainWithTls,
    /// A certificate or key.
    #[error("reading {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// They make no TLS.
    #[error("the certificates can't be used")]
    Tls(#[source] tonic::transport::Error),
    /// A token that no header takes.
    #[error("a token has only visible letters of ASCII")]
    Token,
}

impl Target {
    /// Reads the address; the certificates are read when it is used.
    pub fn new(address: &str, tls: Option<TlsTarget>) -> Result<Self, TargetError> {
        let uri: Uri = address.parse().map_err(|_| TargetError::Address)?;
        let is_plain = match uri.scheme_str() {
            Some("http") => true,
            Some("https") => false,
            _ => return Err(TargetError::Address),
        };
        let has_path = uri.path_and_query().is_some_and(|path| path.as_str() != "/");
        let is_host = uri.host().is_some_and(|host| !host.is_empty());
        if !is_host || has_path || uri.authority().is_some_and(|whole| whole.as_str().contains('@')) {
            return Err(TargetError::Address);
        }
        if is_plain && tls.is_some() {
            return Err(TargetError::PlainWithTls);
        }
        Ok(Self { uri, tls })
    }

    /// `host:port`, for a look into the DNS.
    pub fn authority(&self) -> String {
        let port = self.uri.port_u16().unwrap_or(if self.is_plain() { 80 } else { 443 });
        format!("{}:{port}", self.uri.host().unwrap_or_default())
    }

    /// Whether somebody on the way could read what is said.
    pub fn is_exposed(&self) -> bool {
        self.is_plain() && !self.uri.host().is_some_and(settings::is_this_machine)
    }

    fn is_plain(&self) -> bool {
        self.uri.scheme_str() == Some("http")
    }

    /// A connection, made when it is used and made again when it broke.
    pub fn channel(&self) -> Result<Channel, TargetError> {
        Ok(self.endpoint(self.uri.clone())?.connect_lazy())
    }

    /// The same to one of the addresses of its host.
    pub fn channel_to(&self, address: SocketAddr) -> Result<Channel, TargetError> {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let there: Uri = format!("{scheme}://{address}").parse().map_err(|_| TargetError::Address)?;
        Ok(self.endpoint(there)?.origin(self.uri.clone()).connect_lazy())
    }

    fn endpoint(&self, uri: Uri) -> Result<Endpoint, TargetError> {
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(ASK_EVERY)
            .keep_alive_timeout(ANSWER_WITHIN);
        match self.is_plain() {
            true => Ok(endpoint),
            false => endpoint.tls_config(self.client_tls()?).map_err(TargetError::Tls),
        }
    }

    fn client_tls(&self) -> Result<ClientTlsConfig, TargetError> {
        let TlsTarget { ca, identity, name } = self.tls.clone().unwrap_or_default();
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let mut tls = ClientTlsConfig::new().domain_name(name.unwrap_or_else(|| host.to_owned()));
        tls = match ca {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
            None => tls.with_enabled_roots(),
        };
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(tls)
    }
}

fn read(path: PathBuf) -> Result<Vec<u8>, TargetError> {
    std::fs::read(&path).map_err(|error| TargetError::File(path, error))
}

/// The value of `authorization` for this token.
pub fn bearer(token: &str) -> Result<MetadataValue<Ascii>, TargetError> {
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_| TargetError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}
