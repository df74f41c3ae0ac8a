//! The listener: bounds, TLS, access, health and reflection around some services.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use process::{Certificate, ClientNetwork, ConnectionPermits, ProcessLimits, Readiness, Shutdown};
use settings::OperatorSettings;
use telemetry::ErrorChain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::access::Access;
use crate::admission::{Admission, Callers, UnknownTimes};
use crate::socket::Socket;

pub use tonic::service::Routes;

/// Largest message in bytes: the largest possible body (16 MiB), and its fields.
pub const MAX_MESSAGE: usize = 17 << 20;

/// Most connections at once. Beyond it, one without an admitted call gives way.
const MAX_CONNECTIONS: usize = 512;

/// The eighths of the descriptors beside webhooks' that this listener may take: the limits of this
/// process may allow fewer connections.
const EIGHTHS: u64 = 2;

/// The part of the connections that is reserved for addresses of which a call was admitted lately.
const RESERVED_FOR_KNOWN: usize = 8;

/// The part that may be without an admitted call. It bounds what strangers can occupy, together
/// with the bound on calls below.
const FOR_UNKNOWN: usize = 4;

/// Most calls at once on one connection. A client's library makes further calls wait.
const MAX_CONCURRENT_CALLS: u32 = 128;

/// Largest question about health, in bytes: the name of a service. Who is not known may ask,
/// and what is asked is held until all of it is there.
const MAX_HEALTH_REQUEST: usize = 1 << 10;

/// Most bytes of a call's headers.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// How often a silent connection is asked whether it is there, and for how long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause when no connection can be accepted, as all descriptors are in use.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Interval at which the reported health is updated from the readiness.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// A listener that is bound and does not accept connections yet.
pub struct GrpcServer {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    access: Access,
    unknown: UnknownTimes,
}

impl fmt::Debug for GrpcServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl GrpcServer {
    /// Reads certificates and tokens, and binds.
    ///
    /// # Errors
    /// If a file is not good, or the address can't be bound.
    pub async fn bind(settings: &OperatorSettings, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let access = Access::open(settings)?;
        let tls = match &settings.tls {
            None => None,
            Some(tls) => {
                let files = settings::ServerTls {
                    certificate: tls.certificate.clone(),
                    key: tls.key.clone(),
                };
                Some(Certificate::load(files)?.acceptor(
                    "h2",
                    tls.client_ca.as_deref(),
                    shutdown,
                )?)
            }
        };
        let listener = process::listen(settings.grpc);
        let listener = listener.with_context(|| {
            format!(
                "fluent-connect.operator.grpc: listening on {} for gRPC",
                settings.grpc
            )
        })?;
        Ok(Self {
            listener,
            tls,
            access,
            unknown: UnknownTimes::default(),
        })
    }

    /// The same, with other times for connections of which no call was admitted.
    pub fn with_unknown_times(self, unknown: UnknownTimes) -> Self {
        Self { unknown, ..self }
    }

    /// Reads the files that the settings name, without binding.
    pub fn check(settings: &OperatorSettings) -> anyhow::Result<()> {
        Access::open(settings)?;
        let Some(tls) = &settings.tls else {
            return Ok(());
        };
        let files = settings::ServerTls {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
        };
        Certificate::check(files, tls.client_ca.as_deref())
    }

    /// The address that the listener is bound to.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends: while it drains, handlers still settle their deliveries in
    /// progress through this port.
    pub fn serve(
        self,
        routes: Routes,
        readiness: Readiness,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let (reporter, health) = tonic_health::server::health_reporter();
        shutdown.spawn_detached(report_health(readiness, reporter));
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTOR)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection_v1 = reflection()
            .build_v1()
            .context("reading our own contract")?;
        // What most clients of today ask for, as grpcurl and Python's `grpcio-reflection` do.
        let reflection_v1alpha = reflection()
            .build_v1alpha()
            .context("reading our own contract")?;
        let health = health.max_decoding_message_size(MAX_HEALTH_REQUEST);
        let routes = routes
            .add_service(health)
            .add_service(reflection_v1)
            .add_service(reflection_v1alpha);
        let address = self.address()?;
        let tls = self.tls.is_some();
        let callers = Callers::default();
        callers.refusals.start(shutdown);
        shutdown.spawn_detached(self.accept_connections(routes, callers));
        tracing::info!(%address, tls, "listening for gRPC");
        Ok(())
    }

    async fn accept_connections(self, routes: Routes, callers: Callers) {
        let (accepted, sockets) = mpsc::channel(1);
        let server = Server::builder()
            .max_concurrent_streams(MAX_CONCURRENT_CALLS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .tcp_nodelay(true)
            .layer(self.access)
            .add_routes(routes);
        let sockets =
            tokio_stream::StreamExt::map(ReceiverStream::new(sockets), Ok::<_, std::io::Error>);
        let accepting = accept(self.listener, self.tls, self.unknown, callers, accepted);
        let (served, ()) = tokio::join!(server.serve_with_incoming(sockets), accepting);
        if let Err(error) = served {
            tracing::error!(error = %ErrorChain(&error), "no longer listening for gRPC");
        }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    unknown: UnknownTimes,
    callers: Callers,
    accepted: mpsc::Sender<Socket>,
) {
    let most = ProcessLimits::read().connections_beside(MAX_CONNECTIONS, EIGHTHS);
    let reserved = most / RESERVED_FOR_KNOWN;
    let places = ConnectionPermits::new(most, reserved, callers.proven.clone())
        .with_most_waiting(most / FOR_UNKNOWN);
    loop {
        places.until_open().await;
        let (stream, address) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                if callers
                    .refusals
                    .admit_line("not accepted", ClientNetwork::NOBODY)
                {
                    tracing::warn!(%error, "no connection accepted");
                }
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let source = ClientNetwork::from(address.ip());
        match places.take(source, false) {
            Ok(place) => {
                let admission = Admission::new(source, place, callers.clone(), unknown);
                serve_connection(
                    stream,
                    address,
                    admission,
                    unknown.handshake,
                    tls.clone(),
                    accepted.clone(),
                );
            }
            Err(denied) if callers.refusals.admit_line("no place", source) => {
                tracing::warn!(%address, reason = ?denied, "connection refused: no place");
            }
            Err(_) => {}
        }
    }
}

/// Serves one connection in a task of its own, so that no TLS handshake delays another.
#[expect(
    clippy::disallowed_methods,
    reason = "it ends in time, and nothing depends on it"
)]
fn serve_connection(
    stream: TcpStream,
    address: SocketAddr,
    admission: Admission,
    handshake: Duration,
    tls: Option<TlsAcceptor>,
    accepted: mpsc::Sender<Socket>,
) {
    let _ = stream.set_nodelay(true);
    tokio::spawn(async move {
        let Some(tls) = tls else {
            let _ = accepted
                .send(Socket::plain(stream, address, admission))
                .await;
            return;
        };
        let gave_way = admission.place().evicted().clone();
        let no_tls = admission.clone();
        match gave_way
            .run_until_cancelled(timeout(handshake, tls.accept(stream)))
            .await
        {
            Some(Ok(Ok(stream))) => {
                let _ = accepted.send(Socket::tls(stream, address, admission)).await;
            }
            Some(Ok(Err(error))) if no_tls.has_line("no TLS") => {
                tracing::info!(%address, %error, "connection refused: no TLS");
            }
            Some(Err(_)) if no_tls.has_line("TLS too slow") => {
                tracing::info!(%address, "connection refused: its TLS handshake took too long");
            }
            _ => {}
        }
    });
}

/// Reports the health of the whole process under the empty name, which load balancers ask for.
async fn report_health(readiness: Readiness, reporter: tonic_health::server::HealthReporter) {
    loop {
        let status = if readiness.get() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status("", status).await;
        sleep(HEALTH_INTERVAL).await;
    }
}
