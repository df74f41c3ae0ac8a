//! The connection to the servers, which is made again whenever it is lost.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, StatusCode, Subject};
use bytes::Bytes;
use queue::{BoxError, QueueError};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::options::{Identity, Options};

/// Longest time for a request. The servers take longer to replace a leader: a request that failed
/// is repeated by whoever wanted it.
pub(crate) const REQUEST: Duration = Duration::from_secs(3);

/// Interval of pings to the server, which may miss two.
const PING: Duration = Duration::from_secs(3);

/// Longest wait between attempts to connect.
const RECONNECT: Duration = Duration::from_secs(2);

/// Most publishes that wait for their answer at once: a bound on memory. Further ones wait for a
/// permit.
const IN_FLIGHT: usize = 4096;

/// Most commands on their way to the socket: the same bound for everything else.
const COMMANDS: usize = 2048;

/// A connection that is made again, without end, whenever it is lost.
#[derive(Clone, Debug)]
pub(crate) struct NatsConnection {
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
    /// Number of times that it was made.
    pub(crate) connected: watch::Receiver<u64>,
}

impl NatsConnection {
    /// Whether there is a connection now. Without one the client would silently keep what it is
    /// given, and make its caller wait.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Identifies this connection: changes each time that it is made again.
    pub(crate) fn generation(&self) -> u64 {
        *self.connected.borrow()
    }

    /// Sends a request, and waits for the answer no longer than a request may take.
    pub(crate) async fn request(&self, subject: String, body: Bytes) -> Result<Bytes, BoxError> {
        self.wait().await?;
        let asked = timeout(
            REQUEST + Duration::from_secs(1),
            self.client.request(subject, body),
        )
        .await;
        let answer = asked.map_err(|_| "no answer in time")??;
        match answer.status {
            None | Some(StatusCode::OK) => Ok(answer.payload),
            Some(status) => Err(format!("the server said {status}").into()),
        }
    }

    /// Waits for a connection no longer than a request may take.
    pub(crate) async fn wait(&self) -> Result<(), BoxError> {
        let connected = async {
            while !self.is_connected() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(REQUEST, connected)
            .await
            .map_err(|_| "not connected".into())
    }

    /// Publishes a message that has no answer.
    pub(crate) async fn say(
        &self,
        subject: Subject,
        body: impl Into<Bytes>,
    ) -> Result<(), BoxError> {
        if !self.is_connected() {
            return Err("not connected".into());
        }
        Ok(timeout(REQUEST, self.client.publish(subject, body.into()))
            .await
            .map_err(|_| "not sent in time")??)
    }
}

/// Begins to connect, and returns before that is done: the servers may be away.
pub(crate) async fn connect(options: &Options) -> Result<NatsConnection, QueueError> {
    let (count, connected) = watch::channel(0);
    let mut connect = identified(&options.identity).await?;
    connect = protected(connect, options)
        .name(&options.name)
        .custom_inbox_prefix(&options.inbox_prefix)
        .retry_on_initial_connect()
        .connection_timeout(REQUEST)
        .request_timeout(Some(REQUEST))
        .ping_interval(PING)
        .client_capacity(COMMANDS)
        .reconnect_delay_callback(|attempts| {
            let spread = fastrand::u64(50..150);
            RECONNECT.min(Duration::from_millis(
                u64::try_from(attempts).unwrap_or(20).min(20) * spread,
            ))
        })
        .event_callback(move |event| {
            noticed(&event, &count);
            std::future::ready(())
        });
    if !options.discover_servers {
        connect = connect.ignore_discovered_servers();
    }
    let client = connect
        .connect(options.servers.clone())
        .await
        .map_err(|source| failed("connecting", source))?;
    let jetstream = jetstream::context::ContextBuilder::new()
        .timeout(REQUEST)
        .ack_timeout(REQUEST)
        .max_ack_inflight(IN_FLIGHT)
        .backpressure_on_inflight(true)
        .build(client.clone());
    Ok(NatsConnection {
        client,
        jetstream,
        connected,
    })
}

/// Waits until there is a connection, for at most `within`.
pub(crate) async fn connected(
    link: &NatsConnection,
    within: Duration,
    servers: &[String],
) -> Result<(), QueueError> {
    let mut count = link.connected.clone();
    match timeout(within, count.wait_for(|count| *count > 0)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(QueueError::unavailable(
            "connecting to NATS",
            format!("none of {} lets us in", servers.join(", ")),
        )),
    }
}

fn noticed(event: &Event, count: &watch::Sender<u64>) {
    match event {
        Event::Connected => {
            count.send_modify(|count| *count += 1);
            tracing::info!("connected to NATS");
        }
        Event::Disconnected => tracing::warn!("the connection to NATS is lost: connecting again"),
        Event::ServerError(error) => tracing::error!(%error, "NATS refused something"),
        Event::ClientError(error) => tracing::warn!(%error, "no connection to NATS yet"),
        other => tracing::info!(event = %other, "NATS"),
    }
}

async fn identified(identity: &Identity) -> Result<ConnectOptions, QueueError> {
    let reading = "reading the credentials for NATS";
    let options = ConnectOptions::new();
    match identity {
        Identity::Anonymous => Ok(options),
        Identity::Credentials(path) => options
            .credentials_file(path)
            .await
            .map_err(|source| failed(reading, source)),
        Identity::Nkey(path) => {
            Ok(options.nkey(secret(path).map_err(|source| failed(reading, source))?))
        }
        Identity::Password(user, path) => {
            let password = secret(path).map_err(|source| failed(reading, source))?;
            Ok(options.user_and_password(user.clone(), password))
        }
    }
}

fn secret(path: &std::path::Path) -> std::io::Result<String> {
    // Editors on Windows begin files with a byte order mark.
    Ok(std::fs::read_to_string(path)?
        .trim_start_matches('\u{feff}')
        .trim()
        .to_owned())
}

fn protected(mut connect: ConnectOptions, options: &Options) -> ConnectOptions {
    let tls = &options.tls;
    connect = connect.require_tls(tls.required);
    if let Some(ca) = &tls.ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    if let Some((certificate, key)) = &tls.client {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    connect
}

fn failed(action: &'static str, source: impl Into<BoxError>) -> QueueError {
    QueueError::unavailable(action, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_neither_its_byte_order_mark_nor_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "\u{feff}s3cret\r\n").unwrap();
        assert_eq!(secret(&path).unwrap(), "s3cret");
    }
}
