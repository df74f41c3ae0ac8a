//! The status of an answer, read from its first bytes beside the HTTP library.
//!
//! An endpoint that answered 2xx has the event, even if the library can't read the rest of its
//! answer. So each connection notes the status of the answer that comes on it, and whether
//! anything came at all.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use http::StatusCode;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a line from which its status can be read: `HTTP/1.1 200` and the next one.
const STATUS_LINE: usize = 13;

/// The beginning of the answer to the latest request on a connection.
#[derive(Clone, Debug)]
pub(crate) struct StatusTap {
    seen: Arc<Mutex<StatusSeen>>,
    made: Instant,
}

#[derive(Debug, Default)]
struct StatusSeen {
    /// Number of requests that were begun on this connection.
    requests: u32,
    has_bytes: bool,
    head: Head,
}

/// Place in an answer's head at which reading is.
#[derive(Debug)]
enum Head {
    /// So many bytes of it have come.
    StatusLine([u8; STATUS_LINE], usize),
    /// In the fields of an interim answer (1xx): another status line follows them.
    Interim {
        is_line_empty: bool,
    },
    Status(StatusCode),
    Unreadable,
}

impl Default for Head {
    fn default() -> Self {
        Self::StatusLine([0; STATUS_LINE], 0)
    }
}

impl Head {
    fn take(&mut self, byte: u8) {
        match self {
            Self::StatusLine(_, 0) if matches!(byte, b'\r' | b'\n') => {}
            Self::StatusLine(line, count) => {
                line[*count] = byte;
                *count += 1;
                if *count == STATUS_LINE {
                    *self = Self::of_status(*line, byte);
                }
            }
            Self::Interim { is_line_empty } => match byte {
                b'\n' if *is_line_empty => *self = Self::default(),
                b'\n' => *is_line_empty = true,
                b'\r' => {}
                _ => *is_line_empty = false,
            },
            Self::Status(_) | Self::Unreadable => {}
        }
    }

    fn of_status(line: [u8; STATUS_LINE], last: u8) -> Self {
        let status = match line {
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'1',
                b'.',
                b'0' | b'1',
                b' ',
                ref code @ ..,
                b' ' | b'\r' | b'\n',
            ] => StatusCode::from_bytes(code).ok(),
            _ => None,
        };
        match status {
            Some(status)
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS =>
            {
                Self::Interim {
                    is_line_empty: last == b'\n',
                }
            }
            Some(status) => Self::Status(status),
            None => Self::Unreadable,
        }
    }
}

impl StatusTap {
    /// Of a connection that was made now.
    fn new() -> Self {
        Self {
            seen: Arc::default(),
            made: Instant::now(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, StatusSeen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that another request begins, before its first byte is written. Returns its number.
    pub(crate) fn begin(&self) -> u32 {
        let mut seen = self.seen();
        let requests = seen.requests.saturating_add(1);
        *seen = StatusSeen {
            requests,
            ..StatusSeen::default()
        };
        requests
    }

    /// Returns the status of the answer to a request, while that is the latest.
    pub(crate) fn status(&self, request: u32) -> Option<StatusCode> {
        let seen = self.seen();
        match seen.head {
            Head::Status(status) if seen.requests == request => Some(status),
            _ => None,
        }
    }

    /// Whether a request, the latest and made at `asked`, was sent on a connection that was there
    /// before it, and nothing was answered: the endpoint closed the connection as the request went
    /// out. Such a connection may have served nobody yet, if the request for which it was made took
    /// another.
    pub(crate) fn is_unanswered_reuse(&self, request: u32, asked: Instant) -> bool {
        let seen = self.seen();
        seen.requests == request && (request > 1 || self.made < asked) && !seen.has_bytes
    }

    fn reads(&self, bytes: &[u8]) {
        let mut seen = self.seen();
        seen.has_bytes |= !bytes.is_empty();
        for byte in bytes {
            if matches!(seen.head, Head::Status(_) | Head::Unreadable) {
                return;
            }
            seen.head.take(*byte);
        }
    }
}

/// A connection that notes what came on it.
#[derive(Debug)]
pub(crate) struct TappedStream<S> {
    stream: S,
    tap: StatusTap,
}

impl<S> TappedStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            tap: StatusTap::new(),
        }
    }
}

impl<S: Connection> Connection for TappedStream<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.tap.clone())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TappedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.tap.reads(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TappedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(bytes: &str, expected: Option<u16>) {
        // In pieces of any size.
        for size in [1, 2, 7, 1000] {
            let tap = StatusTap::new();
            let request = tap.begin();
            bytes
                .as_bytes()
                .chunks(size)
                .for_each(|chunk| tap.reads(chunk));
            assert_eq!(
                tap.status(request).map(|status| status.as_u16()),
                expected,
                "{bytes:?} by {size}"
            );
        }
    }

    #[test]
    fn the_status_is_that_of_the_final_answer() {
        check("HTTP/1.1 200 OK\r\n", Some(200));
        check("\r\nHTTP/1.0 204\n", Some(204));
        check("HTTP/1.1 100\r\n\r\nHTTP/1.1 201 Created\r\n", Some(201));
        check(
            "HTTP/1.1 103 X\r\nlink: a\r\n\r\nHTTP/1.1 102\n\nHTTP/1.1 503 X",
            Some(503),
        );
        check("HTTP/1.1 101 X\r\n", Some(101));
        check("HTTP/1.1 103 X\r\nlink: HTTP/1.1 200 \r\n", None);
        for bad in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 2000 ",
            "HTTP/2.0 200 ",
            "http/1.1 200 ",
            "HTTP/1.1  20 ",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn only_a_connection_that_was_there_before_the_request_can_have_closed_before_it() {
        let before = Instant::now();
        let tap = StatusTap::new();
        let first = tap.begin();
        assert!(!tap.is_unanswered_reuse(first, before), "made for it");
        let later = tap.made + Duration::from_nanos(1);
        assert!(tap.is_unanswered_reuse(first, later), "made for another");
        tap.reads(b"HTTP/1.1 200 OK\r\n\r\n");
        let second = tap.begin();
        assert!(tap.is_unanswered_reuse(second, before) && tap.status(second).is_none());
        assert!(
            !tap.is_unanswered_reuse(first, later) && tap.status(first).is_none(),
            "it is the latest's"
        );
        tap.reads(b"H");
        assert!(!tap.is_unanswered_reuse(second, before));
    }
}
