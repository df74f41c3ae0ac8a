//! The mail server of a route: connecting to it, and the connections that are kept.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dispatch::{BoxError, OpenContext};
use dispatch_kit::{Secret, without_bom};
use lettre::address::Envelope;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, Login, MailReceipt, SmtpError, Stream};
use crate::settings::{Security, ServerSettings};

/// Longest time for connecting, and again for TLS after it.
const CONNECT: Duration = Duration::from_secs(10);

/// Most connections that are kept, and their longest idle time: servers close idle ones after
/// minutes.
const KEPT: usize = 16;
const IDLE: Duration = Duration::from_secs(60);

type Open = Connection<Box<dyn Stream>>;

/// A mail server, with the connections that are kept to it.
pub(crate) struct MailServer {
    host: String,
    port: u16,
    protection: Protection,
    /// The name, and the password as its file has it now.
    login: Option<(String, Secret)>,
    kept: Mutex<Vec<(Open, Instant)>>,
}

enum Protection {
    Nothing,
    StartTls(Tls),
    Tls(Tls),
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailServer")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl MailServer {
    pub(crate) fn open(settings: &ServerSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        settings.ensure_protected_credentials()?;
        let ServerSettings {
            host,
            port,
            security,
            user,
            password,
            ..
        } = settings;
        let (usual, protection) = match security {
            Security::Starttls => (587, Protection::StartTls(Tls::open(settings, cx)?)),
            Security::Tls => (465, Protection::Tls(Tls::open(settings, cx)?)),
            Security::None => (25, Protection::Nothing),
        };
        let login = match (user, password) {
            // RFC 4616, section 2: NUL ends a name; SASLprep forbids the others.
            (Some(user), _) if user.chars().any(char::is_control) => {
                return Err("server.user: expected a name without control characters".into());
            }
            (Some(user), Some(file)) => Some((user.clone(), Secret::open(file, cx)?)),
            (None, None) => None,
            _ => return Err("server: expected user and password together".into()),
        };
        let host = host.clone();
        let port = port.unwrap_or(usual);
        Ok(Self {
            host,
            port,
            protection,
            login,
            kept: Mutex::default(),
        })
    }

    /// Sends a mail, on a kept connection if one still works.
    pub(crate) async fn send(
        &self,
        envelope: &Envelope,
        mail: &[u8],
        deadline: Instant,
    ) -> Result<MailReceipt, SmtpError> {
        let mut connection = match self.kept_connection().await {
            Some(connection) => connection,
            None => self
                .connect(deadline)
                .await
                .map_err(SmtpError::before_any_mail)?,
        };
        let taken = connection.send(envelope, mail, deadline).await?;
        if taken.remark.is_none() {
            self.keep(connection);
        }
        Ok(taken)
    }

    /// Closes every connection that is kept.
    pub(crate) async fn close(&self) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(kept.into_iter().map(|(connection, _)| connection.quit())).await;
    }

    async fn kept_connection(&self) -> Option<Open> {
        loop {
            let (mut connection, since) = self
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()?;
            if since.elapsed() >= IDLE {
                continue;
            }
            match connection.ensure_well().await {
                Ok(()) => return Some(connection),
                // The network between is silent for all of them.
                Err(SmtpError::TimedOut) => {
                    self.kept
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .clear();
                }
                Err(_) => {}
            }
        }
    }

    fn keep(&self, connection: Open) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, since)| since.elapsed() < IDLE);
        if kept.len() < KEPT {
            kept.push((connection, Instant::now()));
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Open, SmtpError> {
        let login = match &self.login {
            Some((user, password)) => Some(Login {
                user: user.clone(),
                password: password.get().map_err(SmtpError::Secret)?,
            }),
            None => None,
        };
        let until = deadline.min(Instant::now() + CONNECT);
        let looking_up = lookup_host((self.host.as_str(), self.port));
        let addresses = timeout_at(until, looking_up)
            .await
            .map_err(|_| SmtpError::TimedOut)??;
        let stream = connect_to(&addresses.collect::<Vec<_>>(), until).await?;
        let mut connection = match &self.protection {
            Protection::Nothing => Connection::greet(Box::new(stream) as Box<dyn Stream>).await?,
            Protection::Tls(tls) => Connection::greet(tls.begin(stream).await?).await?,
            Protection::StartTls(tls) => {
                let stream = Connection::greet(stream).await?.ready_for_tls().await?;
                Connection::greet_again(tls.begin(stream).await?).await?
            }
        };
        if let Some(login) = &login {
            connection.log_in(login).await?;
        }
        Ok(connection)
    }
}

/// Connects to the first address that answers. Each has its share of the time that is left, so
/// that a silent one leaves some to the others.
async fn connect_to(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, SmtpError> {
    let mut failed = SmtpError::TimedOut;
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A mail's end is written separately, and must not wait for an acknowledgement of
                // its beginning.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = error.into(),
            Err(_) => failed = SmtpError::TimedOut,
        }
    }
    Err(failed)
}

impl Tls {
    fn open(settings: &ServerSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match &settings.ca {
            Some(ca) => {
                let pem = fs::read(cx.resolve(ca)).map_err(|error| format!("server.ca: {error}"))?;
                builder.with_root_certificates(authorities(without_bom(&pem))?)
            }
            None => builder.with_platform_verifier().map_err(|error| {
                format!("server: {error}: name a file of authorities by server.ca, or the machine's by SSL_CERT_FILE")
            })?,
        };
        let connector = TlsConnector::from(Arc::new(builder.with_no_client_auth()));
        let name = ServerName::try_from(settings.host.clone())?;
        Ok(Self { connector, name })
    }

    async fn begin(&self, stream: TcpStream) -> Result<Box<dyn Stream>, SmtpError> {
        let beginning = self.connector.connect(self.name.clone(), stream);
        let stream = timeout(CONNECT, beginning)
            .await
            .map_err(|_| SmtpError::TimedOut)?;
        Ok(Box::new(stream.map_err(SmtpError::Tls)?))
    }
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, BoxError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("server.ca: {error}"))?;
        store
            .add(certificate)
            .map_err(|error| format!("server.ca: {error}"))?;
    }
    match store.is_empty() {
        true => Err("server.ca: no certificate in it".into()),
        false => Ok(store),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_to_the_next() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let full = socket.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        // The queue of a listener that never accepts has room for one.
        let _first = TcpStream::connect(silent).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let until = Instant::now() + Duration::from_secs(4);
        let stream = connect_to(&[silent, good], until).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(Instant::now() < until, "a share was left");
        assert!(matches!(
            connect_to(&[silent], Instant::now()).await,
            Err(SmtpError::TimedOut)
        ));
    }
}
