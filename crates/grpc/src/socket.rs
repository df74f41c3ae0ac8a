//! One connection, and its probation until a call of it is admitted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::admission::{Admission, Peer};

/// A connection, with its place among the few.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    peer: Peer,
    /// Present until a call of this connection is admitted.
    probation: Option<Probation>,
}

/// The limits of a connection without an admitted call: a deadline, and the signal to give way.
#[derive(Debug)]
struct Probation {
    deadline: Pin<Box<Sleep>>,
    gave_way: Pin<Box<WaitForCancellationFutureOwned>>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(crate) fn plain(stream: TcpStream, address: SocketAddr, admission: Admission) -> Self {
        Self::new(
            Stream::Plain(stream),
            Peer {
                address,
                certificate: None,
                admission,
            },
        )
    }

    pub(crate) fn tls(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        admission: Admission,
    ) -> Self {
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = chain
            .and_then(|chain| chain.first())
            .map(|own| own.clone().into_owned());
        Self::new(
            Stream::Tls(Box::new(stream)),
            Peer {
                address,
                certificate,
                admission,
            },
        )
    }

    fn new(stream: Stream, peer: Peer) -> Self {
        let gave_way = peer.admission.place().evicted().clone().cancelled_owned();
        let probation = Probation {
            deadline: Box::pin(sleep_until(peer.admission.probation())),
            gave_way: Box::pin(gave_way),
        };
        Self {
            stream,
            peer,
            probation: Some(probation),
        }
    }

    /// Fails once the probation has taken too long or another connection needs the permit.
    /// Checked at reads and at writes: nothing more is read from a peer that does not read its
    /// answers.
    fn check_probation(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(probation) = &mut self.probation else {
            return Ok(());
        };
        if self.peer.admission.is_admitted() {
            self.probation = None;
            return Ok(());
        }
        if probation.gave_way.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        while probation.deadline.as_mut().poll(cx).is_ready() {
            let Some(until) = self.peer.admission.may_go_on_until() else {
                return Err(io::ErrorKind::TimedOut.into());
            };
            probation.deadline.as_mut().reset(until);
        }
        Ok(())
    }
}

impl Connected for Socket {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_probation(cx)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_probation(cx)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_probation(cx)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_probation(cx)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
