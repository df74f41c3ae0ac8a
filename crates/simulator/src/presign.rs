//! Signed requests that are made before a load test.

use std::thread;

use crate::{Events, KeyPair};

/// `count` different webhooks as complete HTTP/1.1 requests, ready to be written to a socket.
/// Signing costs far more than receiving, so a load test signs beforehand. Uses every core.
pub fn presign(
    key: &KeyPair,
    account: &str,
    host: &str,
    path: &str,
    count: usize,
    seed: u64,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let parts: Vec<_> = (0..workers)
            .map(|worker| {
                let share = count / workers + usize::from(worker < count % workers);
                let seed = seed.wrapping_mul(1_000_003).wrapping_add(worker as u64);
                scope.spawn(move || part(key, account, host, path, share, seed))
            })
            .collect();
        let mut requests = Vec::with_capacity(count);
        for part in parts {
            requests.extend(
                part.join()
                    .map_err(|_| anyhow::anyhow!("a signing thread panicked"))??,
            );
        }
        Ok(requests)
    })
}

fn part(
    key: &KeyPair,
    account: &str,
    host: &str,
    path: &str,
    count: usize,
    seed: u64,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut events = Events::new(account, 34, seed);
    (0..count)
        .map(|_| {
            let signed = key.sign(events.any().body)?;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nfluent-signature: {}\r\nflex.signature: {}\r\ncontent-length: {}\r\n\r\n",
                signed.sha512,
                signed.md5,
                signed.body.len(),
            );
            Ok([head.as_bytes(), &signed.body].concat())
        })
        .collect()
}
