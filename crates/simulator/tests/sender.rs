//! The sender's attempts, and the time at which it gives up as Fluent does.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use fluent_simulator::{KeyPair, Retry, Sender};

/// Answers every connection with this status line, for as long as the test runs.
fn endpoint(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    });
    url
}

async fn attempts(url: &str, retry: Retry) -> (u32, Duration) {
    let signed = KeyPair::generate(1024).unwrap().sign(*b"{}").unwrap();
    let began = Instant::now();
    let attempted = Sender::new(url, retry).unwrap().send(&signed).await;
    (attempted.attempts, began.elapsed())
}

#[tokio::test]
async fn any_answer_ends_it_unless_told_otherwise() {
    let failing = endpoint("500 Internal Server Error");
    assert_eq!(attempts(&failing, Retry::Connection).await.0, 1);
    assert_eq!(attempts(&failing, Retry::Never).await.0, 1);
    assert_eq!(attempts(&endpoint("200 OK"), Retry::Any).await.0, 1);
}

#[tokio::test]
async fn it_gives_up_after_fourteen_seconds() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let failing = endpoint("503 Service Unavailable");
    let (refused, answered) = tokio::join!(
        attempts(&closed, Retry::Connection),
        attempts(&failing, Retry::Any)
    );
    for (attempts, took) in [refused, answered] {
        assert_eq!(attempts, 4);
        // 2 + 4 + 8, and what a busy machine adds.
        assert!((14..60).contains(&took.as_secs()), "{took:?}");
    }
}
