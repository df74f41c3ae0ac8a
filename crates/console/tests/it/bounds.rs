//! Bounds of requests and connections.

use std::io::Write;
use std::net::TcpStream;

use crate::fixture::{Answer, Fixture, OPEN, PEOPLE, READ, exchange};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_only_so_large() {
    let console = Fixture::open(OPEN);
    let browser = console.browser();
    let long = "x".repeat(20 << 10);
    let refused = browser.get(&format!("/search?q={long}"));
    assert!([414, 431].contains(&refused.status), "{refused:?}");
    let refused = browser.say("GET", "/", &[("x-long", &long)], "");
    assert_eq!(refused.status, 431, "{refused:?}");
    let form = "id=1&".repeat(20 << 10);
    let refused = browser.say(
        "POST",
        "/quarantine/redrive",
        &[("sec-fetch-site", "same-origin")],
        &form,
    );
    assert_eq!(refused.status, 413, "{}", refused.head);
    let many: Vec<_> = (0..501).map(|_| ("id", "1")).collect();
    let refused = browser.post("/dead-letters/redrive", &many);
    assert_eq!(refused.status, 400);
    assert!(refused.has("at most 500"), "{refused:?}");
    assert_eq!(browser.get("/").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_out() {
    let console = Fixture::open(PEOPLE);
    let browser = console.signed_in(READ);
    let silent: Vec<_> = (0..400)
        .map(|number| {
            let mut stream = TcpStream::connect(console.address).unwrap();
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: loc");
            }
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(browser.get("/routes").status, 200);
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_answered_and_closed() {
    let console = Fixture::open(OPEN);
    let answer = exchange(
        console.address,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    );
    assert_eq!(Answer::read(&answer).status, 400);
    assert_eq!(console.browser().get("/").status, 200);
}
