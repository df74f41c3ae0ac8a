//! TLS on the webhook port.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::pipeline::{Pipeline, may_open, signed, until};

/// Writes a certificate for this address, and returns it.
fn renew(folder: &Path) -> reqwest::Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("webhook.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("webhook.pem"), made.cert.pem()).unwrap();
    reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()
}

fn client(trusted: &reqwest::Certificate) -> reqwest::Client {
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted.clone()])
        .no_proxy();
    client.pool_max_idle_per_host(0).build().unwrap()
}

async fn send(pipeline: &Pipeline, client: &reqwest::Client) -> Option<u16> {
    let signed = signed("E", "TLS");
    let url = pipeline.url().replace("http://", "https://");
    let request = client
        .post(url)
        .header("fluent-signature", &signed.sha512)
        .body(signed.body);
    request
        .send()
        .await
        .ok()
        .map(|answer| answer.status().as_u16())
}

/// One that has a certificate, and what it shows.
fn with_tls() -> (Pipeline, reqwest::Certificate) {
    let mut pipeline = Pipeline::prepare("    - { name: all, match: {}, dispatcher: log }\n");
    let shown = renew(pipeline.folder.path());
    pipeline.set_environment(
        "FLUENT_CONNECT__WEBHOOK__TLS__CERTIFICATE",
        Path::new("webhook.pem"),
    );
    pipeline.set_environment(
        "FLUENT_CONNECT__WEBHOOK__TLS__KEY",
        Path::new("webhook.key"),
    );
    pipeline.run();
    (pipeline, shown)
}

/// Connections on which a handshake begins and does not end: of a ClientHello its first
/// bytes, or nothing.
fn begin_handshakes(to: SocketAddr, count: usize, addresses: u8) -> Vec<TcpStream> {
    let begin = |number: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        let from = Ipv4Addr::new(
            127,
            0,
            2,
            1 + u8::try_from(number % usize::from(addresses)).ok()?,
        );
        socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
        socket
            .connect_timeout(&to.into(), Duration::from_secs(5))
            .ok()?;
        let mut stream = TcpStream::from(socket);
        if number.is_multiple_of(2) {
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        }
        Some(stream)
    };
    (0..count).filter_map(begin).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_keep_nobody_out() {
    const COUNT: usize = 4000;
    if !may_open(2 * COUNT as u64 + 2000) {
        return;
    }
    let (pipeline, shown) = with_tls();
    let client = client(&shown);
    for addresses in [1, 50] {
        let to = pipeline.webhook;
        let begun = tokio::task::spawn_blocking(move || begin_handshakes(to, COUNT, addresses))
            .await
            .unwrap();
        assert!(begun.len() > COUNT / 2, "{} of {COUNT}", begun.len());
        for number in 0..50 {
            assert_eq!(
                send(&pipeline, &client).await,
                Some(200),
                "{number}, from {addresses}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_shown_and_read_again_when_it_changes() {
    let (pipeline, first_shown) = with_tls();
    let folder = pipeline.folder.path().to_owned();
    let first = client(&first_shown);
    assert_eq!(send(&pipeline, &first).await, Some(200));
    assert_eq!(
        pipeline
            .sender(simulator::Retry::Never)
            .send(&signed("E", "PLAIN"))
            .await
            .answer
            .map(|a| a.status),
        None
    );

    // A file half written changes nothing.
    fs::write(folder.join("webhook.pem"), "-----BEGIN").unwrap();
    until("it was read again", || {
        pipeline
            .log()
            .contains("can't be read: the one before stays")
    })
    .await;
    // A client that was here before would resume its session.
    assert_eq!(send(&pipeline, &client(&first_shown)).await, Some(200));
    let second = client(&renew(&folder));
    let began = Instant::now();
    while send(&pipeline, &second).await != Some(200) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{}",
            pipeline.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        send(&pipeline, &client(&first_shown)).await,
        None,
        "the one before is not shown any more"
    );
}
