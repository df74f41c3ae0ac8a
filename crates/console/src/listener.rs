//! The listener: TLS, and bounds on connections.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use event_model::Clock;
use grpc::Tokens;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use operator::{Operator, ReadSettings};
use process::{
    Certificate, ClientNetwork, ConnectionPermit, ConnectionPermits, ConnectionStage,
    ProcessLimits, ProvenSources, RefusalLog, Shutdown,
};
use settings::{ConsoleSettings, ServerTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::hosts::Hosts;
use crate::server::{Server, ServerParts};
use crate::sessions::SessionTimes;
use crate::signed_in::KnownPeople;
use crate::site::Site;

/// Most connections at once: people, each with a browser that opens six. Beyond it, the one that
/// is idle for the longest time gives way.
const MAX_CONNECTIONS: usize = 256;

/// The eighths of the descriptors beside webhooks' that this listener may take: the limits of this
/// process may allow fewer connections.
const EIGHTHS: u64 = 1;

/// The part of the connections that is reserved for addresses from which somebody is signed in.
const RESERVED_FOR_KNOWN: usize = 4;

/// Longest time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Longest time for the headers of a request, and between two requests of a connection.
const HEADERS: Duration = Duration::from_secs(20);

/// Time after which a connection takes no further request: a browser opens another one. What it
/// waits for it still gets, also a change of many, if it reads it within the second time.
const CONNECTION: Duration = Duration::from_mins(10);
const LAST_ANSWER: Duration = Duration::from_mins(3);

/// Most bytes of a request's headers, its address included.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Pause when no connection can be accepted, as all descriptors are in use.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A console that is bound and does not accept connections yet.
pub struct ConsoleServer {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    hosts: Hosts,
    people: KnownPeople,
    trace_url: Option<String>,
    is_behind_proxy: bool,
    times: SessionTimes,
}

impl fmt::Debug for ConsoleServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleServer")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl ConsoleServer {
    /// Reads certificates and tokens, and binds.
    ///
    /// # Errors
    /// If a file is not good, or the address can't be bound.
    pub fn bind(settings: &ConsoleSettings, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let tokens = Tokens::read(&settings.tokens)?;
        let tls = match tls_files(settings) {
            None => None,
            Some(files) => Some(Certificate::load(files)?.acceptor("http/1.1", None, shutdown)?),
        };
        let listen = settings.listen;
        let listener = process::listen(listen).with_context(|| {
            format!("fluent-connect.operator.console.listen: listening on {listen} for the console")
        })?;
        Ok(Self {
            listener,
            tls,
            hosts: Hosts::new(&settings.hosts),
            people: KnownPeople::new(tokens),
            trace_url: settings.trace_url.clone(),
            is_behind_proxy: settings.behind_proxy,
            times: SessionTimes::default(),
        })
    }

    /// Reads the files that the settings name, without binding.
    pub fn check(settings: &ConsoleSettings) -> anyhow::Result<()> {
        Tokens::read(&settings.tokens)?;
        tls_files(settings)
            .map(Certificate::load)
            .transpose()
            .map(drop)
    }

    /// The same, with other times for sessions.
    pub fn with_session_times(self, times: SessionTimes) -> Self {
        Self { times, ..self }
    }

    /// The address that the listener is bound to.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves this operator's API as pages until the process ends.
    pub fn serve(
        self,
        operator: Operator,
        read: ReadSettings,
        site: Site,
        clock: Arc<dyn Clock>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let address = self.address()?;
        let tls = self.tls.is_some();
        let rereading = self.people.clone().reread(read, self.times.reread);
        shutdown.spawn_detached(rereading);
        let proven = ProvenSources::default();
        let refusals = RefusalLog::default();
        refusals.start(shutdown);
        let server = Arc::new(Server::new(ServerParts {
            operator,
            site,
            clock,
            hosts: self.hosts,
            people: self.people,
            trace_url: self.trace_url,
            times: self.times,
            is_secure: tls || self.is_behind_proxy,
            is_behind_proxy: self.is_behind_proxy,
            proven: proven.clone(),
            refusals: refusals.clone(),
            shutdown: shutdown.clone(),
        }));
        let most = ProcessLimits::read().connections_beside(MAX_CONNECTIONS, EIGHTHS);
        let port = Port {
            tls: self.tls,
            permits: ConnectionPermits::new(most, most / RESERVED_FOR_KNOWN, proven),
            refusals,
            server,
            shutdown: shutdown.clone(),
        };
        shutdown.spawn_detached(port.accept(self.listener));
        tracing::info!(%address, tls, "listening for browsers: the console");
        Ok(())
    }
}

fn tls_files(settings: &ConsoleSettings) -> Option<ServerTls> {
    let tls = settings.tls.as_ref()?;
    Some(ServerTls {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    })
}

/// The state that all connections share.
#[derive(Clone)]
struct Port {
    tls: Option<TlsAcceptor>,
    permits: ConnectionPermits,
    refusals: RefusalLog,
    server: Arc<Server>,
    shutdown: Shutdown,
}

impl Port {
    async fn accept(self, listener: TcpListener) {
        loop {
            self.permits.until_open().await;
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if self.has_line("not accepted", ClientNetwork::NOBODY) {
                        tracing::warn!(%error, "no connection accepted by the console");
                    }
                    sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            let source = ClientNetwork::from(address.ip());
            match self.permits.take(source, false) {
                Ok(permit) => {
                    let connection = self.clone().serve(stream, source, permit);
                    self.shutdown.spawn_detached(connection);
                }
                Err(denied) if self.has_line("no place", source) => {
                    tracing::warn!(%address, reason = ?denied, "connection refused by the console: no place");
                }
                Err(_) => {}
            }
        }
    }

    fn has_line(&self, reason: &'static str, source: ClientNetwork) -> bool {
        self.refusals.admit_line(reason, source)
    }

    async fn serve(self, stream: TcpStream, source: ClientNetwork, permit: ConnectionPermit) {
        let _ = stream.set_nodelay(true);
        let gave_way = permit.evicted().clone();
        let serving = async {
            match self.tls.clone() {
                None => self.answer(stream, source, permit).await,
                Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => self.answer(stream, source, permit).await,
                    Ok(Err(error)) if self.has_line("no TLS", source) => {
                        tracing::info!(%source, %error, "connection refused by the console: no TLS");
                    }
                    _ => {}
                },
            }
        };
        let _ = gave_way.run_until_cancelled(serving).await;
    }

    async fn answer<S>(&self, stream: S, source: ClientNetwork, permit: ConnectionPermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let permit = permit.clone();
            async move {
                permit.enter(ConnectionStage::Working);
                let response = self.server.answer(request, source).await;
                permit.enter(ConnectionStage::Waiting);
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(MAX_HEADER_BYTES);
        serve_bounded(&builder, stream, service).await;
    }
}

/// Serves a connection for a bounded time, and ends it between two answers.
async fn serve_bounded<I, S, B>(builder: &http1::Builder, stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // Its errors are the peer's.
    if timeout(CONNECTION, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::Response;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Asks after this time for an answer that takes a minute and a half.
    async fn ask_after(wait: Duration) -> String {
        let (mut browser, server) = duplex(1 << 16);
        let service = service_fn(async |_: Request<Incoming>| {
            sleep(Duration::from_secs(90)).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("3 redriven"))))
        });
        let builder = http1::Builder::new();
        let serving = serve_bounded(&builder, server, service);
        let asking = async {
            sleep(wait).await;
            let request = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
            let _ = browser.write_all(request).await;
            let mut answer = String::new();
            let _ = browser.read_to_string(&mut answer).await;
            answer
        };
        tokio::join!(serving, asking).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_runs_when_a_connection_ends_is_still_answered() {
        let answer = ask_after(CONNECTION - Duration::from_secs(5)).await;
        assert!(answer.ends_with("3 redriven"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        let late = ask_after(CONNECTION + Duration::from_secs(5)).await;
        assert_eq!(late, "", "it takes no further request");
    }
}
