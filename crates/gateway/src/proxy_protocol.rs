//! The PROXY protocol: a header at the beginning of a connection that names the client.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Longest header that is read: addresses, and what proxies add to them.
const LONGEST: usize = 4096;

/// Wait before the rest of a header is read: a header nearly always comes in one piece.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Reads the header off the beginning of a connection. Returns the client's address, or `None` if
/// the proxy speaks for itself, as its health checks do.
pub(crate) async fn read_header(
    stream: &mut TcpStream,
    within: Duration,
) -> io::Result<Option<IpAddr>> {
    timeout(within, read(stream))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut seen = [0; LONGEST];
    let mut before = 0;
    loop {
        // Only the header may be read: what follows is TLS or HTTP.
        let length = stream.peek(&mut seen).await?;
        if let Some((header, client)) = parse(&seen[..length])? {
            stream.read_exact(&mut seen[..header]).await?;
            return Ok(client);
        }
        if length == before {
            sleep(LOOK_AGAIN).await;
        }
        if length == 0 || length == LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        before = length;
    }
}

/// The header's length and the client, if all of it is there.
fn parse(seen: &[u8]) -> io::Result<Option<(usize, Option<IpAddr>)>> {
    if is_begun(seen) {
        return Ok(None);
    }
    let result = HeaderResult::parse(seen);
    if result.is_incomplete() {
        return Ok(None);
    }
    match result {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(pair) => Some(pair.source_address.into()),
                v1::Addresses::Tcp6(pair) => Some(pair.source_address.into()),
                v1::Addresses::Unknown => None,
            };
            Ok(Some((header.header.len(), client)))
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match (header.command, header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(pair)) => Some(pair.source_address.into()),
                (v2::Command::Proxy, v2::Addresses::IPv6(pair)) => Some(pair.source_address.into()),
                _ => None,
            };
            Ok(Some((header.length() + V2_BEGINNING, client)))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// True if more bytes have to come before the header can be judged. Half a header is not a wrong
/// one.
fn is_begun(seen: &[u8]) -> bool {
    let first = &seen[..seen.len().min(v1::PROTOCOL_PREFIX.len())];
    let is_text = v1::PROTOCOL_PREFIX.as_bytes().starts_with(first);
    let has_ended = seen.windows(2).any(|pair| pair == b"\r\n");
    (is_text && !has_ended && seen.len() < LONGEST_TEXT) || v2::PROTOCOL_PREFIX.starts_with(seen)
}

/// Longest header of version 1.
const LONGEST_TEXT: usize = 107;

/// Bytes of a version 2 header before the part whose length it says.
const V2_BEGINNING: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_up_to_their_end() {
        let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 8080\r\n".to_vec();
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
        v2.extend([
            192, 0, 2, 7, 10, 0, 0, 1, 0x13, 0x88, 0x1f, 0x90, 4, 0, 1, 9,
        ]);
        for header in [v1, v2] {
            for end in 1..header.len() {
                assert_eq!(parse(&header[..end]).unwrap(), None, "{end} bytes of it");
            }
            let all = [&header[..], b"\x16\x03\x01\xff\xfe\r\n"].concat();
            let client = Some("192.0.2.7".parse().unwrap());
            assert_eq!(parse(&all).unwrap(), Some((header.len(), client)));
        }
    }

    #[test]
    fn a_proxys_own_checks_name_nobody_and_anything_else_is_refused() {
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(parse(local).unwrap(), Some((16, None)));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n").unwrap(), Some((15, None)));
        assert!(parse(b"POST / HTTP/1.1\r\nhost: t\r\n\r\n").is_err());
    }
}
