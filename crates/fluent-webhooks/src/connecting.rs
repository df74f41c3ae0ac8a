//! Why a server can't be reached, in a sentence that says what to change.
//!
//! What a failed call says is the last thing that went wrong in a library. So the way is gone
//! again, step by step: the address, the connection, TLS, and what is spoken there.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_platform_verifier::BuilderVerifierExt;
use settings::read_pem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore,
};

use crate::api::ServerArgs;

/// Longest time for each step.
const STEP: Duration = Duration::from_secs(5);

/// Longest time for the first bytes of an answer: a gRPC server says something at once.
const FIRST_BYTES: Duration = Duration::from_secs(1);

/// What a gRPC client begins with: the preface of HTTP/2, and a frame of settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request of HTTP/1.1.
const OLD_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: fluent-webhooks\r\nconnection: close\r\n\r\n";

/// The first byte of a record of TLS that ends a connection.
const TLS_ALERT: u8 = 0x15;

/// Says why nobody answered at `server`, if that can be found out.
pub(crate) async fn explain(authority: &str, server: &str, args: &ServerArgs) -> Option<String> {
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let found = timeout(STEP, lookup_host(authority)).await;
    let has_address = found.is_ok_and(|found| found.is_ok_and(|mut found| found.next().is_some()));
    if !has_address {
        return Some(format!(
            "{server}: the name {host} has no address: is it spelled right?"
        ));
    }
    let stream = match timeout(STEP, TcpStream::connect(authority)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Some(format!(
                "{server}: nothing listens there (connection refused): expected the address of `operator.grpc` of a server that runs"
            ));
        }
        Ok(Err(error)) => return Some(format!("{server} can't be reached: {error}")),
        Err(_) => {
            return Some(format!(
                "{server} does not answer within {} s: is the address right, and may this machine reach it?",
                STEP.as_secs()
            ));
        }
    };
    if server.starts_with("https://") {
        over_tls(stream, authority, host, server, args).await
    } else {
        in_plain(stream, authority, host, server, args).await
    }
}

async fn in_plain(
    mut stream: TcpStream,
    authority: &str,
    host: &str,
    server: &str,
    args: &ServerArgs,
) -> Option<String> {
    let speaks_tls = || {
        format!(
            "{server} expects TLS: write https://{authority}, and --ca where its authority is not one that this machine trusts"
        )
    };
    let _ = stream.write_all(PREFACE).await;
    match first_bytes(&mut stream).await {
        Ok(first) if first.starts_with(b"HTTP/") => return Some(not_grpc(server)),
        Ok(first) if first.first() == Some(&TLS_ALERT) => return Some(speaks_tls()),
        Ok(first) if !first.is_empty() => return None,
        _ => {}
    }
    // It said nothing: does it know what TLS is, or HTTP/1.1?
    let again = timeout(STEP, TcpStream::connect(authority))
        .await
        .ok()?
        .ok()?;
    if let Ok(_) | Err(TlsError::InvalidCertificate(_) | TlsError::AlertReceived(_)) =
        handshake(again, host, args).await
    {
        return Some(speaks_tls());
    }
    let mut again = timeout(STEP, TcpStream::connect(authority))
        .await
        .ok()?
        .ok()?;
    again.write_all(OLD_REQUEST).await.ok()?;
    let first = first_bytes(&mut again).await.ok()?;
    first.starts_with(b"HTTP/").then(|| not_grpc(server))
}

async fn over_tls(
    stream: TcpStream,
    authority: &str,
    host: &str,
    server: &str,
    args: &ServerArgs,
) -> Option<String> {
    match handshake(stream, host, args).await {
        Ok(mut stream) => match first_bytes(&mut *stream).await {
            Ok(first) if first.starts_with(b"HTTP/") => Some(not_grpc(server)),
            Ok(_) => None,
            Err(error) => tls_error(&error)
                .cloned()
                .and_then(|error| in_words(&error, authority, host, server, args)),
        },
        Err(error) => in_words(&error, authority, host, server, args),
    }
}

fn not_grpc(server: &str) -> String {
    format!(
        "{server} speaks HTTP/1.1 and no gRPC: is it the port of webhooks or of health? Expected that of `operator.grpc`"
    )
}

/// The first bytes that the other side sends; none if it closes, or says nothing.
async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut first = vec![0; 16];
    let count = timeout(FIRST_BYTES, stream.read(&mut first))
        .await
        .unwrap_or(Ok(0))?;
    first.truncate(count);
    Ok(first)
}

/// A handshake like that of a call.
async fn handshake(
    stream: TcpStream,
    host: &str,
    args: &ServerArgs,
) -> Result<Box<TlsStream<TcpStream>>, TlsError> {
    let general = |why: &str| TlsError::General(why.to_owned());
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| general("the name of the server"))?;
    let config = client_config(args).map_err(|error| general(&error.to_string()))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match timeout(STEP, connecting).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(tls_error(&error)
            .cloned()
            .unwrap_or_else(|| general(&error.to_string()))),
        Err(_) => Err(general("it does not answer")),
    }
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn client_config(args: &ServerArgs) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &args.ca {
        Some(ca) => builder.with_root_certificates(roots(ca)?),
        None => builder.with_platform_verifier()?,
    };
    let mut config = match args.certificate.as_ref().zip(args.key.as_ref()) {
        Some((certificate, key)) => {
            let (chain, key) = (read_pem(certificate)?, read_pem(key)?);
            let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn roots(ca: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read_pem(ca)?) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

fn in_words(
    error: &TlsError,
    authority: &str,
    host: &str,
    server: &str,
    args: &ServerArgs,
) -> Option<String> {
    match error {
        TlsError::InvalidMessage(_) => Some(format!(
            "{server} does not speak TLS: write http://{authority}, or set `operator.tls` at the server"
        )),
        TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) => Some(not_grpc(server)),
        TlsError::AlertReceived(alert) => Some(of_alert(*alert, server, args)),
        TlsError::InvalidCertificate(error) => Some(of_certificate(error, host, server, args)),
        _ => None,
    }
}

/// The server ended the handshake: mostly for our certificate, or since there is none.
fn of_alert(alert: AlertDescription, server: &str, args: &ServerArgs) -> String {
    match (alert, &args.certificate) {
        (AlertDescription::CertificateRequired, _) | (AlertDescription::HandshakeFailure, None) => {
            format!(
                "{server} asks for a certificate of the caller: give one with --certificate and --key"
            )
        }
        (_, Some(file)) => format!(
            "{server} does not accept the certificate {} ({alert:?}): expected one that its `client-ca` signed and that has not expired",
            file.display()
        ),
        (_, None) => format!("{server} ended the TLS handshake ({alert:?})"),
    }
}

fn of_certificate(error: &CertificateError, host: &str, server: &str, args: &ServerArgs) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "the certificate of {server} has expired: put a new one in place of that of `operator.tls` there, or correct this machine's clock"
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {server} is not valid yet: is this machine's clock right?")
        }
        CertificateError::NotValidForName => wrong_name(host, server, "another name"),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            match names.is_empty() {
                true => wrong_name(host, server, "no name at all"),
                false => wrong_name(host, server, &names.join(", ")),
            }
        }
        // An authority of the same name and another key makes it a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match &args.ca {
            None => format!(
                "no authority that this machine trusts signed the certificate of {server}: give the authority's certificate with --ca FILE"
            ),
            Some(ca) => format!(
                "the authority in {} did not sign the certificate of {server}: expected the one that did",
                ca.display()
            ),
        },
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            format!(
                "the certificate of {server} is that of an authority, as plain `openssl req -x509` makes them, and a server may not show it as its own: make one with `fluent-webhooks certificate --name {host}`, or add `-addext basicConstraints=critical,CA:FALSE` to the command"
            )
        }
        other => format!("the certificate of {server} is not accepted: {other}"),
    }
}

fn wrong_name(host: &str, server: &str, names: &str) -> String {
    format!(
        "the certificate of {server} is for {names}, and not for {host}: use a name that it has, or make one with `fluent-webhooks certificate --name {host}`"
    )
}

/// A name of a certificate, without the kind that the library puts around it.
fn plain_name(name: &str) -> String {
    let inner = name
        .split_once('(')
        .map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim_matches('"').to_owned()
}
