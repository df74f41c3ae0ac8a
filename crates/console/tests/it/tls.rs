//! The console over TLS.

use std::sync::Arc;

use fluent_console::SessionTimes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::fixture::{Answer, Fixture, PEOPLE, READ};

const HOST: &str = "console.example.com";

/// A certificate in files of the fixture's, and a client that trusts it.
struct Secure {
    console: Fixture,
    connector: TlsConnector,
    _files: tempfile::TempDir,
}

impl Secure {
    fn open() -> Self {
        let files = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        let certificate = files.path().join("certificate");
        let key = files.path().join("key");
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = format!("    tls: {{ certificate: {certificate:?}, key: {key:?} }}\n");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            console: Fixture::with(PEOPLE, &tls, SessionTimes::default()),
            connector: TlsConnector::from(Arc::new(config)),
            _files: files,
        }
    }

    async fn say(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let stream = tokio::net::TcpStream::connect(self.console.address)
            .await
            .unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let mut stream = self.connector.connect(name, stream).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Answer::read(&answer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_cookie_is_of_this_host_alone_and_the_origin_has_tls() {
    let secure = Secure::open();
    let form = format!("token={READ}");
    let plain = "origin: http://console.example.com\r\n";
    let refused = secure.say("POST", "/login", plain, &form).await;
    assert_eq!(refused.status, 403, "a page without TLS is another's");
    let origin = "origin: https://console.example.com\r\n";
    let done = secure.say("POST", "/login", origin, &form).await;
    assert_eq!(done.status, 303, "{done:?}");
    let cookie = done.header("set-cookie");
    assert!(cookie.starts_with("__Host-fluent-"), "{cookie}");
    assert!(
        cookie.contains("; Path=/; HttpOnly; SameSite=Lax") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"), "{cookie}");
    let page = secure
        .say("GET", "/", &format!("cookie: {}\r\n", done.cookie()), "")
        .await;
    assert_eq!(page.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_nothing_is_said_at_a_port_with_tls() {
    let secure = Secure::open();
    let said = crate::fixture::exchange(
        secure.console.address,
        b"GET / HTTP/1.1\r\nhost: console.example.com\r\n\r\n",
    );
    assert!(
        !String::from_utf8_lossy(&said).contains("HTTP/1.1"),
        "{said:?}"
    );
}
