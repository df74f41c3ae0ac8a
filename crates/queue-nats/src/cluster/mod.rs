//! The streams of a cluster: the expected ones, the existing ones, and how the two differ.
//!
//! Services only compare; `cluster init` makes the streams, with a credential of its own.

mod drift;
mod layout;
mod room;
mod route_ports;

use std::fmt;

use async_nats::jetstream::stream::{Config, Info};
use queue::{QueueError, StoresHealth};
use tokio::time::Instant;

pub use crate::cluster::drift::Drift;
pub(crate) use crate::cluster::layout::{MAX_MESSAGE, STREAMS};
pub use crate::cluster::route_ports::{ROUTE_PORT, RouteAccess, RoutePort};
pub use crate::streams::StreamName;

use crate::api;
use crate::connect::{NatsConnection, REQUEST, connect, connected};
use crate::options::{Layout, Options};
use crate::stores::health::health;
use crate::streams::{INFLIGHT, Shard};

/// The oldest server that understands everything we ask for. Older ones ignore
/// what they do not know.
const OLDEST: (i64, i64, i64) = (2, 12, 0);

/// Comparison of a cluster with what it should be.
#[derive(Clone, Debug)]
pub struct ClusterReport {
    /// The version of the server that answered.
    pub server: String,
    /// Whether that version is new enough.
    pub is_supported: bool,
    /// Largest message that the server takes, in bytes; less than a stream's largest is too
    /// little.
    pub max_payload: usize,
    /// The streams, one by one.
    pub streams: Vec<StreamReport>,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct StreamReport {
    /// Its name.
    pub name: StreamName,
    /// Purpose of the stream.
    pub purpose: &'static str,
    /// State of the stream, and what was done about it.
    pub state: StreamState,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
}

/// Result of the comparison of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// As it should be.
    Good,
    /// Does not exist.
    Missing,
    /// Did not exist, and was made.
    Made,
    /// Was changed to what it should be.
    Changed(Vec<Drift>),
    /// Differs from what it should be.
    Drifted(Vec<Drift>),
}

impl ClusterReport {
    /// Whether the server would refuse the largest bodies.
    pub fn is_payload_small(&self) -> bool {
        i32::try_from(self.max_payload).is_ok_and(|bytes| bytes < MAX_MESSAGE)
    }

    /// Whether services can work with this cluster.
    pub fn is_good(&self) -> bool {
        let good = |stream: &StreamReport| match stream.state {
            // A single server loses this stream with each restart, and dispatchers make it again.
            StreamState::Missing => stream.name == INFLIGHT,
            StreamState::Drifted(_) => false,
            StreamState::Good | StreamState::Made | StreamState::Changed(_) => true,
        };
        self.is_supported && !self.is_payload_small() && self.streams.iter().all(good)
    }
}

/// Shows in one line what is wrong.
impl fmt::Display for ClusterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_supported {
            return write!(
                f,
                "the server is version {}, expected 2.12 or newer",
                self.server
            );
        }
        let mut said = Vec::new();
        if self.is_payload_small() {
            let found = self.max_payload;
            let wanted = MAX_MESSAGE;
            said.push(format!(
                "the server's max_payload is {found}, expected {wanted} or more"
            ));
        }
        for stream in &self.streams {
            match &stream.state {
                StreamState::Missing if stream.name != INFLIGHT => {
                    said.push(format!("{} is missing", stream.name))
                }
                StreamState::Drifted(drifts) => {
                    said.extend(
                        drifts
                            .iter()
                            .map(|drift| format!("{}: {drift}", stream.name)),
                    );
                }
                _ => {}
            }
        }
        f.write_str(&said.join("; "))
    }
}

/// A connection to a cluster, for commands that may make its streams.
#[derive(Debug)]
pub struct Cluster {
    link: NatsConnection,
    layout: Layout,
    /// The addresses of the settings.
    servers: Vec<String>,
}

impl Cluster {
    /// Connects, and waits for the servers: without them there is nothing to compare.
    pub async fn connect(options: &Options) -> Result<Self, QueueError> {
        let link = connect(options).await?;
        connected(&link, REQUEST * 3, &options.servers).await?;
        Ok(Self {
            link,
            layout: options.layout,
            servers: options.servers.clone(),
        })
    }

    /// Returns the state of the servers that the settings name, and of those that keep the
    /// streams.
    pub async fn health(&self) -> Result<StoresHealth, QueueError> {
        health(&self.link, &self.servers, self.layout.bytes).await
    }

    /// Returns what this port demands of anybody who joins as a server: on each server that the
    /// settings name, and on those that the servers tell clients about.
    pub async fn route_ports(&self, port: u16) -> Vec<RoutePort> {
        let told = self
            .link
            .client
            .try_server_info()
            .map(|info| info.connect_urls)
            .unwrap_or_default();
        route_ports::probe(self.servers.iter().cloned().chain(told), port).await
    }

    /// Compares every stream with what it should be.
    pub async fn check(&self) -> Result<ClusterReport, QueueError> {
        check(&self.link, &self.layout).await
    }

    /// Makes streams that are missing and changes what may be changed. What can't be changed is
    /// left as it is, and reported.
    pub async fn init(&self) -> Result<ClusterReport, QueueError> {
        let mut report = self.check().await?;
        if !report.is_supported {
            return Ok(report);
        }
        // For all of them together: what lasts is not waited for ten times.
        let deadline = Instant::now() + api::ANSWERED_WITHIN;
        for stream in &mut report.streams {
            let wanted = layout::config(stream.name, &self.layout);
            stream.state = match stream.state.clone() {
                StreamState::Missing => self.make(wanted, deadline).await?,
                StreamState::Drifted(drifts) => self.change(wanted, drifts, deadline).await?,
                state => state,
            };
        }
        Ok(report)
    }

    async fn make(&self, wanted: Config, deadline: Instant) -> Result<StreamState, QueueError> {
        let subject = format!("STREAM.CREATE.{}", wanted.name);
        let made = api::until_settled(deadline, || api::ask::<Info>(&self.link, &subject, &wanted));
        match made.await {
            Ok(_) => Ok(StreamState::Made),
            Err(error) => {
                Err(room::error_of_making(&self.link, &wanted, &self.layout, error).await)
            }
        }
    }

    async fn change(
        &self,
        wanted: Config,
        drifts: Vec<Drift>,
        deadline: Instant,
    ) -> Result<StreamState, QueueError> {
        let subject = format!("STREAM.UPDATE.{}", wanted.name);
        let changed =
            api::until_settled(deadline, || api::ask::<Info>(&self.link, &subject, &wanted));
        match changed.await {
            Ok(info) if drift::between(&wanted, &info.config).is_empty() => {
                Ok(StreamState::Changed(drifts))
            }
            Ok(_) => Ok(StreamState::Drifted(drifts)),
            Err(api::ApiError::Refused(error)) => {
                tracing::warn!(stream = wanted.name, %error, "the server refused the change");
                Ok(StreamState::Drifted(drifts))
            }
            Err(error) => Err(error.of("changing a stream")),
        }
    }
}

/// Makes the stream of markers of attempts that began, which servers keep in memory: the one
/// stream that services make, since a single server loses it with each restart.
pub(crate) async fn make_inflight(
    link: &NatsConnection,
    layout: &Layout,
) -> Result<(), QueueError> {
    match api::stream_info(link, INFLIGHT).await {
        Err(error) if error.is_missing() => make(link, &layout::config(INFLIGHT, layout)).await,
        Ok(_) => Ok(()),
        Err(error) => Err(error.of("looking at the streams")),
    }
}

async fn make(link: &NatsConnection, wanted: &Config) -> Result<(), QueueError> {
    let subject = format!("STREAM.CREATE.{}", wanted.name);
    let made = api::until_answered(|| api::ask::<Info>(link, &subject, wanted)).await;
    made.map(drop).map_err(|error| error.of("making a stream"))
}

/// Returns what is wrong with the server or the stream of events; `None` if both are as they
/// should be.
pub(crate) fn wrong_with(link: &NatsConnection, layout: &Layout, events: &Info) -> Option<String> {
    let wanted = layout::config(Shard::ONLY.events(), layout);
    let drifts = drift::between(&wanted, &events.config);
    let state = if drifts.is_empty() {
        StreamState::Good
    } else {
        StreamState::Drifted(drifts)
    };
    let stream = StreamReport {
        name: Shard::ONLY.events(),
        purpose: "",
        state,
        messages: 0,
        bytes: 0,
    };
    let report = report(link, vec![stream]);
    (!report.is_good()).then(|| report.to_string())
}

/// Compares every stream with what it should be.
pub(crate) async fn check(
    link: &NatsConnection,
    layout: &Layout,
) -> Result<ClusterReport, QueueError> {
    let mut streams = Vec::new();
    for (name, purpose) in STREAMS {
        let wanted = layout::config(name, layout);
        let (state, messages, bytes) =
            match api::until_answered(|| api::stream_info(link, name)).await {
                Ok(info) => {
                    let drifts = drift::between(&wanted, &info.config);
                    let state = if drifts.is_empty() {
                        StreamState::Good
                    } else {
                        StreamState::Drifted(drifts)
                    };
                    (state, info.state.messages, info.state.bytes)
                }
                Err(error) if error.is_missing() => (StreamState::Missing, 0, 0),
                Err(error) => return Err(error.of("looking at the streams")),
            };
        streams.push(StreamReport {
            name,
            purpose,
            state,
            messages,
            bytes,
        });
    }
    Ok(report(link, streams))
}

fn report(link: &NatsConnection, streams: Vec<StreamReport>) -> ClusterReport {
    let server = link
        .client
        .try_server_info()
        .map(|info| info.version)
        .unwrap_or_default();
    let (major, minor, patch) = OLDEST;
    let is_supported = !server.is_empty() && link.client.is_server_compatible(major, minor, patch);
    let max_payload = link.client.max_payload();
    ClusterReport {
        server,
        is_supported,
        max_payload,
        streams,
    }
}
