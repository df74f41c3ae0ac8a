use std::time::Duration;

/// Limits that keep one sender, or a thousand, from exhausting the gateway.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Largest body in bytes.
    pub body: usize,
    /// Bytes of bodies held at once; beyond it, 503.
    pub bodies: usize,
    /// Connections at once; beyond it, 503.
    pub connections: usize,
    /// From a request's first byte to the end of its headers.
    pub headers_within: Duration,
    /// From the headers to the end of the body.
    pub body_within: Duration,
    /// From a new connection to its first byte.
    pub first_byte_within: Duration,
    /// How long a write may wait for the peer to read.
    pub write_within: Duration,
    /// How long a connection may be idle between requests: longer than the
    /// proxies before us keep theirs, so that we never close under a request.
    pub idle: Duration,
    /// How long to try to make an event durable. Fluent gives up after 14 s.
    pub durable_within: Duration,
    /// Most header lines.
    pub header_count: usize,
    /// Most bytes of headers.
    pub header_bytes: usize,
}

impl Bounds {
    /// The limits for bodies of this size.
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
}
