//! Requests that RFC 9112 forbids, signed, over raw sockets.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod door;

use std::io::Write;
use std::net::Shutdown as Half;

use door::{Door, answer};

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_read_in_two_ways_is_answered_400_and_closed() {
    let door = Door::open().await;
    let (head, body) = door.signed(1, "");
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("content-length: {}\r\n", body.len());
    let te = "transfer-encoding: chunked\r\n";
    for (what, headers, body) in [
        ("no Host", length.clone(), &body),
        (
            "two Hosts",
            format!("host: t\r\nhost: t\r\n{length}"),
            &body,
        ),
        ("an odd Host", format!("host: a b/c\r\n{length}"), &body),
        ("an empty Host", format!("host:\r\n{length}"), &body),
        ("TE before CL", format!("host: t\r\n{te}{length}"), &chunked),
        ("CL before TE", format!("host: t\r\n{length}{te}"), &chunked),
        (
            "gzip, chunked",
            "host: t\r\ntransfer-encoding: gzip, chunked\r\n".to_owned(),
            &chunked,
        ),
        (
            "chunked, chunked",
            "host: t\r\ntransfer-encoding: chunked, chunked\r\n".to_owned(),
            &chunked,
        ),
        ("TE twice", format!("host: t\r\n{te}{te}"), &chunked),
        (
            "xchunked",
            "host: t\r\ntransfer-encoding: xchunked\r\n".to_owned(),
            &chunked,
        ),
        (
            "two lengths",
            format!("host: t\r\n{length}content-length: 3\r\n"),
            &body,
        ),
        (
            "a length with a sign",
            format!("host: t\r\ncontent-length: +{}\r\n", body.len()),
            &body,
        ),
        (
            "a space before the colon",
            format!("host: t\r\ncontent-length : {}\r\n", body.len()),
            &body,
        ),
        (
            "TE with a space before the colon",
            format!("host: t\r\n{length}transfer-encoding : chunked\r\n"),
            &chunked,
        ),
        (
            "a folded line",
            format!("host: t\r\nx: a\r\n b\r\n{length}"),
            &body,
        ),
    ] {
        let mut stream = door.connect();
        stream
            .write_all(format!("{head}{headers}\r\n{body}").as_bytes())
            .unwrap();
        let said = answer(stream);
        assert!(said.starts_with("HTTP/1.1 400"), "{what}: {said}");
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "{what}: {said}");
    }
    let mut stream = door.connect();
    let bare = format!("{head}host: t\r\n{length}\r\n").replace("\r\n", "\n");
    stream
        .write_all(format!("{bare}{body}").as_bytes())
        .unwrap();
    let said = answer(stream);
    assert!(said.starts_with("HTTP/1.1 400"), "bare line feeds: {said}");
    // The same event in a valid form is accepted: the form was refused before.
    for headers in [format!("host: t\r\n{length}"), format!("host: t\r\n{te}")] {
        let mut stream = door.connect();
        let body = if headers.contains("chunked") {
            &chunked
        } else {
            &body
        };
        stream
            .write_all(format!("{head}{headers}connection: close\r\n\r\n{body}").as_bytes())
            .unwrap();
        let said = answer(stream);
        assert!(said.starts_with("HTTP/1.1 200"), "{headers}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_needs_no_host() {
    let door = Door::open().await;
    let (head, body) = door.signed(1, "");
    let head = head.replace("HTTP/1.1", "HTTP/1.0");
    let mut stream = door.connect();
    stream
        .write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    let said = answer(stream);
    assert!(said.starts_with("HTTP/1.0 200"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_half_gets_its_answer() {
    let door = Door::open().await;
    for number in 0..5 {
        let (head, body) = door.signed(number, "");
        let mut stream = door.connect();
        let request = format!(
            "{head}host: t\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Half::Write).unwrap();
        let said = answer(stream);
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_changes_nothing_is_taken() {
    let door = Door::open().await;
    for (encoding, status) in [
        ("", 200),
        ("identity,", 200),
        ("identity, Identity", 200),
        ("gzip", 415),
        ("identity, gzip", 415),
    ] {
        let said = door.send(1, &format!("content-encoding: {encoding}\r\n"));
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status}")),
            "{encoding:?}: {said}"
        );
    }
}
