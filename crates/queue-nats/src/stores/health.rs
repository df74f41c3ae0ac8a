//! The health of the servers and streams: the servers that the settings name are asked for their
//! greeting, and the streams for the state of their copies.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::ServerAddr;
use async_nats::jetstream::stream::DiscardPolicy;
use futures::future::join_all;
use queue::{QueueError, ServerHealth, ServerState, StoreUsage, StoresHealth};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api;
use crate::cluster::STREAMS;
use crate::connect::NatsConnection;
use crate::streams::RETRIES;

/// Longest time that a server may take to greet.
const GREETS_WITHIN: Duration = Duration::from_secs(2);

/// NATS's own port, for an address that names none.
const PORT: u16 = 4222;

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
    let (copies, usage) = streams?;
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
    })
}

/// Returns the copies of the streams, by the server that keeps them, and how full each stream is.
async fn streams(
    link: &NatsConnection,
    waiting_limit: u64,
) -> Result<(Vec<ServerHealth>, Vec<StoreUsage>), QueueError> {
    let (mut copies, mut usage): (BTreeMap<String, ServerState>, _) = (BTreeMap::new(), Vec::new());
    for (stream, _) in STREAMS {
        let info = match api::stream_info(link, stream).await {
            Ok(info) => info,
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
    Ok((
        copies
            .map(|(name, state)| ServerHealth { name, state })
            .collect(),
        usage,
    ))
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
