//! The nginx block of the README, as it is printed there.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;

use simulator::SignedBody;

use super::{Kind, PATH, temporary_folders};
use crate::pipeline::{Pipeline, free_ports, signed, until};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    fs::read_to_string(path).unwrap()
}

fn nginx_block() -> String {
    let text = readme();
    let (_, rest) = text.split_once("```nginx\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Replaces what is there exactly once.
fn replace_once(text: &str, before: &str, after: &str) -> String {
    assert_eq!(text.matches(before).count(), 1, "{before:?} in {text}");
    text.replace(before, after)
}

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        // It ends its workers only if it is asked to.
        let id = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// The block within the least of a configuration; only its ports are another's.
fn configuration(listen: SocketAddr, gateway: SocketAddr, folder: &Path) -> String {
    let block = replace_once(
        &nginx_block(),
        "listen 443 ssl;",
        &format!("listen {listen} ssl;"),
    );
    let block = replace_once(&block, "127.0.0.1:8080", &gateway.to_string());
    let temporary = temporary_folders(folder);
    format!("events {{}}\nhttp {{\naccess_log off;\n{temporary}{block}}}\n")
}

fn start(gateway: SocketAddr, folder: &Path) -> Option<(Nginx, SocketAddr, reqwest::Client)> {
    let (Ok(program), Ok(checking)) = (Kind::Nginx.program(), Kind::Nginx.program()) else {
        e2e::say_not_run("nginx is not installed here, and can't be fetched");
        return None;
    };
    let [listen] = free_ports();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("hooks.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("hooks.key"), made.signing_key.serialize_pem()).unwrap();
    let config = folder.join("nginx.conf");
    fs::write(&config, configuration(listen, gateway, folder)).unwrap();
    let checked = Kind::Nginx.command(checking, &config).arg("-t").output();
    let checked = checked.unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && !said.contains("warn"), "{said}");
    let log = File::create(folder.join("log")).unwrap();
    let mut command = Kind::Nginx.command(program, &config);
    let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]);
    let client = client.no_proxy().build().unwrap();
    Some((Nginx(child.unwrap()), listen, client))
}

async fn send(client: &reqwest::Client, to: SocketAddr, header: [&str; 2], body: Vec<u8>) -> u16 {
    let request = client.post(format!("https://{to}{PATH}"));
    let request = request.header(header[0], header[1]).body(body);
    request
        .send()
        .await
        .map_or(0, |answer| answer.status().as_u16())
}

/// Each of Fluent's two headers alone, since a proxy may drop one.
async fn passes(client: &reqwest::Client, to: SocketAddr, signed: &SignedBody) {
    for header in [
        ["fluent-signature", &*signed.sha512],
        ["flex.signature", &*signed.md5],
    ] {
        let status = send(client, to, header, signed.body.clone()).await;
        assert_eq!(status, 200, "{header:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_nginx_starts_and_lets_signed_webhooks_through() {
    let mut gateway = Pipeline::prepare("    - { name: all, match: {}, dispatcher: log }\n");
    let settings = fs::read_to_string(gateway.config()).unwrap();
    // As the README's line below the block says.
    let line = "trusted-proxies: [127.0.0.1]";
    assert!(readme().contains(line));
    let trusting = format!("body-limit: 64KiB, {line}");
    let settings = replace_once(&settings, "body-limit: 64KiB", &trusting);
    fs::write(gateway.config(), settings).unwrap();
    gateway.run();
    let folder = tempfile::tempdir().unwrap();
    let Some((_nginx, to, client)) = start(gateway.webhook, folder.path()) else {
        return;
    };
    let first = signed("E", "FIRST");
    let began = std::time::Instant::now();
    let header = ["fluent-signature", &*first.sha512];
    while send(&client, to, header, first.body.clone()).await != 200 {
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(began.elapsed() < crate::pipeline::PATIENCE, "{log}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    passes(&client, to, &signed("E", "SECOND")).await;
    // What is refused names who sent it, so this proxy is trusted.
    let forged = send(&client, to, ["fluent-signature", "AAAA"], b"{}".to_vec()).await;
    assert_eq!(forged, 401);
    let names = || gateway.log().contains(r#""client":"127.0.0.1""#);
    until("the log names who sent what was refused", names).await;
}
