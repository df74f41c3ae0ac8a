//! Answers of handlers, kept within bounds and made readable for gRPC's library.
//!
//! A handler that answered OK has the event, whatever its message is. The library reads the
//! message first and the status after it: it would report a message that is too long, invalid, or
//! compressed without being asked as a failure that the handler never answered. So such a message
//! is left out on its way, and the status decides.
//!
//! The status comes last. A status among the headers of an answer that goes on is only kept: it
//! counts if none comes after the message.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf, Bytes, BytesMut};
use dispatch::LONGEST_ANSWER;
use http_body::Frame;
use percent_encoding::percent_decode;
use prost::Message;
use proto::v1::DispatchResponse;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::transport::Channel;

/// Longest message that is read: the longest answer that is handed on, and the fields beside it.
const LONGEST_MESSAGE: usize = LONGEST_ANSWER + (4 << 10);

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Decoder of details as gRPC's library has it: padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const NO_MESSAGE: [u8; PREFIX] = [0; PREFIX];

const ENCODING: &str = "grpc-encoding";
const STATUS: &str = "grpc-status";
const WORDS: &str = "grpc-message";
const DETAILS: &str = "grpc-status-details-bin";

/// Remark on what was wrong with a handler's message, if anything was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remark(Arc<Mutex<Option<&'static str>>>);

impl Remark {
    fn note(&self, what: &'static str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(what);
    }

    pub(crate) fn take(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map(str::to_owned)
    }
}

/// A channel whose answers have a message that can be read, or an empty one.
#[derive(Clone, Debug)]
pub(crate) struct LenientCodec {
    pub(crate) channel: Channel,
    pub(crate) remark: Remark,
    /// Time until which a status is awaited if one came among the headers.
    pub(crate) deadline: Instant,
}

impl Service<Request<Body>> for LenientCodec {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Response<Body>, StdError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Service::poll_ready(&mut self.channel, cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answering = Service::call(&mut self.channel, request);
        let remark = self.remark.clone();
        let deadline = self.deadline;
        Box::pin(async move {
            let (mut head, body) = answering.await?.into_parts();
            // Compressed messages are left out below; the library would refuse the whole answer
            // for this header.
            head.headers.remove(ENCODING);
            make_readable(&mut head.headers, &remark);
            let early = EarlyStatus::take(&mut head.headers, deadline);
            let readable = Readable::new(body, early, remark);
            Ok(Response::from_parts(head, Body::new(readable)))
        })
    }
}

/// Removes fields beside a status for which the library would change the status, or panic:
/// messages that are no text, details that are no base64. OK needs neither.
fn make_readable(headers: &mut HeaderMap, remark: &Remark) {
    let is_ok = is_ok(headers);
    let is_text = |words: &HeaderValue| percent_decode(words.as_bytes()).decode_utf8().is_ok();
    let is_base64 = |details: &HeaderValue| BASE64.decode(details.as_bytes()).is_ok();
    let words_are_odd = headers.get(WORDS).is_some_and(|words| !is_text(words));
    let details_are_odd = headers
        .get(DETAILS)
        .is_some_and(|details| !is_base64(details));
    if words_are_odd || details_are_odd {
        remark.note("what its status says beside OK can't be read");
    }
    for (name, is_odd) in [(WORDS, words_are_odd), (DETAILS, details_are_odd)] {
        if is_odd || is_ok {
            headers.remove(name);
        }
    }
}

fn is_ok(headers: &HeaderMap) -> bool {
    headers.get(STATUS).is_some_and(|status| status == "0")
}

/// A status that was among the headers. The library would not read another one after it.
struct EarlyStatus {
    status: HeaderMap,
    deadline: Pin<Box<Sleep>>,
}

impl EarlyStatus {
    /// Takes the status out of the headers, if it is there.
    fn take(headers: &mut HeaderMap, deadline: Instant) -> Option<Self> {
        let mut status = HeaderMap::new();
        for name in [STATUS, WORDS, DETAILS] {
            if let Some(value) = headers.remove(name) {
                status.insert(name, value);
            }
        }
        let deadline = Box::pin(sleep_until(deadline));
        status
            .contains_key(STATUS)
            .then_some(Self { status, deadline })
    }
}

/// A body of one message and a status.
struct Readable {
    body: Body,
    remark: Remark,
    state: State,
    early: Option<EarlyStatus>,
    /// Trailers to pass on after the message.
    trailers: Option<HeaderMap>,
    is_over: bool,
}

enum State {
    Prefix(BytesMut),
    Message(BytesMut, usize),
    Skipping(usize),
    /// The message is passed on or was left out; anything else is ignored.
    After,
}

impl Readable {
    fn new(body: Body, early: Option<EarlyStatus>, remark: Remark) -> Self {
        let state = State::Prefix(BytesMut::new());
        Self {
            body,
            remark,
            state,
            early,
            trailers: None,
            is_over: false,
        }
    }

    /// Takes bytes that came; returns a message once it is complete.
    fn take(&mut self, mut came: Bytes) -> Option<Bytes> {
        loop {
            match &mut self.state {
                State::Prefix(prefix) => {
                    let more = came.split_to(came.len().min(PREFIX - prefix.len()));
                    prefix.extend_from_slice(&more);
                    if prefix.len() < PREFIX {
                        return None;
                    }
                    let is_compressed = prefix[0] != 0;
                    let length = (&prefix[1..]).get_u32() as usize;
                    self.state = self.begin(is_compressed, length);
                }
                State::Message(message, length) => {
                    let more = came.split_to(came.len().min(*length - message.len()));
                    message.extend_from_slice(&more);
                    if message.len() < *length {
                        return None;
                    }
                    let message = std::mem::take(message).freeze();
                    self.state = State::After;
                    return Some(self.checked(&message));
                }
                State::Skipping(left) => {
                    let skipped = came.len().min(*left);
                    *left -= skipped;
                    if *left > 0 {
                        return None;
                    }
                    self.state = State::After;
                    return Some(Bytes::from_static(&NO_MESSAGE));
                }
                State::After => return None,
            }
        }
    }

    fn begin(&self, is_compressed: bool, length: usize) -> State {
        if length > LONGEST_MESSAGE {
            self.remark.note("its answer is too long to be passed on");
            return State::Skipping(length);
        }
        if is_compressed {
            self.remark
                .note("its answer is compressed, which it was not asked for: it is not passed on");
            return State::Skipping(length);
        }
        State::Message(BytesMut::with_capacity(length), length)
    }

    /// Returns the message as it is passed on.
    fn checked(&self, message: &Bytes) -> Bytes {
        if DispatchResponse::decode(message.clone()).is_err() {
            self.remark
                .note("its answer is no DispatchResponse: it is not passed on");
            return Bytes::from_static(&NO_MESSAGE);
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        [&[0][..], &length.to_be_bytes(), message].concat().into()
    }

    /// Ends the answer with this status; OK has a message before it.
    fn end_with(&mut self, status: HeaderMap) -> Frame<Bytes> {
        self.is_over = true;
        let is_missing = !matches!(self.state, State::After);
        self.state = State::After;
        if !is_ok(&status) || !is_missing {
            return Frame::trailers(status);
        }
        self.remark.note("its answer has no message");
        self.trailers = Some(status);
        Frame::data(Bytes::from_static(&NO_MESSAGE))
    }

    /// Ends an answer after which no status comes, with the one among its headers.
    fn end_early(&mut self, why: &'static str) -> Option<Frame<Bytes>> {
        let EarlyStatus { status, .. } = self.early.take()?;
        self.remark.note(why);
        Some(self.end_with(status))
    }

    /// Returns the answer's end, or notes why it has none.
    fn end(&mut self) -> Option<Frame<Bytes>> {
        // With a status and nothing else, everything is in the headers, as it should be.
        let why = match self.state {
            State::After => "no status came after its answer, but before it",
            _ => "its answer has no message",
        };
        self.end_early(why)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.early {
            Some(early) => early.deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl http_body::Body for Readable {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        while !self.is_over {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    let ended = self.end_early("its answer broke off").ok_or(error);
                    return Poll::Ready(Some(ended));
                }
                Poll::Ready(None) => return Poll::Ready(self.end().map(Ok)),
                Poll::Pending => {
                    ready!(self.poll_deadline(cx));
                    return Poll::Ready(self.end_early("its answer did not end in time").map(Ok));
                }
            };
            match frame.into_data() {
                Ok(came) => {
                    if let Some(message) = self.take(came) {
                        return Poll::Ready(Some(Ok(Frame::data(message))));
                    }
                }
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else {
                        continue;
                    };
                    if !trailers.contains_key(STATUS) && self.early.is_some() {
                        return Poll::Ready(self.end().map(Ok));
                    }
                    make_readable(&mut trailers, &self.remark);
                    return Poll::Ready(Some(Ok(self.end_with(trailers))));
                }
            }
        }
        Poll::Ready(None)
    }
}
