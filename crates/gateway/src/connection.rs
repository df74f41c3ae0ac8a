//! A socket that gives up on a request whose headers do not come to an end.
//!
//! hyper's own header timeout is also its limit on idle keep-alive
//! connections, and that must be long: a proxy's pooled connection that we
//! close just then loses its request. So the clock here starts with a
//! request's first byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Sent when the headers took too long.
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 19\r\nconnection: close\r\n\r\n{\"error\":\"timeout\"}";

/// Whether a request's headers have arrived and its answer has not.
#[derive(Clone, Debug, Default)]
pub(crate) struct InRequest(Arc<AtomicBool>);

impl InRequest {
    pub(crate) fn set(&self, inside: bool) {
        self.0.store(inside, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct HeaderDeadline<S> {
    stream: S,
    in_request: InRequest,
    within: Duration,
    /// Runs from the first byte of a request to the end of its headers.
    clock: Option<Pin<Box<Sleep>>>,
}

impl<S> HeaderDeadline<S> {
    pub(crate) fn new(stream: S, within: Duration) -> (Self, InRequest) {
        let in_request = InRequest::default();
        let wrapped = Self { stream, in_request: in_request.clone(), within, clock: None };
        (wrapped, in_request)
    }

    fn start_clock(&mut self) {
        match &mut self.clock {
            Some(clock) if clock.is_elapsed() => clock.as_mut().reset(Instant::now() + self.within),
            Some(_) => {}
            None => self.clock = Some(Box::pin(sleep(self.within))),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for HeaderDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.in_request.get() {
            this.clock = None;
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                this.start_clock();
            }
            return Poll::Ready(result);
        }
        let Some(clock) = &mut this.clock else { return Poll::Pending };
        ready!(clock.as_mut().poll(cx));
        // One attempt to say so; a client this slow may not be listening.
        let _ = Pin::new(&mut this.stream).poll_write(cx, TIMEOUT);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeaderDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
