//! Certificates: the authorities that are trusted, and our own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dispatch::{Context, DispatchError, Dispatcher, Done, OpenContext};
use fluent_dispatch_http::HttpDispatcher;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Makes an authority in `folder`, and a certificate of it for each side.
fn make(folder: &Path) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        fs::write(
            folder.join(format!("{name}.pem")),
            params.signed_by(&key, &ca).unwrap().pem(),
        )
        .unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Starts an endpoint that asks for a certificate of its authority; returns its port.
async fn endpoint(folder: &Path) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let read = |name: &str| CertificateDer::from_pem_file(folder.join(name)).unwrap();
    let mut trusted = RootCertStore::empty();
    trusted.add(read("ca.pem")).unwrap();
    let asks =
        WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(asks.build().unwrap())
        .with_single_cert(
            vec![read("server.pem")],
            PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

async fn dispatch(folder: &Path, port: u16, tls: Value) -> Result<Done, DispatchError> {
    let settings = json!({ "url": format!("https://127.0.0.1:{port}/"), "tls": tls });
    let cx = OpenContext::new("r", folder);
    let dispatcher = HttpDispatcher::open(serde_json::from_value(settings).unwrap(), &cx)
        .await
        .unwrap();
    let event = dispatch::testing::event("E", "HD_1");
    dispatcher
        .dispatch(
            &event,
            &Context::new("r", event.id().to_string(), Duration::from_secs(5)),
        )
        .await
}

#[tokio::test]
async fn both_sides_show_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    make(folder.path());
    make(other.path());
    let port = endpoint(folder.path()).await;
    let stranger = other.path().to_str().unwrap();
    let known = json!({ "ca": "ca.pem", "certificate": "client.pem", "key": "client.key" });
    assert_eq!(
        dispatch(folder.path(), port, known).await.unwrap(),
        Done::with_status(200)
    );
    for tls in [
        json!({}),
        json!({ "ca": "ca.pem" }),
        json!({ "ca": format!("{stranger}/ca.pem"), "certificate": "client.pem", "key": "client.key" }),
        json!({ "ca": "ca.pem", "certificate": format!("{stranger}/client.pem"), "key": format!("{stranger}/client.key") }),
    ] {
        let refused = dispatch(folder.path(), port, tls.clone()).await;
        assert!(
            matches!(refused, Err(DispatchError::Transient { status: None, .. })),
            "{tls}: {refused:?}"
        );
    }
}

/// A mark before the first of two certificates hides that one alone.
#[tokio::test]
async fn a_byte_order_mark_before_a_certificate_changes_nothing() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(folder.path());
    make(other.path());
    let port = endpoint(folder.path()).await;
    let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let both = read(folder.path(), "ca.pem") + &read(other.path(), "ca.pem");
    fs::write(folder.path().join("both.pem"), both).unwrap();
    for name in ["ca.pem", "both.pem", "client.pem", "client.key"] {
        let marked = format!("\u{feff}{}", read(folder.path(), name));
        fs::write(folder.path().join(format!("marked-{name}")), marked).unwrap();
    }
    for ca in ["marked-ca.pem", "marked-both.pem"] {
        let tls =
            json!({ "ca": ca, "certificate": "marked-client.pem", "key": "marked-client.key" });
        let answer = dispatch(folder.path(), port, tls).await;
        assert_eq!(answer.unwrap(), Done::with_status(200), "{ca}");
    }
}

/// Environment variable with the settings to open, for when the test runs itself again without
/// the machine's certificates.
const AGAIN: &str = "OPEN_WITHOUT_AUTHORITIES";

/// Returns the output of opening on a machine without certificates of authorities.
fn open_without_authorities(test: &str, settings: &Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("none.pem"), "").unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again
        .args([test, "--exact", "--nocapture"])
        .env(AGAIN, settings.to_string());
    again
        .env("SSL_CERT_FILE", folder.path().join("none.pem"))
        .env("SSL_CERT_DIR", folder.path());
    String::from_utf8(again.output().unwrap().stdout).unwrap()
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "it says which of two processes this is"
)]
async fn a_machine_without_authorities_needs_some_for_tls_alone() {
    const TEST: &str = "a_machine_without_authorities_needs_some_for_tls_alone";
    if let Ok(settings) = std::env::var(AGAIN) {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        fs::write(folder.path().join("secret"), "s3cret").unwrap();
        let settings = serde_json::from_str(&settings).unwrap();
        match HttpDispatcher::open(settings, &OpenContext::new("r", folder.path())).await {
            Ok(_) => println!("opened"),
            Err(error) => println!("refused: {error}"),
        }
        return;
    }
    let said = open_without_authorities(TEST, &json!({ "url": "http://127.0.0.1:1/" }));
    assert!(said.contains("opened"), "{said}");
    let ours = json!({ "url": "https://127.0.0.1:1/", "tls": { "ca": "ca.pem" } });
    let said = open_without_authorities(TEST, &ours);
    assert!(said.contains("opened"), "{said}");
    let oauth2 = json!({ "oauth2": {
        "token-url": "https://127.0.0.1:1/", "client-id": "i", "client-secret": { "file": "secret" },
    } });
    for settings in [
        json!({ "url": "https://127.0.0.1:1/" }),
        json!({ "url": "http://127.0.0.1:1/", "auth": oauth2 }),
    ] {
        let said = open_without_authorities(TEST, &settings);
        assert!(
            said.contains("refused") && said.contains("tls.ca") && said.contains("SSL_CERT_FILE"),
            "{said}"
        );
    }
}
