//! A handler that answered OK has the event, whatever its message is.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dispatch::{DispatchError, Dispatcher, Done, LONGEST_ANSWER, ResponseCapture};
use futures::future::{Ready, ready};
use futures::stream;
use grpc::{GrpcServer, Routes};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use process::{Readiness, Shutdown};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::server::NamedService;

use crate::handler::{PATIENCE, Process, anybody, cx, event, remote_to};

/// Answers every call with these bytes, and this status after them.
#[derive(Clone)]
struct Raw {
    bytes: Bytes,
    status: &'static str,
    encoding: Option<&'static str>,
}

impl NamedService for Raw {
    const NAME: &'static str = "fluent.webhooks.v1.Dispatcher";
}

impl Service<Request<Body>> for Raw {
    type Response = Response<BoxBody<Bytes, Infallible>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", self.status.parse().unwrap());
        let chunk = http_body::Frame::data(self.bytes.clone());
        let frames = [
            Ok::<_, Infallible>(chunk),
            Ok(http_body::Frame::trailers(trailers)),
        ];
        let mut response = Response::new(BoxBody::new(StreamBody::new(stream::iter(frames))));
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        if let Some(encoding) = self.encoding {
            response
                .headers_mut()
                .insert("grpc-encoding", encoding.parse().unwrap());
        }
        ready(Ok(response))
    }
}

fn message(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

/// Encodes a `DispatchResponse` of `status: 202` with an answer of this length.
fn response(length: usize) -> Vec<u8> {
    prost::Message::encode_to_vec(&proto::v1::DispatchResponse {
        status: Some(202),
        answer: vec![b'x'; length],
        remark: String::new(),
    })
}

fn answered(status: u32) -> Vec<u8> {
    let response = proto::v1::DispatchResponse {
        status: Some(status),
        ..Default::default()
    };
    prost::Message::encode_to_vec(&response)
}

async fn dispatch(raw: Raw) -> (Result<Done, DispatchError>, Vec<u8>) {
    let shutdown = Shutdown::manual(Duration::from_secs(1));
    let door = GrpcServer::bind(&anybody(), &shutdown).await.unwrap();
    let process = Process {
        address: door.address().unwrap(),
        shutdown: shutdown.clone(),
    };
    door.serve(Routes::new(raw), Readiness::new(&shutdown), &shutdown)
        .unwrap();
    let keep = ResponseCapture::default();
    let mut cx = cx(PATIENCE);
    cx.response = Some(keep.clone());
    (
        remote_to(&process).await.dispatch(&event("E"), &cx).await,
        keep.take(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn ok_is_done_whatever_the_message_is() {
    let plain = |bytes: Vec<u8>| Raw {
        bytes: bytes.into(),
        status: "0",
        encoding: None,
    };
    let gzip = |bytes: Vec<u8>| Raw {
        encoding: Some("gzip"),
        ..plain(bytes)
    };
    for (what, raw) in [
        ("of 4.3 MB", plain(message(0, &response(4_300_000)))),
        (
            "of more than is told",
            plain(message(0, &response(LONGEST_ANSWER + 1))),
        ),
        ("no such message", plain(message(0, b"\xff\xff\xff"))),
        ("compressed", gzip(message(1, b"\x1f\x8b\x08"))),
        (
            "compressed and not said so",
            plain(message(1, b"\x1f\x8b\x08")),
        ),
        ("none", plain(Vec::new())),
    ] {
        let (answer, kept) = dispatch(raw).await;
        assert!(
            answer.as_ref().is_ok_and(|done| done.remark.is_some()),
            "{what}: {answer:?}"
        );
        assert_eq!(kept, b"", "{what}");
    }
    for (what, raw) in [
        (
            "as it should be",
            plain(message(0, &response(LONGEST_ANSWER))),
        ),
        (
            "said to be compressed, and not",
            gzip(message(0, &response(LONGEST_ANSWER))),
        ),
    ] {
        let (answer, kept) = dispatch(raw).await;
        assert_eq!(answer.unwrap(), Done::with_status(202), "{what}");
        assert_eq!(kept.len(), LONGEST_ANSWER);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ok_is_not_done_whatever_came_before() {
    for bytes in [
        Vec::new(),
        message(0, &response(1)),
        message(0, &response(4_300_000)),
    ] {
        let (answer, _) = dispatch(Raw {
            bytes: bytes.into(),
            status: "14",
            encoding: None,
        })
        .await;
        assert!(
            matches!(answer, Err(DispatchError::Transient { .. })),
            "{answer:?}"
        );
    }
}

/// Ends of an answer that a handler behind HTTP/2 has begun.
#[derive(Clone, Copy, Debug)]
enum End {
    /// No status comes any more.
    Resets,
    Closes,
    /// Nothing comes any more, and the stream stays open.
    IsSilent,
    /// A status with these fields beside it.
    Says(&'static str, [(&'static str, &'static str); 2]),
}

/// Answers with these headers, a message, and this end.
async fn ending(headers: &'static [(&'static str, &'static str)], end: End) -> Process {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let process = Process {
        address: listener.local_addr().unwrap(),
        shutdown: Shutdown::manual(Duration::ZERO),
    };
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut silent = Vec::new();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut response = Response::new(());
                    for (name, value) in
                        [("content-type", "application/grpc")].iter().chain(headers)
                    {
                        response.headers_mut().insert(*name, value.parse().unwrap());
                    }
                    let mut body = respond.send_response(response, false).unwrap();
                    body.send_data(message(0, &answered(202)).into(), false)
                        .unwrap();
                    // Bytes sent so far go out first.
                    let _ = futures::poll!(pin!(connection.accept()));
                    match end {
                        End::Resets => body.send_reset(h2::Reason::INTERNAL_ERROR),
                        End::Closes => connection.abrupt_shutdown(h2::Reason::INTERNAL_ERROR),
                        End::IsSilent => silent.push(body),
                        End::Says(status, words) => {
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", status.parse().unwrap());
                            for (name, value) in words {
                                trailers.insert(name, value.parse().unwrap());
                            }
                            body.send_trailers(trailers).unwrap();
                        }
                    }
                }
            });
        }
    });
    process
}

async fn ended(
    headers: &'static [(&'static str, &'static str)],
    end: End,
) -> Result<Done, DispatchError> {
    let process = ending(headers, end).await;
    remote_to(&process)
        .await
        .dispatch(&event("E"), &cx(PATIENCE))
        .await
}

/// In gRPC the status says whether a call succeeded, and a message says nothing of that: a
/// handler may have sent one before it failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_status_is_not_done_and_ok_is_whatever_comes_of_the_rest() {
    for end in [End::Resets, End::Closes] {
        let answer = ended(&[], end).await;
        assert!(
            matches!(answer, Err(DispatchError::Transient { .. })),
            "{end:?}: {answer:?}"
        );
        let answer = ended(&[("grpc-status", "0")], end).await;
        assert!(
            answer.as_ref().is_ok_and(|done| done.remark.is_some()),
            "{end:?}: {answer:?}"
        );
    }
}

/// A status among the headers counts only if none comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_after_a_message_decides_before_one_among_the_headers() {
    const NONE: [(&str, &str); 2] = [("a", "b"), ("c", "d")];
    let answer = ended(&[("grpc-status", "0")], End::Says("14", NONE)).await;
    assert!(
        matches!(answer, Err(DispatchError::Transient { .. })),
        "{answer:?}"
    );
    let answer = ended(&[("grpc-status", "0")], End::Says("9", NONE)).await;
    assert!(
        matches!(answer, Err(DispatchError::Permanent { .. })),
        "{answer:?}"
    );
    let answer = ended(&[("grpc-status", "0")], End::Says("0", NONE)).await;
    assert_eq!(answer.unwrap(), Done::with_status(202));
    let answer = ended(&[("grpc-status", "14")], End::Says("0", NONE)).await;
    assert_eq!(answer.unwrap(), Done::with_status(202));
    let answer = ended(&[("grpc-status", "9")], End::Resets).await;
    assert!(
        matches!(answer, Err(DispatchError::Permanent { .. })),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_status_comes_after_a_message_ok_among_the_headers_is_done_in_time() {
    let process = ending(&[("grpc-status", "0")], End::IsSilent).await;
    let remote = remote_to(&process).await;
    let event = event("E");
    let cx = cx(Duration::from_secs(5));
    let answering = tokio::time::timeout(cx.timeout, remote.dispatch(&event, &cx));
    let answer = answering.await.expect("before the attempt ends");
    assert!(
        answer
            .as_ref()
            .is_ok_and(|done| done.status == Some(202) && done.remark.is_some()),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn words_beside_a_status_that_make_no_sense_change_nothing_about_it() {
    const ODD: [(&str, &str); 2] = [
        ("grpc-message", "%ff%fe"),
        ("grpc-status-details-bin", "!no base64!"),
    ];
    let answer = ended(&[], End::Says("0", ODD)).await;
    assert!(
        answer
            .as_ref()
            .is_ok_and(|done| done.status == Some(202) && done.remark.is_some()),
        "{answer:?}"
    );
    let answer = ended(&[], End::Says("9", ODD)).await;
    assert!(
        matches!(answer, Err(DispatchError::Permanent { .. })),
        "{answer:?}"
    );
    let answer = ended(&[], End::Says("14", ODD)).await;
    assert!(
        matches!(answer, Err(DispatchError::Transient { .. })),
        "{answer:?}"
    );
    const PLAIN: [(&str, &str); 2] = [
        ("grpc-message", "all%20well"),
        ("grpc-status-details-bin", "CAA"),
    ];
    assert_eq!(
        ended(&[], End::Says("0", PLAIN)).await.unwrap(),
        Done::with_status(202)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ok_is_done_however_much_metadata_is_beside_it() {
    for kilobytes in [8, 20, 100] {
        let much: &'static str = "x".repeat(kilobytes << 10).leak();
        let headers: &'static [_] = Box::leak(Box::new([("x-much", much)]));
        for (headers, beside) in [(headers, "x"), (&[], much)] {
            let end = End::Says("0", [("x-a", beside), ("x-b", "x")]);
            let answer = ended(headers, end).await;
            assert_eq!(answer.unwrap(), Done::with_status(202), "{kilobytes} kB");
        }
    }
}

/// Starts a handler behind HTTP/2 that refuses every `n`th call before it looks at it.
async fn refusing(every: usize) -> (Process, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let process = Process {
        address: listener.local_addr().unwrap(),
        shutdown: Shutdown::manual(Duration::ZERO),
    };
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let came = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if (came.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every) {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    let response = Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0")
                        .body(())
                        .unwrap();
                    respond.send_response(response, true).unwrap();
                }
            });
        }
    });
    (process, came)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_not_looked_at_is_made_again_at_once() {
    let (process, came) = refusing(2).await;
    let remote = remote_to(&process).await;
    for _ in 0..3 {
        remote.dispatch(&event("E"), &cx(PATIENCE)).await.unwrap();
    }
    assert_eq!(
        came.load(Ordering::SeqCst),
        5,
        "the second of each two is refused"
    );
    let (process, came) = refusing(1).await;
    let refused = remote_to(&process)
        .await
        .dispatch(&event("E"), &cx(PATIENCE))
        .await;
    assert!(
        matches!(refused, Err(DispatchError::Transient { .. })),
        "{refused:?}"
    );
    assert_eq!(
        came.load(Ordering::SeqCst),
        5,
        "four times more, and then it is an attempt"
    );
}
