//! The accept loop of the webhook port.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use process::{ClientNetwork, ConnectionPermits, ShareDenied, Shutdown};
use settings::AddressFrom;
use telemetry::metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::Bounds;
use crate::proxy_protocol::read_header;
use crate::senders::{Peer, Senders};
use crate::serve_one::{ConnectionServer, serve_one};

/// Sent to a connection beyond the limit.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 23\r\nretry-after: 2\r\nconnection: close\r\n\r\n{\"error\":\"unavailable\"}";

/// Most connections beyond the limit that are answered 503. More are closed without an answer, so
/// that those who can be accepted do not wait for them.
const TURNED_AWAY: usize = 128;

/// The part of the connections that so many may be: each has a descriptor.
const FOR_TURNED_AWAY: usize = 32;

/// Longest time for a connection that is turned away to read its 503.
const GOODBYE: Duration = Duration::from_secs(1);

/// Pause when the system has no more descriptors.
const REST: Duration = Duration::from_millis(50);

/// Accepts connections until the port is to be shut, which is the last step of a stop. Then lets
/// each connection finish the request that it is in, or that is still being sent.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    bounds: Bounds,
    senders: Senders,
    shutdown: Shutdown,
) {
    let places = ConnectionPermits::new(bounds.connections, 0, senders.proven.clone());
    let turned_away = (bounds.connections / FOR_TURNED_AWAY).clamp(1, TURNED_AWAY);
    let goodbyes = Arc::new(Semaphore::new(turned_away));
    let port = Port {
        tls,
        router,
        bounds,
        senders,
        shutdown,
        places,
        goodbyes,
    };
    let closing = port.shutdown.closing();
    loop {
        let accepting = async {
            port.places.until_open().await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            () = closing.cancelled() => match last_accepted(&listener, &port.shutdown) {
                Some(accepted) => Ok(accepted),
                None => return,
            },
        };
        match accepted {
            Ok((stream, address)) => port.accepted(stream, address),
            Err(error) => port.rest(&error).await,
        }
    }
}

/// The next connection that was made and not accepted yet. Shutting the port would reset these,
/// so they are taken first. A socket that outlives the process keeps them for the next one.
fn last_accepted(listener: &TcpListener, shutdown: &Shutdown) -> Option<(TcpStream, SocketAddr)> {
    if shutdown.does_socket_outlive_us() {
        return None;
    }
    listener.accept().now_or_never()?.ok()
}

/// The state that all connections share.
#[derive(Clone)]
struct Port {
    tls: Option<TlsAcceptor>,
    router: Router,
    bounds: Bounds,
    senders: Senders,
    shutdown: Shutdown,
    places: ConnectionPermits,
    goodbyes: Arc<Semaphore>,
}

impl Port {
    async fn rest(&self, error: &io::Error) {
        // A peer that went away before it was accepted is no error.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            return;
        }
        if self
            .senders
            .refusals
            .admit_line("not-accepted", ClientNetwork::NOBODY)
        {
            tracing::error!(%error, "no connection accepted");
        }
        sleep(REST).await;
    }

    fn accepted(&self, stream: TcpStream, address: SocketAddr) {
        let address = address.ip().to_canonical();
        let is_trusted = self.senders.proxies.contains(address);
        match self.places.take(ClientNetwork::from(address), is_trusted) {
            Ok(place) => {
                let connection = self.clone().admitted(
                    stream,
                    Peer {
                        address,
                        is_trusted,
                        place,
                    },
                );
                self.shutdown.spawn_intake(connection);
            }
            Err(denied) => self.turn_away(stream, address, denied),
        }
    }

    async fn admitted(self, mut stream: TcpStream, mut peer: Peer) {
        // Answers are small and final: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        if peer.is_trusted && self.senders.proxies.address_from() == AddressFrom::ProxyProtocol {
            match read_header(&mut stream, self.bounds.first_byte_within).await {
                Ok(None) => {}
                // From here on the connection counts for this client, and no longer for the
                // proxy.
                Ok(Some(client)) => match self.places.take(ClientNetwork::from(client), false) {
                    Ok(place) => {
                        peer = Peer {
                            address: client.to_canonical(),
                            is_trusted: false,
                            place,
                        }
                    }
                    Err(denied) => return self.turn_away(stream, client, denied),
                },
                Err(error) => return self.refuse("proxy-header", peer.address, &error),
            }
        }
        match self.tls.clone() {
            Some(tls) => self.encrypted(tls, stream, peer).await,
            None => serve_one(stream, self.serving(peer)).await,
        }
    }

    async fn encrypted(self, tls: TlsAcceptor, stream: TcpStream, peer: Peer) {
        let handshake = timeout(self.bounds.first_byte_within, tls.accept(stream));
        match peer.place.evicted().run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => serve_one(stream, self.serving(peer)).await,
            Some(Ok(Err(error))) => self.refuse("tls", peer.address, &error),
            Some(Err(_)) => self.refuse("tls", peer.address, &io::ErrorKind::TimedOut.into()),
            None => {}
        }
    }

    fn serving(self, peer: Peer) -> ConnectionServer {
        ConnectionServer {
            router: self.router,
            bounds: self.bounds,
            shutdown: self.shutdown,
            refusals: self.senders.refusals,
            goodbyes: self.goodbyes,
            peer,
        }
    }

    /// Counts and logs a connection that does not begin as it has to.
    fn refuse(&self, reason: &'static str, address: IpAddr, error: &io::Error) {
        metrics::REFUSED.add(1, [reason.into()]);
        if self
            .senders
            .refusals
            .admit_line(reason, ClientNetwork::from(address))
        {
            tracing::info!(reason, client = %address, %error, "connection refused");
        }
    }

    fn turn_away(&self, stream: TcpStream, address: IpAddr, denied: ShareDenied) {
        let reason = match denied {
            ShareDenied::Full => "connections",
            ShareDenied::OverShare => "over-share",
        };
        metrics::REFUSED.add(1, [reason.into()]);
        if self.senders.proven.has_known(ClientNetwork::from(address)) {
            metrics::REFUSED_KNOWN_CLIENT.add(1, [reason.into()]);
        }
        if self
            .senders
            .refusals
            .admit_line(reason, ClientNetwork::from(address))
        {
            tracing::warn!(reason, client = %address, "connection refused: as many as are allowed are at work");
        }
        if let Ok(goodbye) = Arc::clone(&self.goodbyes).try_acquire_owned() {
            self.shutdown.spawn_intake(say_busy(stream, goodbye));
        }
    }
}

/// Says 503, and reads what the peer sends meanwhile: closing on unread bytes
/// would reset the connection before the answer is read.
async fn say_busy(mut stream: TcpStream, _goodbye: OwnedSemaphorePermit) {
    let goodbye = async {
        stream.write_all(BUSY).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(GOODBYE, goodbye).await;
}
