//! A full quarantine loses nothing and refuses nobody.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
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

/// The largest body that is accepted; the quarantine takes 64 MiB.
const BODY: usize = 2 << 20;

fn post(address: SocketAddr, key: &KeyPair, body: String) -> String {
    let signed = key.sign(body).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let head = format!(
        "POST /hook HTTP/1.1\r\nhost: t\r\nconnection: close\r\nfluent-signature: {}\r\ncontent-length: {}\r\n\r\n",
        signed.sha512,
        signed.body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&signed.body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_full_quarantine_can_not_take_is_held_and_answered_200() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate(1024).unwrap();
    let name: event_model::KeyName = "sydney_sandbox".parse().unwrap();
    let public = PublicKey::parse(&key.public_base64().unwrap()).unwrap();
    let ring = Arc::new(KeyRing::new([(name.clone(), public)]).unwrap());
    let path = folder.path().join("queue.db");
    let queue = Arc::new(Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap());
    let ports = Ports {
        verifier: Arc::new(WebhookVerifier::new(ring, Signatures::default())),
        accounts: Arc::new(Accounts::new([Account {
            name: "ACME".to_owned(),
            key: name,
            retailers: None,
        }])),
        intake: Arc::clone(&queue) as _,
        clock: Arc::new(SystemClock),
        signature_headers: Arc::new(["fluent-signature".to_owned()]),
        path: "/hook".into(),
        malformed: OnMalformed::Quarantine,
        senders: Senders::default(),
        rejected: fluent_gateway::RejectedCapture::disabled(),
        refused: fluent_gateway::RefusedAccounts::new(Accounts::default()),
        seen: fluent_gateway::SeenEventsRecorder::default(),
    };
    // Who waited for room would never be answered.
    let bounds = Bounds {
        durable_within: Duration::from_hours(1),
        ..Bounds::new(BODY)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::manual(Duration::from_secs(1));
    let router = fluent_gateway::router(ports, &bounds);
    let serving = fluent_gateway::serve(
        listener,
        None,
        router,
        bounds,
        Senders::default(),
        shutdown.clone(),
    );
    shutdown.spawn_detached(serving);
    let malformed = |number: usize| {
        let head = format!(r#"{{"accountId":"ACME","number":{number},"pad":""#);
        format!("{head}{}\"}}", "x".repeat(BODY - head.len() - 2))
    };
    tokio::task::spawn_blocking(move || {
        for number in 0..34 {
            let answer = post(address, &key, malformed(number));
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("quarantined"),
                "{answer}"
            );
        }
        let nobodys = post(address, &key, format!("no JSON {}", "x".repeat(BODY - 100)));
        assert!(nobodys.starts_with("HTTP/1.1 200"), "{nobodys}");
    })
    .await
    .unwrap();
    let (stores, mut kept, mut after) = (queue.stores(), 0, 0);
    loop {
        // A page ends where its bytes do.
        let page = stores.quarantine().list(after, 100).await.unwrap();
        let Some(last) = page.last() else { break };
        (kept, after) = (kept + page.len(), last.id);
    }
    let held = queue.stores().refused().list(0, 100).await.unwrap();
    assert_eq!(kept + held.len(), 35);
    assert!(held.len() >= 2, "{held:?}");
    let accounts: Vec<_> = held
        .iter()
        .map(|webhook| (&*webhook.reason, &*webhook.account))
        .collect();
    assert!(
        accounts.contains(&("quarantine-full", "ACME"))
            && accounts.contains(&("quarantine-full", ""))
    );
}
