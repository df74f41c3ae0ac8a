//! Limits that keep one sender, or a thousand, from exhausting the gateway.

use std::time::Duration;

use anyhow::ensure;
use process::ProcessLimits;

const MIB: u64 = 1 << 20;

/// Bytes that a process needs beside this port: itself, its queue, deliveries in progress, and
/// rejected webhooks that wait to be stored (32 MiB).
const BESIDES: u64 = 96 * MIB;

/// A connection without its headers: buffers, TLS, tasks. Measured at 25 kB after a request,
/// 31 kB with TLS.
const CONNECTION: u64 = 32 << 10;

/// Fewest connections that a gateway can work with. With less room it does not start.
const FEWEST_CONNECTIONS: u64 = 64;
const FEWEST_BODIES: u64 = 2;

/// Descriptors for everything but connections of this port: a quarter for the other ports and what
/// they do, and some for files, listeners and who is turned away; within these.
const FILES: u64 = 32;
const FEWEST_OTHER_DESCRIPTORS: u64 = 96;
const MOST_OTHER_DESCRIPTORS: u64 = 1024;

/// Limits that keep one sender, or a thousand, from exhausting the gateway.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Largest body in bytes.
    pub body: usize,
    /// Most bytes of bodies in memory at once. Beyond it, the answer is 503.
    pub bodies: usize,
    /// Connections at once; beyond it the one that is idle longest gives way.
    pub connections: usize,
    /// Time from a request's first byte to the end of its headers.
    pub headers_within: Duration,
    /// Time from the headers to the end of the body.
    pub body_within: Duration,
    /// Time from a new connection to its first byte.
    pub first_byte_within: Duration,
    /// Longest time that a write waits for the peer to read.
    pub write_within: Duration,
    /// Longest idle time of a connection between requests: longer than the proxies before us keep
    /// theirs, so that we never close under a request.
    pub idle: Duration,
    /// Longest time to try to make an event durable. Fluent gives up after 14 s.
    pub durable_within: Duration,
    /// Most header lines.
    pub header_count: usize,
    /// Most bytes of headers.
    pub header_bytes: usize,
}

impl Bounds {
    /// The usual limits for bodies of at most `body` bytes.
    pub fn new(body: usize) -> Self {
        Self {
            body,
            bodies: body.saturating_mul(4).max(64 << 20),
            connections: 4096,
            headers_within: Duration::from_secs(5),
            body_within: Duration::from_secs(5),
            first_byte_within: Duration::from_secs(10),
            write_within: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            durable_within: Duration::from_secs(5),
            header_count: 64,
            header_bytes: 16 << 10,
        }
    }

    /// The usual limits, reduced to what the process can have.
    ///
    /// # Errors
    /// If there is not even room for the fewest bodies and connections.
    pub fn fitting(body: usize, limits: ProcessLimits) -> anyhow::Result<Self> {
        let usual = Self::new(body);
        let (bodies, connections) = match limits.memory {
            Some(memory) => usual.within_memory(memory)?,
            None => (usual.bodies as u64, usual.connections as u64),
        };
        let connections = match limits.descriptors {
            Some(descriptors) => connections.min(for_connections(descriptors)?),
            None => connections,
        };
        let at_most =
            |number: u64, usual: usize| usize::try_from(number).map_or(usual, |it| it.min(usual));
        Ok(Self {
            bodies: at_most(bodies, usual.bodies),
            connections: at_most(connections, usual.connections),
            ..usual
        })
    }

    /// True if these limits are below the usual ones.
    pub(crate) fn is_shrunk(&self) -> bool {
        let usual = Self::new(self.body);
        self.bodies < usual.bodies || self.connections < usual.connections
    }

    /// Bytes for bodies, and the number of connections with full headers, that fit into `memory`.
    /// Three quarters of what is left are used, a third of that for bodies.
    fn within_memory(&self, memory: u64) -> anyhow::Result<(u64, u64)> {
        let each = CONNECTION + self.header_bytes as u64;
        let room = memory.saturating_sub(BESIDES) / 4 * 3;
        let fewest = FEWEST_BODIES * self.body as u64;
        let bodies = (room / 3).max(fewest).min(self.bodies as u64);
        let connections = room.saturating_sub(bodies) / each;
        let needed = BESIDES + (fewest + FEWEST_CONNECTIONS * each) * 4 / 3;
        ensure!(
            connections >= FEWEST_CONNECTIONS,
            "this process may use {} MiB of memory, too little to accept webhooks of up to {} KiB: expected a limit of at least {} MiB, or a smaller webhook.body-limit",
            memory / MIB,
            self.body >> 10,
            needed.div_ceil(MIB),
        );
        Ok((bodies, connections))
    }
}

fn for_connections(descriptors: u64) -> anyhow::Result<u64> {
    let other = (descriptors / 4 + FILES).clamp(FEWEST_OTHER_DESCRIPTORS, MOST_OTHER_DESCRIPTORS);
    let left = descriptors.saturating_sub(other);
    ensure!(
        left >= FEWEST_CONNECTIONS,
        "this process may open {descriptors} files and connections (RLIMIT_NOFILE): expected at least {}",
        FEWEST_CONNECTIONS + FEWEST_OTHER_DESCRIPTORS
    );
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitting(body: usize, memory: u64, descriptors: u64) -> anyhow::Result<Bounds> {
        let limits = ProcessLimits {
            memory: Some(memory * MIB),
            descriptors: Some(descriptors),
        };
        Bounds::fitting(body, limits)
    }

    #[test]
    fn everything_at_once_fits_into_the_memory() {
        for memory in [128, 256, 300, 512, 1024, 100_000] {
            for body in [64 << 10, 2 << 20, 16 << 20] {
                let Ok(bounds) = fitting(body, memory, 100_000) else {
                    continue;
                };
                let headers = bounds.connections as u64 * (CONNECTION + bounds.header_bytes as u64);
                let all = BESIDES + bounds.bodies as u64 + headers;
                assert!(
                    all <= memory * MIB,
                    "{memory} MiB, bodies of {body}: {bounds:?}"
                );
                assert!(
                    bounds.bodies >= 2 * body && bounds.connections >= 64,
                    "{memory}: {bounds:?}"
                );
            }
        }
        let shipped = fitting(2 << 20, 256, 20_000).unwrap();
        assert_eq!((shipped.bodies >> 20, shipped.connections), (40, 1706));
        assert!(shipped.is_shrunk() && !fitting(2 << 20, 8192, 20_000).unwrap().is_shrunk());
    }

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        for (descriptors, connections) in [(256, 160), (1024, 736), (4096, 3072), (20_000, 4096)] {
            assert_eq!(
                fitting(1 << 20, 8192, descriptors).unwrap().connections,
                connections
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let refused = fitting(16 << 20, 128, 20_000).unwrap_err().to_string();
        assert!(
            refused.contains("128 MiB") && refused.contains("at least 143 MiB"),
            "{refused}"
        );
        assert!(fitting(16 << 20, 143, 20_000).is_ok());
        let refused = fitting(1 << 20, 8192, 100).unwrap_err().to_string();
        assert!(
            refused.contains("RLIMIT_NOFILE") && refused.contains("at least 160"),
            "{refused}"
        );
    }
}
