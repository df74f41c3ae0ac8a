//! One sender, or a crowd of strangers, keeps no other out.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod door;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use door::{Door, PATH, answer};
use fluent_gateway::{Bounds, Senders};
use process::ClientNetwork;
use settings::{AddressFrom, TrustedProxies};

/// A connection from another address of this machine.
fn connect_from(number: u8, door: &Door) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), 0));
    socket.bind(&source.into()).unwrap();
    socket.connect(&door.address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

fn trusting(from: AddressFrom) -> Senders {
    let networks = vec!["127.0.0.1/32".parse().unwrap()];
    Senders {
        proxies: TrustedProxies::new(networks, from),
        ..Senders::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_signature_nothing_is_read() {
    // Who waited for the body would never answer.
    let bounds = Bounds {
        body_within: Duration::from_hours(1),
        ..Bounds::new(1 << 20)
    };
    let door = Door::with(bounds, Senders::default()).await;
    for header in [
        "",
        "fluent-signature:\r\n",
        &format!("fluent-signature: {}\r\n", "A".repeat(9000)),
    ] {
        let mut stream = door.connect();
        write!(
            stream,
            "POST {PATH} HTTP/1.1\r\nhost: t\r\n{header}content-length: 1000\r\n\r\n"
        )
        .unwrap();
        let said = answer(stream);
        assert!(
            said.starts_with("HTTP/1.1 401") && said.contains("connection: close"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_of_strangers_keep_no_webhook_out() {
    let bounds = Bounds {
        bodies: 8 << 20,
        ..Bounds::new(1 << 20)
    };
    let door = Door::with(bounds, Senders::default()).await;
    let body = "x".repeat((1 << 20) - 1);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: AAAA\r\ncontent-length: {}\r\n\r\n",
        1 << 20
    );
    let attackers: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = connect_from(66, &door);
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            stream
        })
        .collect();
    for number in 0..20 {
        let said = door.send(number, "");
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
    // The honest sender also gets room for a large body.
    let (head, body) = door.signed(99, &"y".repeat(900 << 10));
    let mut stream = door.connect();
    let request = format!(
        "{head}host: t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let said = answer(stream);
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    drop(attackers);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_connections_keep_no_webhook_out() {
    let door = Door::with(
        Bounds {
            connections: 64,
            ..Bounds::new(1 << 20)
        },
        Senders::default(),
    )
    .await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: AAAA\r\ncontent-length: 9\r\n\r\n{{"
    );
    for begin in ["", "P", &head] {
        let mut many = Vec::new();
        for _ in 0..200 {
            let mut stream = connect_from(66, &door);
            let _ = stream.write_all(begin.as_bytes());
            many.push(stream);
        }
        for number in 0..10 {
            let said = door.send(number, "");
            assert!(said.starts_with("HTTP/1.1 200"), "among {begin:?}: {said}");
        }
    }
}

/// Keys are those of a region, so anybody may have a webhook that is genuine: another account's, or a
/// copy of one of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_webhook_proves_nobody() {
    let bounds = Bounds {
        connections: 32,
        body_within: Duration::from_hours(1),
        ..Bounds::new(1 << 20)
    };
    let senders = Senders::default();
    let door = Door::with(bounds, senders.clone()).await;
    let source = |number: u8| ClientNetwork::from(IpAddr::from([127, 0, 0, number]));
    assert!(door.send(1, "").starts_with("HTTP/1.1 200"));
    assert!(senders.proven.has(source(1)));

    for (account, number, status) in [("OTHER", 2, "403"), ("ACME", 1, "200")] {
        let (head, body) = door.signed_of(account, number, "");
        let length = body.len();
        let mut stream = connect_from(66, &door);
        let request =
            format!("{head}host: t\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let said = answer(stream);
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        assert!(!senders.proven.has(source(66)), "{account}");
    }
    let begin = format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: AAAA\r\ncontent-length: 9\r\n\r\n{{"
    );
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect_from(66, &door);
            let _ = stream.write_all(begin.as_bytes());
            stream
        })
        .collect();
    for number in 10..20 {
        let said = door.send(number, "");
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_through_a_trusted_proxy_keep_no_webhook_out() {
    const CONNECTIONS: usize = 64;
    for clients in [1, CONNECTIONS] {
        let bounds = Bounds {
            connections: CONNECTIONS,
            body_within: Duration::from_hours(1),
            ..Bounds::new(1 << 20)
        };
        let door = Door::with(bounds, trusting(AddressFrom::XForwardedFor)).await;
        let slow: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|number| {
                let client = 66 + number % clients;
                let mut stream = door.connect();
                // 100 asks for its body: then the request has begun.
                write!(
                    stream,
                    "POST {PATH} HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 192.0.2.{client}\r\nexpect: 100-continue\r\nfluent-signature: AAAA\r\ncontent-length: 9\r\n\r\n"
                )
                .unwrap();
                let mut said = [0; 12];
                stream.read_exact(&mut said).unwrap();
                assert_eq!(&said, b"HTTP/1.1 100");
                stream.write_all(b"{").unwrap();
                stream
            })
            .collect();
        for number in 0..10 {
            let said = door.send(number, "x-forwarded-for: 192.0.2.1\r\n");
            assert!(
                said.starts_with("HTTP/1.1 200"),
                "{clients} clients: {said}"
            );
        }
        drop(slow);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_closed_and_a_trusted_proxy_is_not() {
    let request = "GET / HTTP/1.1\r\nhost: t\r\n\r\n";
    let door = Door::open().await;
    let mut stream = door.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let said = answer(stream);
    assert!(
        said.starts_with("HTTP/1.1 404") && said.contains("connection: close"),
        "{said}"
    );

    let door = Door::with(Bounds::new(1 << 20), trusting(AddressFrom::XForwardedFor)).await;
    let mut stream = door.connect();
    let last = request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    stream
        .write_all(format!("{request}{last}").as_bytes())
        .unwrap();
    let said = answer(stream);
    assert_eq!(said.matches("HTTP/1.1 404").count(), 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_those_of_the_clients_behind_a_trusted_proxy() {
    let bounds = Bounds {
        bodies: 8 << 20,
        ..Bounds::new(1 << 20)
    };
    let door = Door::with(bounds, trusting(AddressFrom::XForwardedFor)).await;
    let body = "x".repeat((1 << 20) - 1);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 192.0.2.66\r\nfluent-signature: AAAA\r\ncontent-length: {}\r\n\r\n",
        1 << 20
    );
    let attackers: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = door.connect();
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            stream
        })
        .collect();
    let (head, body) = door.signed(99, &"y".repeat(900 << 10));
    let mut stream = door.connect();
    let length = body.len();
    let request = format!(
        "{head}host: t\r\nx-forwarded-for: 192.0.2.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let said = answer(stream);
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    drop(attackers);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_is_read_from_trusted_peers_only() {
    let door = Door::with(Bounds::new(1 << 20), trusting(AddressFrom::ProxyProtocol)).await;
    let (head, body) = door.signed(1, "");
    let request = format!(
        "{head}host: t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 8080\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([192, 0, 2, 7, 10, 0, 0, 1, 0x13, 0x88, 0x1f, 0x90]);
    for (header, from, is_good) in [
        (&v1, 1, true),
        (&v2, 1, true),
        (&v1, 66, false),
        (&Vec::new(), 66, true),
    ] {
        let mut stream = connect_from(from, &door);
        stream
            .write_all(&[header, request.as_bytes()].concat())
            .unwrap();
        let said = answer(stream);
        assert_eq!(
            said.starts_with("HTTP/1.1 200"),
            is_good,
            "{header:?} from {from}: {said}"
        );
    }
}

/// A connection whose body is not read can't carry another request. A client that pools
/// connections must be told, or it loses its next request.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_told_that_a_connection_ends_with_a_body_that_nobody_reads() {
    let door = Door::with(Bounds::new(1 << 20), trusting(AddressFrom::XForwardedFor)).await;
    for (request, is_closed) in [
        (
            "POST /wrong HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello",
            true,
        ),
        (
            "PUT /hook HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            true,
        ),
        ("GET /wrong HTTP/1.1\r\nhost: t\r\n\r\n", false),
        ("GET /hook HTTP/1.1\r\nhost: t\r\n\r\n", false),
    ] {
        let mut stream = door.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = [0; 512];
        let length = stream.read(&mut said).unwrap();
        let said = String::from_utf8_lossy(&said[..length]);
        assert!(said.starts_with("HTTP/1.1 40"), "{said}");
        assert_eq!(
            said.contains("connection: close"),
            is_closed,
            "{request}: {said}"
        );
    }
}

/// Sends a genuine webhook on a connection that stays open. Returns the first line of the answer.
fn accepted(door: &Door, number: usize, mut stream: &TcpStream) -> String {
    let (head, body) = door.signed(number, "");
    let length = body.len();
    let request = format!("{head}host: t\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut answer = [0; 1024];
    match stream.write_all(request.as_bytes()) {
        Ok(()) => {
            let read = stream.read(&mut answer).unwrap_or(0);
            let text = String::from_utf8_lossy(&answer[..read]).into_owned();
            text.lines().next().unwrap_or_default().to_owned()
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_a_genuine_webhook_lately_gives_way_last() {
    const PLACES: usize = 32;
    let bounds = Bounds {
        connections: PLACES,
        ..Bounds::new(1 << 20)
    };
    let door = Door::with(bounds, Senders::default()).await;
    let known = connect_from(2, &door);
    assert_eq!(accepted(&door, 1, &known), "HTTP/1.1 200 OK");
    // Each from an address of its own, so that none has more than its share.
    let crowd: Vec<TcpStream> = (0..2 * PLACES)
        .map(|number| {
            let mut stream = connect_from(100 + u8::try_from(number).unwrap(), &door);
            let _ = stream.write_all(b"POST");
            stream
        })
        .collect();
    // Connections are accepted in turn: who comes behind the crowd is answered after all of it.
    let mut last = connect_from(3, &door);
    write!(
        last,
        "GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let said = answer(last);
    assert!(said.starts_with("HTTP/1.1 4"), "{said}");
    assert_eq!(
        accepted(&door, 2, &known),
        "HTTP/1.1 200 OK",
        "it waited longest, and gave way to strangers"
    );
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_strangers_give_way_to_who_sent_a_genuine_webhook_lately() {
    let bounds = Bounds {
        bodies: 4 << 20,
        body_within: Duration::from_hours(1),
        ..Bounds::new(1 << 20)
    };
    let door = Door::with(bounds, Senders::default()).await;
    let known = connect_from(2, &door);
    assert_eq!(accepted(&door, 1, &known), "HTTP/1.1 200 OK");
    // Bodies without their last byte, as many as are held at once, each of another address.
    let body = "x".repeat((1 << 20) - 1);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nfluent-signature: {}\r\ncontent-length: {}\r\n\r\n",
        "A".repeat(172),
        1 << 20
    );
    let crowd: Vec<TcpStream> = (0..12)
        .map(|number| {
            let mut stream = connect_from(100 + number, &door);
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            stream
        })
        .collect();
    let (head, body) = door.signed(2, &"y".repeat(1_000_000));
    let length = body.len();
    let mut stream = connect_from(2, &door);
    let request =
        format!("{head}host: t\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let said = answer(stream);
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    drop(crowd);
}
