//! A check of the ports by which servers join each other: each is opened as a stranger would, in
//! clear and then by TLS without a certificate, and the greeting is read. Nothing is sent to it.
//!
//! A server with `cluster.tls` greets within TLS alone, and always wants a certificate.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::ServerAddr;
use event_model::Timestamp;
use futures::future::join_all;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// NATS's own port for servers.
pub const ROUTE_PORT: u16 = 6222;

/// Longest time for each step: resolving, connecting, the greeting. A firewall that drops packets
/// never answers. A server that waits for TLS gives up after two seconds, and is asked before
/// that.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1500);

/// Longest greeting: it lists the cluster's addresses.
const GREETING_BYTES: u64 = 64 << 10;

/// A server's port for other servers, as a stranger finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePort {
    /// The server: its name if it gives one, otherwise its host.
    pub server: String,
    /// Host and port.
    pub address: String,
    /// Demand of the port on anybody who joins.
    pub access: RouteAccess,
    /// End of the certificate that it shows, if it shows one.
    pub certificate_ends_at: Option<Timestamp>,
}

/// Demand of a port for servers on anybody who joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAccess {
    /// Nobody answers there, at least not to us.
    Closed,
    /// A certificate. Whether it wants a password as well, it says only to peers with a
    /// certificate.
    Certificate,
    /// Only a password: what the servers tell each other is in clear.
    Password,
    /// Nothing: anybody who reaches it reads and writes all that the servers have.
    Open,
    /// Not a port for servers, or not one that we understand.
    Other,
}

/// A server's greeting, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Greeting {
    server_id: String,
    server_name: Option<String>,
    #[serde(default)]
    auth_required: bool,
    /// Sent to clients only.
    client_id: Option<u64>,
}

impl Greeting {
    fn access(&self) -> RouteAccess {
        if self.client_id.is_some() {
            return RouteAccess::Other;
        }
        if self.auth_required {
            RouteAccess::Password
        } else {
            RouteAccess::Open
        }
    }
}

/// Opens this port of every server among `addresses`, which are those for clients. A server that
/// has several addresses is reported once.
pub(crate) async fn probe(addresses: impl Iterator<Item = String>, port: u16) -> Vec<RoutePort> {
    let hosts =
        addresses.filter_map(|address| Some(address.parse::<ServerAddr>().ok()?.host().to_owned()));
    let mut seen = HashSet::new();
    let hosts: Vec<_> = hosts.filter(|host| seen.insert(host.clone())).collect();
    let found = join_all(hosts.into_iter().map(|host| probe_host(host, port))).await;
    let mut places = HashSet::new();
    let mut servers = HashSet::new();
    let mut ports = Vec::new();
    for (place, greeting, port) in found {
        let is_new_place = place.is_none_or(|place| places.insert(place));
        let is_new_server = greeting.is_none_or(|greeting| servers.insert(greeting.server_id));
        if is_new_place && is_new_server {
            ports.push(port);
        }
    }
    ports
}

/// Resolves a host, opens its port and interprets the greeting.
async fn probe_host(host: String, port: u16) -> (Option<SocketAddr>, Option<Greeting>, RoutePort) {
    let found = timeout(ANSWERS_WITHIN, lookup_host((host.as_str(), port))).await;
    let places: Vec<_> = found
        .ok()
        .and_then(Result::ok)
        .map(Iterator::collect)
        .unwrap_or_default();
    let (met, greeting) = knock(&places).await;
    let name = greeting
        .as_ref()
        .and_then(|greeting| greeting.server_name.clone());
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let Met {
        access,
        certificate_ends_at,
    } = met;
    let route_port = RoutePort {
        server: name.unwrap_or(host),
        address,
        access,
        certificate_ends_at,
    };
    (places.first().copied(), greeting, route_port)
}

/// Findings of a stranger at a port.
struct Met {
    access: RouteAccess,
    certificate_ends_at: Option<Timestamp>,
}

impl From<RouteAccess> for Met {
    fn from(access: RouteAccess) -> Self {
        Self {
            access,
            certificate_ends_at: None,
        }
    }
}

/// Opens the first of these addresses that takes a connection, in clear and then by TLS.
async fn knock(places: &[SocketAddr]) -> (Met, Option<Greeting>) {
    let Some(stream) = connect(places).await else {
        return (RouteAccess::Closed.into(), None);
    };
    let Ok(said) = timeout(ANSWERS_WITHIN, read_line(stream)).await else {
        // The server waits for us to begin, as TLS wants it.
        return (knock_by_tls(places).await, None);
    };
    match read_greeting(&said) {
        Some(greeting) => (greeting.access().into(), Some(greeting)),
        None => (RouteAccess::Other.into(), None),
    }
}

/// Opens it by TLS, without a certificate of ours. A server that asked for one says so only after
/// our side of the handshake: it closes instead of greeting.
async fn knock_by_tls(places: &[SocketAddr]) -> Met {
    let (Some(stream), Some(place)) = (connect(places).await, places.first()) else {
        return RouteAccess::Closed.into();
    };
    let Ok(connector) = connector() else {
        return RouteAccess::Other.into();
    };
    let handshake = connector.connect(ServerName::IpAddress(place.ip().into()), stream);
    let Ok(Ok(stream)) = timeout(ANSWERS_WITHIN, handshake).await else {
        return RouteAccess::Other.into();
    };
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let certificate_ends_at = shown.and_then(|shown| ends_at(shown));
    let said = timeout(ANSWERS_WITHIN, read_line(stream)).await;
    let access = match said {
        Err(_) => RouteAccess::Other,
        Ok(said) if said.is_empty() => RouteAccess::Certificate,
        Ok(said) => read_greeting(&said).map_or(RouteAccess::Other, |greeting| greeting.access()),
    };
    Met {
        access,
        certificate_ends_at,
    }
}

fn ends_at(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

async fn connect(places: &[SocketAddr]) -> Option<TcpStream> {
    timeout(ANSWERS_WITHIN, TcpStream::connect(places))
        .await
        .ok()?
        .ok()
}

/// Reads the first line, or what there is of it when the connection ends.
async fn read_line(stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut line = Vec::new();
    // An end by a TLS alert counts like any other end.
    let _ = BufReader::new(stream.take(GREETING_BYTES))
        .read_until(b'\n', &mut line)
        .await;
    line
}

fn read_greeting(line: &[u8]) -> Option<Greeting> {
    serde_json::from_slice(line.strip_prefix(b"INFO ")?).ok()
}

/// Makes a TLS client that trusts any server: nothing is sent on the connection, and a stranger
/// would not check either.
fn connector() -> Result<TlsConnector, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAnybody(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct BelievesAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelievesAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Returns the access that is found if the server says this first.
    async fn found(said: &'static [u8]) -> RouteAccess {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let greet = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(said).await.unwrap();
        };
        let address = std::iter::once("nats://127.0.0.1:4222".to_owned());
        let (found, ()) = tokio::join!(probe(address, port), greet);
        found[0].access
    }

    #[tokio::test]
    async fn what_is_no_port_for_servers_is_not_taken_for_an_open_one() {
        let route = br#"INFO {"server_id":"A","server_name":"nats-1"}"#;
        assert_eq!(found(route).await, RouteAccess::Open);
        let client = br#"INFO {"server_id":"A","server_name":"nats-1","client_id":7}"#;
        for said in [
            &client[..],
            b"HTTP/1.1 400 Bad Request\r\n",
            b"INFO nothing\r\n",
            b"",
        ] {
            assert_eq!(
                found(said).await,
                RouteAccess::Other,
                "{}",
                String::from_utf8_lossy(said)
            );
        }
    }

    #[tokio::test]
    async fn a_password_alone_is_told_from_nothing() {
        let password = br#"INFO {"server_id":"A","auth_required":true}"#;
        assert_eq!(found(password).await, RouteAccess::Password);
    }

    #[tokio::test]
    async fn a_host_is_named_once() {
        let closed = nats_server::free_port().unwrap();
        let names = ["nats://127.0.0.1:1", "tls://127.0.0.1:2", "127.0.0.1:3"].map(str::to_owned);
        let found = probe(names.into_iter(), closed).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].access, RouteAccess::Closed);
    }
}
