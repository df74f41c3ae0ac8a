//! Answers that are kept within bounds, and that can be read.
//!
//! A handler that answered OK has the event, whatever its message is. gRPC's library
//! reads the message first and the status after it: one that is too long, compressed
//! without being asked or no such message would be a failure that the handler never
//! answered. So such a message is left out on its way, and the status decides.

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
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::transport::Channel;
use wire::v1::DispatchResponse;

/// Longest message that is read: an answer of the longest that is told, and what is
/// beside it.
const LONGEST_MESSAGE: usize = LONGEST_ANSWER + (4 << 10);

/// What comes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// As gRPC's library reads details: padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const NO_MESSAGE: [u8; PREFIX] = [0; PREFIX];

const ENCODING: &str = "grpc-encoding";
const STATUS: &str = "grpc-status";
const WORDS: &str = "grpc-message";
const DETAILS: &str = "grpc-status-details-bin";

/// What was wrong with a handler's message, if anything was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remark(Arc<Mutex<Option<&'static str>>>);

impl Remark {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(str::to_owned)
    }
}

/// A channel whose answers hold a message that can be read, or an empty one.
#[derive(Clone, Debug)]
pub(crate) struct Lenient {
    pub(crate) channel: Channel,
    pub(crate) remark: Remark,
}

impl Service<Request<Body>> for Lenient {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Response<Body>, StdError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Service::poll_ready(&mut self.channel, cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answering = Service::call(&mut self.channel, request);
        let remark = self.remark.clone();
        Box::pin(async move {
            let (mut head, body) = answering.await?.into_parts();
            // Messages that are compressed are left out below; the library would refuse
            // the whole answer for this.
            head.headers.remove(ENCODING);
            make_readable(&mut head.headers, &remark);
            let readable = Readable::new(body, is_ok(&head.headers), remark);
            Ok(Response::from_parts(head, Body::new(readable)))
        })
    }
}

/// Leaves what is beside a status out where the library would take the status for another,
/// or panic: words that are no text, details that are no base64. OK needs neither.
fn make_readable(headers: &mut HeaderMap, remark: &Remark) {
    let is_ok = is_ok(headers);
    let is_text = |words: &HeaderValue| percent_decode(words.as_bytes()).decode_utf8().is_ok();
    let is_base64 = |details: &HeaderValue| BASE64.decode(details.as_bytes()).is_ok();
    let words_are_odd = headers.get(WORDS).is_some_and(|words| !is_text(words));
    let details_are_odd = headers.get(DETAILS).is_some_and(|details| !is_base64(details));
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

/// A body of one message and a status.
struct Readable {
    body: Body,
    remark: Remark,
    state: State,
    /// The status came before the body.
    is_ok: bool,
    trailers: Option<HeaderMap>,
}

enum State {
    Prefix(BytesMut),
    Message(BytesMut, usize),
    Skipping(usize),
    /// The message is passed on, or was left out; whatever else comes is not looked at.
    After,
}

impl Readable {
    fn new(body: Body, is_ok: bool, remark: Remark) -> Self {
        Self { body, remark, state: State::Prefix(BytesMut::new()), is_ok, trailers: None }
    }

    /// Takes what came; a message, once there is a whole one.
    fn take(&mut self, mut came: Bytes) -> Option<Bytes> {
        loop {
            match &mut self.state {
                State::Prefix(prefix) => {
                    let more = came.split_to(came.len().min(PREFIX - prefix.len()));
                    prefix.extend_from_slice(&more);
                    if prefix.len() < PREFIX {
                        return None;
                    }
                    let (is_compressed, length) = (prefix[0] != 0, (&prefix[1..]).get_u32() as usize);
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
            self.remark.note("its answer is compressed, which it was not asked for: it is not passed on");
            return State::Skipping(length);
        }
        State::Message(BytesMut::with_capacity(length), length)
    }

    /// The message as it is sent on.
    fn checked(&self, message: &Bytes) -> Bytes {
        if DispatchResponse::decode(message.clone()).is_err() {
            self.remark.note("its answer is no DispatchResponse: it is not passed on");
            return Bytes::from_static(&NO_MESSAGE);
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        [&[0][..], &length.to_be_bytes(), message].concat().into()
    }

    /// A status without a message before it.
    fn without_message(&mut self) -> Option<Bytes> {
        let is_missing = !matches!(self.state, State::After);
        self.state = State::After;
        is_missing.then(|| {
            self.remark.note("its answer has no message");
            Bytes::from_static(&NO_MESSAGE)
        })
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
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) if self.is_ok => {
                    self.remark.note("its answer broke off");
                    return Poll::Ready(self.without_message().map(|none| Ok(Frame::data(none))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.is_ok => {
                    return Poll::Ready(self.without_message().map(|none| Ok(Frame::data(none))));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(came) => {
                    if let Some(message) = self.take(came) {
                        return Poll::Ready(Some(Ok(Frame::data(message))));
                    }
                }
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else { continue };
                    make_readable(&mut trailers, &self.remark);
                    let missing = if is_ok(&trailers) { self.without_message() } else { None };
                    let Some(none) = missing else { return Poll::Ready(Some(Ok(Frame::trailers(trailers)))) };
                    self.trailers = Some(trailers);
                    return Poll::Ready(Some(Ok(Frame::data(none))));
                }
            }
        }
    }
}
