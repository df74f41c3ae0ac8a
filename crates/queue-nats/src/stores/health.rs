//! The health of the servers and streams: the servers that the settings name are asked for their
//! greeting, and the streams for the state of their copies.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::ServerAddr;
use async_nats::jetstream::stream::{DiscardPolicy, Info};
use event_model::Timestamp;
use futures::future::join_all;
use queue::{QueueError, ServerHealth, ServerState, StoreUsage, StoresHealth};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api;
use crate::cluster::STREAMS;
use crate::connect::NatsConnection;
use crate::streams::{RETRIES, SAME_IDS};

/// Longest time that a server may take to greet.
const GREETS_WITHIN: Duration = Duration::from_secs(2);

/// NATS's own port, for an address that names none.
const PORT: u16 = 4222;

/// Bytes that a fact about events of one key takes in its stream, at most.
const LARGEST_SAME_ID: u64 = 1024;

/// First bytes that every server sends.
const GREETING: &[u8] = b"INFO";

/// Returns the state of servers and streams now. Waiting deliveries are shown with our own limit,
/// since the server has none for them.
pub(crate) async fn health(
    link: &NatsConnection,
    addresses: &[String],
    waiting_limit: u64,
) -> Result<StoresHealth, QueueError> {
    let greeted = join_all(
        addresses
            .iter()
            .map(async |address| (address.clone(), greets(address).await)),
    );
    let (greeted, streams) = tokio::join!(greeted, streams(link, waiting_limit));
    let Streams {
        copies,
        usage,
        same_ids_known_for,
    } = streams?;
    let addresses = greeted.into_iter().map(|(name, greets)| {
        let state = if greets {
            ServerState::Well
        } else {
            ServerState::Gone
        };
        ServerHealth { name, state }
    });
    Ok(StoresHealth {
        servers: addresses.chain(copies).collect(),
        usage,
        same_ids_known_for,
    })
}

/// State of all streams.
struct Streams {
    /// The copies of the streams, by the server that keeps them.
    copies: Vec<ServerHealth>,
    /// How full each stream is.
    usage: Vec<StoreUsage>,
    same_ids_known_for: Option<Duration>,
}

/// Returns the state of all streams.
async fn streams(link: &NatsConnection, waiting_limit: u64) -> Result<Streams, QueueError> {
    let mut copies: BTreeMap<String, ServerState> = BTreeMap::new();
    let mut usage = Vec::new();
    let mut same_ids_known_for = None;
    for (stream, _) in STREAMS {
        let info = match api::stream_info_at(link, stream).await {
            Ok((info, now)) => {
                if stream == SAME_IDS {
                    same_ids_known_for = now.and_then(|now| known_for(&info, now));
                }
                info
            }
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error.of("looking at the streams")),
        };
        let limit = u64::try_from(info.config.max_bytes)
            .ok()
            .filter(|limit| *limit > 0);
        let limit = if stream == RETRIES {
            Some(waiting_limit)
        } else {
            limit
        };
        // A stream in which the oldest make room is normally full.
        let makes_room = info.config.discard == DiscardPolicy::Old && stream != RETRIES;
        let has_settled = stream.shard().is_some();
        if !makes_room {
            usage.push(StoreUsage {
                name: stream.to_string(),
                used: info.state.bytes,
                limit,
                has_settled,
            });
        }
        let Some(cluster) = info.cluster else {
            continue;
        };
        if let Some(leader) = cluster.leader {
            copies.entry(leader).or_insert(ServerState::Well);
        }
        for replica in cluster.replicas {
            let state = copies.entry(replica.name).or_insert(ServerState::Well);
            match state {
                _ if replica.offline => *state = ServerState::Gone,
                ServerState::Well if !replica.current => {
                    *state = ServerState::Behind(vec![stream.to_string()])
                }
                ServerState::Behind(streams) if !replica.current => {
                    streams.push(stream.to_string())
                }
                _ => {}
            }
        }
    }
    // A single server has no name but its address.
    let is_cluster = copies.len() > 1;
    let copies = copies.into_iter().filter(|_| is_cluster);
    Ok(Streams {
        copies: copies
            .map(|(name, state)| ServerHealth { name, state })
            .collect(),
        usage,
        same_ids_known_for,
    })
}

/// Returns the age of the oldest message of a stream that is so full that older ones had to make
/// room for it; `None` if there is room, or nothing is removed but by age.
fn known_for(info: &Info, now: Timestamp) -> Option<Duration> {
    let limit = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    let is_full = limit(info.config.max_messages).is_some_and(|most| info.state.messages >= most)
        || limit(info.config.max_bytes)
            .is_some_and(|most| info.state.bytes.saturating_add(LARGEST_SAME_ID) > most);
    let oldest = info.state.first_timestamp.unix_timestamp_nanos();
    let oldest = Timestamp::from_nanosecond(oldest).ok()?;
    let age = Duration::try_from(now.duration_since(oldest)).unwrap_or_default();
    (is_full && info.state.messages > 0 && age < info.config.max_age).then_some(age)
}

/// Whether a NATS server answers at this address. Nothing is sent to it.
async fn greets(address: &str) -> bool {
    let Ok(parsed) = address.parse::<ServerAddr>() else {
        return false;
    };
    let port = if parsed.port() == 0 {
        PORT
    } else {
        parsed.port()
    };
    let asking = async {
        let mut stream = TcpStream::connect((parsed.host(), port)).await.ok()?;
        let mut first = [0; GREETING.len()];
        stream.read_exact(&mut first).await.ok()?;
        Some(first == GREETING)
    };
    timeout(GREETS_WITHIN, asking)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}
