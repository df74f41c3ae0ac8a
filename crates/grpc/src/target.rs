//! The client's side: the address, TLS and token for another process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Interval at which a connection with calls is probed, and below it the time for an answer: a
/// peer whose machine is gone sends nothing.
const ASK_EVERY: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Most bytes of an answer's metadata. The call of a longer answer ends as failed, whatever its
/// status is.
const MAX_HEADERS: u32 = 128 << 10;

/// The address of a server, with the TLS settings to reach it.
#[derive(Clone, Debug)]
pub struct Target {
    uri: Uri,
    tls: Option<TlsTarget>,
}

/// The TLS settings of a target.
#[derive(Clone, Debug, Default)]
pub struct TlsTarget {
    /// PEM: the authorities of the server's certificate, instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM: our own certificate, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the server's certificate, if it is not the one in the address.
    pub name: Option<String>,
}

/// The reason why a target's settings are not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The address is no `http://` or `https://` address.
    #[error("expected an address such as https://host:50051, or http:// for one without TLS")]
    Address,
    /// TLS settings beside `http://`, so that it is unclear whether TLS is wanted.
    #[error("`tls` is for https:// addresses")]
    PlainWithTls,
    /// A certificate or key that can't be read.
    #[error("reading {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// Certificates or keys that make no TLS configuration.
    #[error("the certificates can't be used")]
    Tls(#[source] tonic::transport::Error),
    /// A token that is no valid header value.
    #[error("a token has only visible letters of ASCII")]
    Token,
}

impl Target {
    /// Reads the address. The certificates are read when the target is used.
    pub fn new(address: &str, tls: Option<TlsTarget>) -> Result<Self, TargetError> {
        let uri: Uri = address.parse().map_err(|_| TargetError::Address)?;
        let is_plain = match uri.scheme_str() {
            Some("http") => true,
            Some("https") => false,
            _ => return Err(TargetError::Address),
        };
        let has_path = uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/");
        let is_host = uri.host().is_some_and(|host| !host.is_empty());
        if !is_host
            || has_path
            || uri
                .authority()
                .is_some_and(|whole| whole.as_str().contains('@'))
        {
            return Err(TargetError::Address);
        }
        if is_plain && tls.is_some() {
            return Err(TargetError::PlainWithTls);
        }
        Ok(Self { uri, tls })
    }

    /// `host:port`, to look up in the DNS.
    pub fn authority(&self) -> String {
        let port = self
            .uri
            .port_u16()
            .unwrap_or(if self.is_plain() { 80 } else { 443 });
        format!("{}:{port}", self.uri.host().unwrap_or_default())
    }

    /// True if calls go to another machine without TLS.
    pub fn is_exposed(&self) -> bool {
        self.is_plain() && !self.uri.host().is_some_and(settings::is_this_machine)
    }

    fn is_plain(&self) -> bool {
        self.uri.scheme_str() == Some("http")
    }

    /// A channel that connects on first use, and again whenever the connection breaks.
    pub fn channel(&self) -> Result<Channel, TargetError> {
        Ok(self.endpoint(self.uri.clone())?.connect_lazy())
    }

    /// A channel like [`Target::channel`], to one of the addresses of the host.
    pub fn channel_to(&self, address: SocketAddr) -> Result<Channel, TargetError> {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let there: Uri = format!("{scheme}://{address}")
            .parse()
            .map_err(|_| TargetError::Address)?;
        Ok(self
            .endpoint(there)?
            .origin(self.uri.clone())
            .connect_lazy())
    }

    fn endpoint(&self, uri: Uri) -> Result<Endpoint, TargetError> {
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_keep_alive_interval(ASK_EVERY)
            .keep_alive_timeout(ANSWER_WITHIN);
        match self.is_plain() {
            true => Ok(endpoint),
            false => endpoint
                .tls_config(self.client_tls()?)
                .map_err(TargetError::Tls),
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
    settings::read_pem(&path).map_err(|error| TargetError::File(path, error))
}

/// The value of `authorization` for this token.
pub fn bearer(token: &str) -> Result<MetadataValue<Ascii>, TargetError> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| TargetError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}
