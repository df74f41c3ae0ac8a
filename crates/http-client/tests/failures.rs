//! A request without an answer is explained in plain words, with host and port and nothing of the
//! library's.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fluent_http_client::{HttpClient, RequestParts, machine_tls, usual_headers};
use http::Method;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// What the failure of a request to this URL says.
async fn said(url: &str) -> String {
    said_by(HttpClient::new(machine_tls(false).unwrap(), true), url).await
}

async fn said_by(client: HttpClient, url: &str) -> String {
    let asked = RequestParts {
        method: Method::POST,
        uri: url.parse().unwrap(),
        headers: usual_headers(),
        body: "{}".into(),
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let answer = client.send(asked, deadline).await;
    let error = answer.expect_err("no answer");
    let source = std::error::Error::source(&error);
    assert!(source.is_none(), "the library's words: {source:?}");
    error.to_string()
}

/// What the failure of a request says to a server that serves every connection by this function,
/// and the server's address. `of` makes the URL of the address.
async fn said_at<F: Future<Output = ()>>(
    serve: impl Fn(TcpStream) -> F,
    of: impl Fn(SocketAddr) -> String,
) -> (String, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = of(address);
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream).await;
        }
    };
    let said = tokio::select! {
        said = said(&url) => said,
        () = serving => unreachable!("it serves for ever"),
    };
    (said, address)
}

async fn answer(mut stream: TcpStream, bytes: &[u8]) {
    let _ = stream.read(&mut [0; 4096]).await;
    let _ = stream.write_all(bytes).await;
}

#[tokio::test]
async fn nobody_listens_or_the_name_is_unknown() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    assert_eq!(
        said(&format!("http://{address}/hook?secret")).await,
        format!("connection refused at {address}: nobody listens there")
    );
    assert_eq!(
        said("https://nowhere.invalid/hook").await,
        "the name nowhere.invalid has no address"
    );
    let public = HttpClient::new(machine_tls(false).unwrap(), false);
    let forbidden = said_by(public, "http://localhost:1/").await;
    assert!(
        forbidden.starts_with("localhost:1 is not asked: the name resolves to a private"),
        "{forbidden}"
    );
}

#[tokio::test]
async fn what_answers_is_no_http() {
    let plain = |address: SocketAddr| format!("http://{address}/");
    let (closed, address) = said_at(|stream| answer(stream, b""), plain).await;
    assert_eq!(
        closed,
        format!("the connection to {address} was closed without an answer")
    );
    let (other, address) =
        said_at(|stream| answer(stream, b"SSH-2.0-OpenSSH_9.6\r\n"), plain).await;
    assert_eq!(
        other,
        format!("what {address} answered is not HTTP: does it want https://?")
    );
}

#[tokio::test]
async fn tls_fails() {
    let bad_request = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    let secure = |address: SocketAddr| format!("https://{address}/");
    let (plain, address) = said_at(|stream| answer(stream, bad_request), secure).await;
    assert_eq!(
        plain,
        format!("TLS failed at {address}: it does not speak TLS: is it http://?")
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.self_signed(&key).unwrap();
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let handshake = |stream| {
        let accepting = acceptor.accept(stream);
        async move { drop(accepting.await) }
    };
    let by_name = |address: SocketAddr| format!("https://localhost:{}/", address.port());
    let (untrusted, address) = said_at(handshake, by_name).await;
    let port = address.port();
    assert_eq!(
        untrusted,
        format!(
            "TLS failed at localhost:{port}: its certificate is not trusted: no authority that is trusted here made it"
        )
    );
}
