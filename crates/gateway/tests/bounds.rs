//! The bounds that a test can't reach from outside with their real values.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{Account, Accounts, SystemClock};
use fluent_gateway::{Bounds, Ports};
use process::Shutdown;
use queue_embedded::{Embedded, Options};
use settings::OnMalformed;
use simulator::KeyPair;
use verifier::{KeyRing, PublicKey, Signatures, WebhookVerifier};

const PATH: &str = "/hook";

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than any test takes.
const HOUR: Duration = Duration::from_hours(1);

struct Gateway {
    address: SocketAddr,
    key: KeyPair,
    _folder: tempfile::TempDir,
}

async fn start(bounds: Bounds) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate(1024).unwrap();
    let name: event_model::KeyName = "sydney_sandbox".parse().unwrap();
    let public = PublicKey::parse(&key.public_base64().unwrap()).unwrap();
    let ring = Arc::new(KeyRing::new([(name.clone(), public)]).unwrap());
    let queue = Embedded::open(
        Options::new(folder.path().join("queue.db")),
        Arc::new(SystemClock),
    )
    .unwrap();
    let ports = Ports {
        verifier: Arc::new(WebhookVerifier::new(ring, Signatures::default())),
        accounts: Arc::new(Accounts::new([Account {
            name: "ACME".to_owned(),
            key: name,
            retailers: None,
        }])),
        intake: Arc::new(queue),
        clock: Arc::new(SystemClock),
        signature_headers: Arc::new(["fluent-signature".to_owned()]),
        path: PATH.into(),
        malformed: OnMalformed::Quarantine,
        senders: fluent_gateway::Senders::default(),
        rejected: fluent_gateway::RejectedCapture::disabled(),
        refused: fluent_gateway::RefusedAccounts::new(Accounts::default()),
        seen: fluent_gateway::SeenEventsRecorder::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::manual(Duration::from_secs(1));
    let senders = ports.senders.clone();
    let router = fluent_gateway::router(ports, &bounds);
    shutdown.spawn_detached(fluent_gateway::serve(
        listener,
        None,
        router,
        bounds,
        senders,
        shutdown.clone(),
    ));
    Gateway {
        address,
        key,
        _folder: folder,
    }
}

impl Gateway {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A whole request; `pad` makes it larger.
    fn request(&self, number: usize, pad: usize) -> String {
        let pad = "x".repeat(pad);
        let body = format!(
            r#"{{"id":"{number}","name":"E","accountId":"ACME","retailerId":"1","pad":"{pad}"}}"#
        );
        let signed = self.key.sign(body.clone()).unwrap().sha512;
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nfluent-signature: {signed}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// What is answered until the other side closes, or resets, the connection. One that it leaves open
/// is no answer.
fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let is_open = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    };
    assert!(
        !read.as_ref().is_err_and(is_open),
        "the connection stays open after {answer:?}"
    );
    answer
}

fn send(gateway: &Gateway, request: &str) -> String {
    let mut stream = gateway.connect();
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_takes_the_place_of_an_idle_one() {
    let gateway = start(Bounds {
        connections: 2,
        ..Bounds::new(1 << 20)
    })
    .await;
    let idle = [gateway.connect(), gateway.connect()];
    // The accept loop takes them in order.
    let said = send(&gateway, &gateway.request(1, 0));
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let [first, _second] = idle;
    assert_eq!(answer(first), "", "the longest idle gave way");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_everybody_is_sending_one_more_is_told_to_come_back() {
    let bounds = Bounds {
        connections: 2,
        body_within: HOUR,
        ..Bounds::new(1 << 20)
    };
    let gateway = start(bounds).await;
    let request = gateway.request(1, 0);
    let (most, _) = request.split_at(request.len() - 1);
    let mut sending = [gateway.connect(), gateway.connect()];
    sending
        .iter_mut()
        .for_each(|stream| stream.write_all(most.as_bytes()).unwrap());
    let began = Instant::now();
    // Until both have their headers read, they may give way.
    while !send(&gateway, &gateway.request(2, 0)).contains("503") {
        assert!(began.elapsed() < PATIENCE, "nobody was refused");
        sending.iter_mut().for_each(|stream| {
            let mut next = gateway.connect();
            let _ = next.write_all(most.as_bytes());
            *stream = next;
        });
    }
    drop(sending);
    let began = Instant::now();
    while !send(&gateway, &gateway.request(3, 0)).starts_with("HTTP/1.1 200") {
        assert!(began.elapsed() < PATIENCE, "places are not given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_budget_are_refused() {
    // When a body has been read nobody says: what came too early is no second body, and one more
    // gateway is tried, for longer.
    let mut rest = Duration::from_millis(300);
    while !beyond_the_budget(rest).await {
        assert!(rest < PATIENCE, "nobody is refused");
        rest *= 3;
    }
}

/// Sends a second body some time after most of a first one. Whether it came in time.
async fn beyond_the_budget(after: Duration) -> bool {
    let bounds = Bounds {
        bodies: 64 << 10,
        body_within: HOUR,
        ..Bounds::new(1 << 20)
    };
    let gateway = start(bounds).await;
    let large = gateway.request(1, 40 << 10);
    let (head, body) = large.split_once("\r\n\r\n").unwrap();
    let mut held = gateway.connect();
    let (most, rest) = body.split_at(body.len() - 1);
    held.write_all(format!("{head}\r\n\r\n{most}").as_bytes())
        .unwrap();
    tokio::time::sleep(after).await;

    // Announced bytes cost nothing; bytes that come do.
    let announced: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = gateway.connect();
            stream
                .write_all(format!("{head}\r\n\r\n").as_bytes())
                .unwrap();
            stream
        })
        .collect();
    let refused = send(&gateway, &gateway.request(2, 40 << 10));
    if refused.starts_with("HTTP/1.1 200") {
        return false;
    }
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 2"),
        "{refused}"
    );
    let small = send(&gateway, &gateway.request(3, 0));
    assert!(small.starts_with("HTTP/1.1 200"), "{small}");
    held.write_all(rest.as_bytes()).unwrap();
    drop(announced);
    let first = answer(held);
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let began = Instant::now();
    while !send(&gateway, &gateway.request(4, 40 << 10)).starts_with("HTTP/1.1 200") {
        assert!(began.elapsed() < PATIENCE, "the budget is not given back");
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_of_a_byte_costs_what_it_weighs() {
    let gateway = start(Bounds {
        bodies: 8 << 10,
        ..Bounds::new(1 << 20)
    })
    .await;
    let request = gateway.request(1, 3000);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head
        .lines()
        .filter(|line| !line.starts_with("content-length"))
        .collect();
    let mut stream = gateway.connect();
    stream.set_nodelay(true).unwrap();
    write!(
        stream,
        "{}\r\ntransfer-encoding: chunked\r\n\r\n",
        head.join("\r\n")
    )
    .unwrap();
    for byte in body.bytes() {
        stream
            .write_all(&[b'1', b'\r', b'\n', byte, b'\r', b'\n'])
            .unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let said = answer(stream);
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_at_last() {
    let quick = Duration::from_millis(500);
    let gateway = start(Bounds {
        first_byte_within: quick,
        ..Bounds::new(1 << 20)
    })
    .await;
    assert_eq!(
        answer(gateway.connect()),
        "",
        "nothing was asked, nothing is said"
    );
    let gateway = start(Bounds {
        idle: quick,
        ..Bounds::new(1 << 20)
    })
    .await;
    let mut stream = gateway.connect();
    stream
        .write_all(
            gateway
                .request(1, 0)
                .replace("connection: close\r\n", "")
                .as_bytes(),
        )
        .unwrap();
    let said = answer(stream);
    assert_eq!(
        said.matches("HTTP/1.1").count(),
        1,
        "one answer, and silence: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_its_answers_is_closed_though_nobody_needs_its_place() {
    let gateway = start(Bounds {
        write_within: Duration::from_millis(500),
        ..Bounds::new(1 << 20)
    })
    .await;
    let mut deaf = gateway.connect();
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let is_open = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    };
    // Duplicates are answered 200, after which a connection stays open.
    let request = gateway.request(1, 0).replace("connection: close\r\n", "");
    let request = request.repeat(1000);
    let (began, mut at) = (Instant::now(), 0);
    // First there is no room for more, then nobody to take it.
    loop {
        match deaf.write(&request.as_bytes()[at..]) {
            Ok(written) => at = (at + written) % request.len(),
            Err(error) if is_open(&error) => {}
            Err(_) => break,
        }
        assert!(began.elapsed() < PATIENCE, "it stays open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_read_by_a_sender_that_is_still_sending() {
    const TRIES: usize = 10;
    let gateway = start(Bounds::new(64 << 10)).await;
    let large = gateway.request(1, 2 << 20);
    let (head, body) = large.split_once("\r\n\r\n").unwrap();
    let (first, second) = body.split_at(body.len() / 2);
    // Once it has the answer to the head, it sends the rest. A gateway that has closed by then resets
    // the connection, and the second part can't be sent. This machine may be too busy to send all
    // within the second that is waited.
    let is_read = (0..TRIES).any(|_| {
        let mut stream = gateway.connect();
        let mut refused = String::new();
        let mut exchange = || {
            write!(stream, "{head}\r\n\r\n")?;
            stream.peek(&mut [0])?;
            stream.write_all(first.as_bytes())?;
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(second.as_bytes())?;
            stream.read_to_string(&mut refused)
        };
        exchange().is_ok() && refused.starts_with("HTTP/1.1 413")
    });
    assert!(is_read, "each was reset");
}
