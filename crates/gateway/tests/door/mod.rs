//! A gateway's webhook port within the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use event_model::{Account, Accounts, SystemClock};
use fluent_gateway::{Bounds, Ports, Senders};
use process::Shutdown;
use queue_embedded::{Embedded, Options};
use settings::OnMalformed;
use simulator::KeyPair;
use verifier::{KeyRing, PublicKey, Signatures, WebhookVerifier};

pub(crate) const PATH: &str = "/hook";

pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    key: KeyPair,
    _folder: tempfile::TempDir,
}

impl Door {
    pub(crate) async fn open() -> Self {
        Self::with(Bounds::new(1 << 20), Senders::default()).await
    }

    pub(crate) async fn with(bounds: Bounds, senders: Senders) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate(1024).unwrap();
        let name: event_model::KeyName = "sydney_sandbox".parse().unwrap();
        let public = PublicKey::parse(&key.public_base64().unwrap()).unwrap();
        let ring = Arc::new(KeyRing::new([(name.clone(), public)]).unwrap());
        let account = Account {
            name: "ACME".to_owned(),
            key: name,
            retailers: None,
        };
        let queue = Embedded::open(
            Options::new(folder.path().join("queue.db")),
            Arc::new(SystemClock),
        );
        let ports = Ports {
            verifier: Arc::new(WebhookVerifier::new(ring, Signatures::default())),
            accounts: Arc::new(Accounts::new([account])),
            intake: Arc::new(queue.unwrap()),
            clock: Arc::new(SystemClock),
            signature_headers: Arc::new(["fluent-signature".to_owned()]),
            path: PATH.into(),
            malformed: OnMalformed::Quarantine,
            senders: senders.clone(),
            rejected: fluent_gateway::RejectedCapture::disabled(),
            refused: fluent_gateway::RefusedAccounts::new(Accounts::default()),
            seen: fluent_gateway::SeenEventsRecorder::default(),
        };
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let router = fluent_gateway::router(ports, &bounds);
        let serving =
            fluent_gateway::serve(listener, None, router, bounds, senders, shutdown.clone());
        shutdown.spawn_detached(serving);
        Self {
            address,
            key,
            _folder: folder,
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// The beginning of a signed request's head, and its body.
    pub(crate) fn signed(&self, number: usize, pad: &str) -> (String, String) {
        self.signed_of("ACME", number, pad)
    }

    /// The same of another account.
    pub(crate) fn signed_of(&self, account: &str, number: usize, pad: &str) -> (String, String) {
        let body = format!(
            r#"{{"id":"{number}","name":"E","accountId":"{account}","retailerId":"1","pad":"{pad}"}}"#
        );
        let signed = self.key.sign(body.clone()).unwrap().sha512;
        (
            format!("POST {PATH} HTTP/1.1\r\nfluent-signature: {signed}\r\n"),
            body,
        )
    }

    /// Sends a request with these headers, and returns the answer.
    pub(crate) fn send(&self, number: usize, headers: &str) -> String {
        let (head, body) = self.signed(number, "");
        let length = body.len();
        let request = format!(
            "{head}host: t\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        let mut stream = self.connect();
        let _ = stream.write_all(request.as_bytes());
        answer(stream)
    }
}

/// Everything that the other side sends until it closes.
/// What is answered until the other side closes, or resets, the connection. One that it leaves open
/// is no answer.
pub(crate) fn answer(mut stream: TcpStream) -> String {
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
