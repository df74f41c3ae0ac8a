//! A socket with the deadlines that hyper does not have.
//!
//! * A request's headers must come to an end. hyper's own header timeout is
//!   also its limit on idle keep-alive connections, and that must be long: a
//!   proxy's pooled connection that we close just then loses its request. So
//!   the clock here starts with a request's first byte, and on a fresh
//!   connection at once.
//! * An answer must be read: a peer that does not read holds its permit no
//!   longer than a write may take.
//! * Bytes that could be read in two ways are not passed on: [`Framing`].
//! * Closing waits a moment for what the peer is still sending: closing on
//!   unread bytes would reset the connection before the answer is read.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use telemetry::metrics;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::Bounds;
use crate::framing::{Framing, POISON};

/// Sent when the headers took too long.
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 19\r\nconnection: close\r\n\r\n{\"error\":\"timeout\"}";

/// The reason in metrics and the log for a request whose headers took too long.
pub(crate) const LATE: &str = "headers-timeout";

/// Longest time, and most bytes, for which closing waits for the peer to finish.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

/// Counts the phases of a connection: odd while a request is being answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestPhase(Arc<PhaseState>);

#[derive(Debug, Default)]
struct PhaseState {
    turn: AtomicU64,
    why_ambiguous: OnceLock<&'static str>,
    is_late: AtomicBool,
}

impl RequestPhase {
    /// Enters the next phase: a request's headers have arrived, or its answer was made.
    pub(crate) fn next(&self) {
        self.0.turn.fetch_add(1, Ordering::AcqRel);
    }

    /// True while a request is being answered.
    pub(crate) fn is_answering(&self) -> bool {
        !self.get().is_multiple_of(2)
    }

    /// The reason why the bytes could be read in two ways, if they could.
    pub(crate) fn why_ambiguous(&self) -> Option<&'static str> {
        self.0.why_ambiguous.get().copied()
    }

    /// True if the connection ended because the headers of a request took too long.
    pub(crate) fn is_late(&self) -> bool {
        self.0.is_late.load(Ordering::Acquire)
    }

    /// True if a request has arrived so far.
    pub(crate) fn has_begun(&self) -> bool {
        self.get() > 0
    }

    fn get(&self) -> u64 {
        self.0.turn.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct DeadlineStream<S> {
    stream: S,
    turn: RequestPhase,
    framing: Framing,
    headers_within: Duration,
    write_within: Duration,
    /// The deadline for headers, with the turn in which they are awaited. In another turn it does
    /// not count.
    reading: Option<(u64, Pin<Box<Sleep>>)>,
    has_begun: bool,
    writing: Option<Pin<Box<Sleep>>>,
    closing: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> DeadlineStream<S> {
    pub(crate) fn new(stream: S, bounds: &Bounds) -> (Self, RequestPhase) {
        let turn = RequestPhase::default();
        let guarded = Self {
            stream,
            turn: turn.clone(),
            framing: Framing::default(),
            headers_within: bounds.headers_within,
            write_within: bounds.write_within,
            reading: Some((0, Box::pin(sleep(bounds.first_byte_within)))),
            has_begun: false,
            writing: None,
            closing: None,
        };
        (guarded, turn)
    }

    /// Passes on only bytes that can be read in one way.
    fn follow(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        if self.framing.has_refused() {
            return buf.set_filled(before);
        }
        let Err(ambiguous) = self.framing.follow(&buf.filled()[before..]) else {
            return;
        };
        let _ = self.turn.0.why_ambiguous.set(ambiguous.why);
        let at = before + ambiguous.at;
        buf.filled_mut()[at] = POISON;
        buf.set_filled(at + 1);
    }

    /// Notes that a byte of a request has come, so that its headers must end in time.
    fn begin(&mut self, turn: u64) {
        let awaited = matches!(&self.reading, Some((of, _)) if *of == turn);
        if !awaited || !self.has_begun {
            self.reading = Some((turn, Box::pin(sleep(self.headers_within))));
        }
        self.has_begun = true;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> DeadlineStream<S> {
    /// Ready when the headers that are awaited in this turn took too long.
    fn poll_too_late(&mut self, turn: u64, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((of, clock)) = &mut self.reading else {
            return Poll::Pending;
        };
        if *of != turn {
            self.reading = None;
            return Poll::Pending;
        }
        ready!(clock.as_mut().poll(cx));
        if self.has_begun {
            // One attempt to answer 408. A client this slow may not be listening.
            let _ = Pin::new(&mut self.stream).poll_write(cx, TIMEOUT);
            metrics::REFUSED.add(1, [LATE.into()]);
            self.turn.0.is_late.store(true, Ordering::Release);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (left, clock) = self
            .closing
            .get_or_insert_with(|| (LINGER_BYTES, Box::pin(sleep(LINGER))));
        let mut scratch = [0; 4096];
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len())
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return clock.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }

    /// Fails a write that has waited longer than `write_within` for the peer.
    fn poll_written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.writing = None;
            return written;
        }
        let within = self.write_within;
        let clock = self.writing.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(clock.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let turn = this.turn.get();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let awaits_headers = turn.is_multiple_of(2);
        match read {
            Poll::Ready(result) => {
                if awaits_headers && buf.filled().len() > before {
                    this.begin(turn);
                }
                this.follow(buf, before);
                Poll::Ready(result)
            }
            Poll::Pending if awaits_headers => this.poll_too_late(turn, cx),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.poll_written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_linger(cx).map(Ok)
    }
}
