//! A gateway with different settings: the headers that have signatures, the largest body, and the
//! answers where nothing can be made durable.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_model::{Event, SystemClock};
use fluent_gateway::Bounds;
use futures::future::{BoxFuture, FutureExt, ready};
use process::Shutdown;
use queue::{Impediment, Intake, Quarantined, QueueError, Receipt, RejectedWebhook};
use queue_embedded::{Embedded, Options};
use settings::SettingsTree;
use simulator::{KeyPair, SignedBody};

/// An intake that stores nothing, and fails with this error.
#[derive(Debug)]
struct Refusing(fn() -> QueueError);

impl Intake for Refusing {
    fn publish(&self, _: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        ready(Err((self.0)())).boxed()
    }

    fn quarantine(&self, _: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        ready(Err((self.0)())).boxed()
    }

    fn capture_rejected(&self, _: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        ready(Err((self.0)())).boxed()
    }

    fn impediment(&self) -> Option<Impediment> {
        Some("it refuses".into())
    }
}

struct Gateway {
    address: SocketAddr,
    key: KeyPair,
    _folder: tempfile::TempDir,
}

impl Gateway {
    /// Starts a gateway with these `webhook` settings. With `refuses`, its queue fails with that
    /// error.
    async fn start(webhook: &str, refuses: Option<fn() -> QueueError>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate(1024).unwrap();
        let text = format!(
            "fluent-connect:
  accounts: [ {{ name: ACME, region: sydney, environment: sandbox }} ]
  webhook: {webhook}
fluentcommerce: {{ fluent-webhook-keys: {{ \"[sydney_sandbox]\": {} }} }}
",
            key.public_base64().unwrap()
        );
        let settings = SettingsTree::parse(Path::new("application.yml"), &text, [])
            .unwrap()
            .gateway()
            .unwrap();
        let path = folder.path().join("queue.db");
        let intake: Arc<dyn Intake> = match refuses {
            Some(why) => Arc::new(Refusing(why)),
            None => Arc::new(Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap()),
        };
        let ports = fluent_gateway::ports(&settings, intake);
        // What refuses is tried for that long.
        let durable_within = if refuses.is_some() {
            Duration::from_millis(500)
        } else {
            Duration::from_mins(1)
        };
        let bounds = Bounds {
            durable_within,
            ..Bounds::new(settings.body_limit)
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
        Self {
            address,
            key,
            _folder: folder,
        }
    }

    fn signed(&self, more: &str) -> SignedBody {
        let body = format!(r#"{{"id":"1","name":"E","accountId":"ACME","retailerId":"34"{more}}}"#);
        self.key.sign(body).unwrap()
    }

    /// Posts a body with these headers, and returns the answer.
    fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> String {
        let length = body.len().to_string();
        self.send(&[headers, &[("content-length", &length)]].concat(), body)
    }

    /// Sends these headers and these bytes, and returns the answer.
    fn send(&self, headers: &[(&str, &str)], bytes: &[u8]) -> String {
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}\r\n"
        );
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let _ = stream.write_all(&[head.as_bytes(), bytes].concat());
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

    #[track_caller]
    fn check(
        &self,
        headers: &[(&str, &str)],
        signed: &SignedBody,
        status: u16,
        says: &str,
    ) -> String {
        let answer = self.post(headers, &signed.body);
        let is_as_expected =
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(says);
        assert!(is_as_expected, "expected {status} and {says}: {answer}");
        answer
    }
}

/// nginx drops a header with a dot in its name unless it is told otherwise, and some gateways
/// rename what they pass on.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_found_where_a_proxy_puts_them() {
    let gateway = Gateway::start(
        "{ signatures: [sha512, md5], signature-headers: { sha512: [Fluent-Signature, X-Fluent-Signature], md5: [x-flex-signature] } }",
        None,
    )
    .await;
    let signed = gateway.signed("");
    let sha512 = &*signed.sha512;
    let md5 = &*signed.md5;
    gateway.check(
        &[("x-fluent-signature", sha512)],
        &signed,
        200,
        r#""duplicate":false"#,
    );
    for header in [
        ("fluent-signature", sha512),
        ("X-FLUENT-SIGNATURE", sha512),
        ("X-Flex-Signature", md5),
    ] {
        gateway.check(&[header], &signed, 200, r#""duplicate":true"#);
    }
    // A name that the settings replace has no meaning any more: this is unsigned.
    gateway.check(&[("flex.signature", md5)], &signed, 401, "unauthorized");
    // Each name is of one kind, and both at once are two signatures of it.
    gateway.check(
        &[("x-flex-signature", sha512)],
        &signed,
        401,
        "unauthorized",
    );
    let both = [("fluent-signature", sha512), ("x-fluent-signature", sha512)];
    gateway.check(&both, &signed, 401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bodies_of_one_id_are_stored_both_and_each_once() {
    let gateway = Gateway::start("{}", None).await;
    // Two webhook rules may send one event of a workflow like this.
    for (more, duplicate) in [("", false), (r#","attributes":{}"#, false), ("", true)] {
        let signed = gateway.signed(more);
        let says = format!(r#""duplicate":{duplicate}"#);
        gateway.check(&[("fluent-signature", &signed.sha512)], &signed, 200, &says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_have_2_mib_and_no_byte_more() {
    let gateway = Gateway::start("{}", None).await;
    let of = |length: usize| {
        let rest = gateway.signed(r#","x":"""#).body.len();
        gateway.signed(&format!(r#","x":"{}""#, "x".repeat(length - rest)))
    };
    for (length, status, says) in [(2 << 20, 200, "eventId"), ((2 << 20) + 1, 413, "too_large")] {
        let signed = of(length);
        assert_eq!(signed.body.len(), length);
        gateway.check(
            &[("fluent-signature", &signed.sha512)],
            &signed,
            status,
            says,
        );
    }
    // Neither guard stands in for the other: a length that is announced, and none at all.
    let larger = of((2 << 20) + 1);
    let signature = ("fluent-signature", &*larger.sha512);
    let length = larger.body.len();
    let announced = gateway.send(&[signature, ("content-length", &length.to_string())], b"");
    assert!(announced.starts_with("HTTP/1.1 413"), "{announced}");
    let head = format!("{length:x}\r\n");
    let chunk = [head.as_bytes(), &larger.body, b"\r\n0\r\n\r\n"].concat();
    let chunked = gateway.send(&[signature, ("transfer-encoding", "chunked")], &chunk);
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_made_durable_is_a_503_that_says_when_to_come_back() {
    let full: fn() -> QueueError = || QueueError::Full;
    for why in [full, || QueueError::Closed] {
        let gateway = Gateway::start("{}", Some(why)).await;
        let signed = gateway.signed("");
        let answer = gateway.check(
            &[("fluent-signature", &signed.sha512)],
            &signed,
            503,
            r#"{"error":"unavailable"}"#,
        );
        assert!(answer.contains("\r\nretry-after: 2\r\n"), "{answer}");
    }
}
