//! A destination that answered 2xx has the event, whatever the rest of its answer is; and a
//! request that was never answered on a used connection is sent once more.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dispatch::{Context, DispatchError, Dispatcher, Done, OpenContext, ResponseCapture};
use fluent_dispatch_http::HttpDispatcher;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest that an attempt may take in these tests.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Serves each connection by `serve`, with its number from 1.
async fn endpoint<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> HttpDispatcher
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, number));
        }
    });
    let settings = json!({"url": url, "timeout": format!("{}s", TIMEOUT.as_secs())});
    HttpDispatcher::open(
        serde_json::from_value(settings).unwrap(),
        &OpenContext::new("r", "."),
    )
    .await
    .unwrap()
}

/// Reads one request whole.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = String::new();
    let mut chunk = [0; 4096];
    loop {
        let Ok(read @ 1..) = stream.read(&mut chunk).await else {
            return false;
        };
        request.push_str(&String::from_utf8_lossy(&chunk[..read]));
        let Some((head, body)) = request.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        if body.len() >= length.parse().unwrap() {
            return true;
        }
    }
}

async fn dispatch_as(
    dispatcher: &HttpDispatcher,
    keep: Option<ResponseCapture>,
) -> Result<Done, DispatchError> {
    let event = dispatch::testing::event("E", "HD_1");
    let mut cx = Context::new("r", event.id().to_string(), TIMEOUT);
    cx.response = keep;
    tokio::time::timeout(TIMEOUT, dispatcher.dispatch(&event, &cx))
        .await
        .expect("cut off by the runner")
}

async fn dispatch(dispatcher: &HttpDispatcher) -> Result<Done, DispatchError> {
    dispatch_as(dispatcher, None).await
}

/// Returns an endpoint that answers with these bytes, and closes.
async fn answering(answer: impl Into<Vec<u8>>) -> HttpDispatcher {
    let answer = Arc::new(answer.into());
    endpoint(move |mut stream, _| {
        let answer = Arc::clone(&answer);
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
        }
    })
    .await
}

fn with_headers(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\nok")
}

#[tokio::test]
async fn a_status_of_success_is_done_whatever_the_rest_of_the_head_is() {
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("x-{n}: v\r\n"))
            .collect::<String>()
    };
    for (what, answer) in [
        ("120 headers", with_headers(&many(120))),
        ("5000 headers", with_headers(&many(5000))),
        (
            "one of 1 MB",
            with_headers(&format!("x: {}\r\n", "v".repeat(1 << 20))),
        ),
        ("folded", with_headers("x: a\r\n b\r\n\tc\r\n")),
        ("a space in a name", with_headers("x y: 1\r\n")),
        ("a space after a name", with_headers("x : 1\r\n")),
        ("no colon", with_headers("nothing\r\n")),
        ("no name", with_headers(": v\r\n")),
        ("a control character", with_headers("x: a\u{1}b\r\n")),
        ("a NUL", with_headers("x: a\0b\r\n")),
        (
            "bare line feeds",
            "HTTP/1.1 200 OK\nx: 1\ncontent-length: 0\n\n".to_owned(),
        ),
        ("lengths that differ", with_headers("content-length: 5\r\n")),
        (
            "a length that is none",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_owned(),
        ),
        (
            "a coding nobody knows",
            with_headers("transfer-encoding: bogus\r\n"),
        ),
        (
            "a head that breaks off",
            "HTTP/1.1 200 OK\r\nx: ".to_owned(),
        ),
        (
            "after hints",
            format!(
                "HTTP/1.1 103 Hints\r\nlink: a\r\n\r\n{}",
                with_headers("no\0\r\n")
            ),
        ),
        (
            "no reason",
            "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nok".to_owned()),
        ("no length", "HTTP/1.1 200 OK\r\n\r\nok".to_owned()),
    ] {
        let answer = dispatch(&answering(answer).await).await;
        assert!(
            matches!(
                answer,
                Ok(Done {
                    status: Some(200),
                    ..
                })
            ),
            "{what}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn other_statuses_mean_what_they_do_whatever_the_rest_of_the_head_is() {
    let broken = |status: u16| format!("HTTP/1.1 {status} X\r\ncontent-length: x\r\n\r\n");
    let error = dispatch(&answering(broken(422)).await).await.unwrap_err();
    assert!(
        matches!(
            error,
            DispatchError::Permanent {
                status: Some(422),
                ..
            }
        ),
        "{error:?}"
    );
    let error = dispatch(&answering(broken(503)).await).await.unwrap_err();
    assert!(
        matches!(
            error,
            DispatchError::Transient {
                status: Some(503),
                ..
            }
        ),
        "{error:?}"
    );
    // No answer at all, or none yet.
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 20",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 103 Hints\r\n\r\n",
    ] {
        let error = dispatch(&answering(answer).await).await.unwrap_err();
        assert!(
            matches!(error, DispatchError::Transient { status: None, .. }),
            "{answer}: {error:?}"
        );
    }
}

#[tokio::test]
async fn what_was_wrong_with_the_rest_is_said() {
    let done = dispatch(&answering("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").await)
        .await
        .unwrap();
    let remark = done.remark.unwrap();
    assert!(remark.contains("the rest of its answer"), "{remark}");
    let done = dispatch(&answering(with_headers("")).await).await.unwrap();
    assert_eq!(done.remark, None);
    let breaks = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
    assert!(
        dispatch(&answering(breaks).await)
            .await
            .unwrap()
            .remark
            .is_some()
    );
}

#[tokio::test]
async fn a_head_that_trickles_is_done_within_the_attempts_time() {
    let dispatcher = endpoint(async |mut stream, _| {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let done = dispatch(&dispatcher).await.unwrap();
    assert!(
        done.status == Some(200) && done.remark.is_some(),
        "{done:?}"
    );
}

#[tokio::test]
async fn an_answer_that_somebody_is_told_of_is_whole_and_readable_or_none() {
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n";
    for (what, answer) in [
        ("encoded", with_headers("content-encoding: gzip\r\n")),
        (
            "encoded twice",
            with_headers("content-encoding: identity, br\r\n"),
        ),
        (
            "too long",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n{}",
                "x".repeat(70_000)
            ),
        ),
        (
            "broken off",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok".to_owned(),
        ),
        ("broken chunks", chunks.to_owned()),
        ("an unreadable head", with_headers("content-length: x\r\n")),
    ] {
        let keep = ResponseCapture::default();
        let done = dispatch_as(&answering(answer).await, Some(keep.clone()))
            .await
            .unwrap();
        assert!(
            done.status == Some(200) && done.remark.is_some(),
            "{what}: {done:?}"
        );
        assert_eq!(keep.take(), b"", "{what}");
    }
    for headers in [
        "",
        "content-encoding: identity\r\n",
        "content-encoding: \r\n",
    ] {
        let keep = ResponseCapture::default();
        let done = dispatch_as(&answering(with_headers(headers)).await, Some(keep.clone()))
            .await
            .unwrap();
        assert_eq!(
            (done.remark, keep.take()),
            (None, b"ok".to_vec()),
            "{headers}"
        );
    }
}

/// Answers the first request of each connection, and closes as the second comes. Counts the
/// requests.
async fn closing_when_used_again(came: Arc<AtomicUsize>, answers: usize) -> HttpDispatcher {
    endpoint(move |mut stream, _| {
        let came = Arc::clone(&came);
        async move {
            for _ in 0..answers {
                if read_request(&mut stream).await {
                    came.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(with_headers("").as_bytes()).await.unwrap();
                }
            }
            if read_request(&mut stream).await {
                came.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_a_closing_connection_never_answered_is_asked_once_more_on_a_new_one() {
    let came = Arc::new(AtomicUsize::new(0));
    let dispatcher = closing_when_used_again(Arc::clone(&came), 1).await;
    for _ in 0..6 {
        dispatch(&dispatcher).await.unwrap();
    }
    assert!(
        came.load(Ordering::Relaxed) > 6,
        "no connection was used again: this proved nothing"
    );
}

#[tokio::test]
async fn nothing_is_asked_again_that_a_new_connection_did_not_answer() {
    let came = Arc::new(AtomicUsize::new(0));
    let dispatcher = closing_when_used_again(Arc::clone(&came), 0).await;
    dispatch(&dispatcher).await.unwrap_err();
    assert_eq!(came.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn nothing_is_asked_again_that_was_answered_in_part() {
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    let dispatcher = endpoint(move |mut stream, _| {
        let came = Arc::clone(&counted);
        async move {
            read_request(&mut stream).await;
            stream.write_all(with_headers("").as_bytes()).await.unwrap();
            if read_request(&mut stream).await {
                came.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"HTTP/1.1 ").await.unwrap();
            }
        }
    })
    .await;
    dispatch(&dispatcher).await.unwrap();
    dispatch(&dispatcher).await.unwrap_err();
    assert_eq!(came.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_second_request_is_no_second_attempts_time() {
    // The new connection never answers: the attempt ends with its deadline all the same.
    let dispatcher = endpoint(async |mut stream, number| {
        read_request(&mut stream).await;
        if number == 1 {
            stream.write_all(with_headers("").as_bytes()).await.unwrap();
            read_request(&mut stream).await;
            return;
        }
        std::future::pending::<()>().await;
    })
    .await;
    dispatch(&dispatcher).await.unwrap();
    let event = dispatch::testing::event("E", "HD_1");
    let cx = Context::new("r", event.id().to_string(), TIMEOUT);
    assert!(
        tokio::time::timeout(TIMEOUT, dispatcher.dispatch(&event, &cx))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_taken_for_done_by_the_answer_to_another() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    // The second request on each connection is refused, by a head that can't be read.
    let dispatcher = endpoint(move |mut stream, _| {
        let accepted = Arc::clone(&counted);
        async move {
            while read_request(&mut stream).await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await;
                if read_request(&mut stream).await {
                    let _ = stream
                        .write_all(b"HTTP/1.1 500 X\r\ncontent-length: x\r\n\r\n")
                        .await;
                    return;
                }
            }
        }
    })
    .await;
    let dispatcher = Arc::new(dispatcher);
    let posting = (0..8).map(|_| {
        let dispatcher = Arc::clone(&dispatcher);
        #[expect(clippy::disallowed_methods, reason = "it is joined below")]
        tokio::spawn(async move {
            let mut done = 0;
            for _ in 0..200 {
                done += usize::from(dispatch(&dispatcher).await.is_ok());
            }
            done
        })
    });
    let done = futures::future::join_all(posting)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum::<usize>();
    assert_eq!(done, accepted.load(Ordering::Relaxed));
    assert!(
        (1..1600).contains(&done),
        "no connection was used again: this proved nothing"
    );
}
