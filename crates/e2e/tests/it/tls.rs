//! TLS on the webhook port.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::pipeline::{Pipeline, signed};

/// Writes a certificate for this address, and returns it.
fn renew(folder: &Path) -> reqwest::Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("webhook.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("webhook.pem"), made.cert.pem()).unwrap();
    reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()
}

fn client(trusted: &reqwest::Certificate) -> reqwest::Client {
    let client = reqwest::Client::builder().tls_certs_only([trusted.clone()]).no_proxy();
    client.pool_max_idle_per_host(0).build().unwrap()
}

async fn send(pipeline: &Pipeline, client: &reqwest::Client) -> Option<u16> {
    let signed = signed("E", "TLS");
    let url = pipeline.url().replace("http://", "https://");
    let request = client.post(url).header("fluent-signature", &signed.sha512).body(signed.body);
    request.send().await.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_shown_and_read_again_when_it_changes() {
    let mut pipeline = Pipeline::prepare("    - { name: all, match: {}, dispatcher: log }\n");
    let folder = pipeline.folder.path().to_owned();
    let first_shown = renew(&folder);
    let first = client(&first_shown);
    pipeline.set_environment("FLUENT_CONNECT__WEBHOOK__TLS__CERTIFICATE", Path::new("webhook.pem"));
    pipeline.set_environment("FLUENT_CONNECT__WEBHOOK__TLS__KEY", Path::new("webhook.key"));
    pipeline.run();
    assert_eq!(send(&pipeline, &first).await, Some(200));
    assert_eq!(
        pipeline.sender(simulator::Retry::Never).send(&signed("E", "PLAIN")).await.answer.map(|a| a.status),
        None
    );

    // A file half written changes nothing.
    fs::write(folder.join("webhook.pem"), "-----BEGIN").unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(send(&pipeline, &first).await, Some(200));
    let second = client(&renew(&folder));
    let began = Instant::now();
    while send(&pipeline, &second).await != Some(200) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", pipeline.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // A client that was here before would resume its session.
    assert_eq!(send(&pipeline, &client(&first_shown)).await, None, "the one before is not shown any more");
}
