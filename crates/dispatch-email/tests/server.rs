//! Tests with a real mail server: aiosmtpd, which is fetched once.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, OpenContext};
use fluent_dispatch_email::EmailDispatcher;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use settings::SettingsTree;

/// Version that is fetched.
const PACKAGE: &str = "aiosmtpd==1.4.6";

/// Returns the folder where Python finds it; one test fetches, the others wait.
fn packages() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .unwrap();
    let folder = target.join(PACKAGE);
    let lock = File::create(target.join("aiosmtpd.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.exists() {
        let scratch = tempfile::tempdir_in(target).unwrap();
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--target",
        ]);
        assert!(
            pip.arg(scratch.path())
                .arg(PACKAGE)
                .status()
                .unwrap()
                .success(),
            "fetching {PACKAGE}"
        );
        fs::rename(scratch.keep(), &folder).unwrap();
    }
    folder
}

/// A server, and the mails that it took.
struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server; if `is_secure`, it insists on TLS and on a login.
    fn start(is_secure: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server.py");
        let mut python = Command::new("python3");
        python
            .arg(script)
            .arg(folder.path())
            .env("PYTHONPATH", packages());
        if is_secure {
            certify(folder.path());
            python
                .arg(folder.path().join("server.pem"))
                .arg(folder.path().join("server.key"));
        }
        let mut child = python
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            port: line.trim().parse().unwrap(),
            folder,
        }
    }

    /// Opens a dispatcher for it, with a template for the address.
    async fn dispatcher(&self, to: &str, server: Value) -> Result<EmailDispatcher, BoxError> {
        let mut at = json!({ "host": "localhost", "port": self.port });
        at.as_object_mut()
            .unwrap()
            .extend(server.as_object().unwrap().clone());
        fs::write(
            self.folder.path().join("text"),
            "Order {{ event.entityRef }} \u{2713}",
        )
        .unwrap();
        fs::write(
            self.folder.path().join("html"),
            "<b>{{ '<' }}{{ event.entityRef }}</b>",
        )
        .unwrap();
        let settings = json!({
            "server": at, "from": "Shop <shop@example.com>", "to": to,
            "subject": "{{ event.entityRef }} is ready", "text": "text", "html": "html",
        });
        let settings = serde_json::from_value(settings)?;
        EmailDispatcher::open(settings, &OpenContext::new("r", self.folder.path())).await
    }

    fn mails(&self) -> Vec<String> {
        (0..)
            .map_while(|n| fs::read_to_string(self.folder.path().join(format!("{n}.eml"))).ok())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certify(folder: &Path) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("server.pem", server.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
}

async fn dispatch(dispatcher: &EmailDispatcher) -> Result<Done, DispatchError> {
    let event = dispatch::testing::event("OrderStatusChange", "HD_1");
    let cx = Context::new("r", event.id().to_string(), Duration::from_secs(30));
    dispatcher.dispatch(&event, &cx).await
}

fn insecure() -> Value {
    json!({ "security": "none" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_what_its_templates_say_and_the_same_when_it_comes_again() {
    let server = Server::start(false);
    let to = "{{ event.entityRef | lower }}@example.com, Copy <copy@example.com>";
    let dispatcher = server.dispatcher(to, insecure()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(dispatch(&dispatcher).await.unwrap(), Done::with_status(250));
    }
    let mails = server.mails();
    let id = format!(
        "<{}@example.com>",
        dispatch::testing::event("OrderStatusChange", "HD_1").id()
    );
    for part in [
        "From: Shop <shop@example.com>",
        "hd_1@example.com",
        "copy@example.com",
        "Subject: HD_1 is ready",
        "Order HD_1",
        "<b>&lt;HD_1</b>",
        &id,
    ] {
        assert!(
            mails[0].replace("=\r\n", "").contains(part),
            "{part} in {}",
            mails[0]
        );
    }
    assert!(mails[1].contains(&id), "a server may know it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_nobody_has_is_final_and_a_busy_server_is_not() {
    let server = Server::start(false);
    for (to, is_final) in [("nobody@example.com", true), ("later@example.com", false)] {
        let error = dispatch(&server.dispatcher(to, insecure()).await.unwrap())
            .await
            .unwrap_err();
        assert_eq!(
            matches!(error, DispatchError::Permanent { .. }),
            is_final,
            "{error:?}"
        );
        let said = format!("{error} {}", std::error::Error::source(&error).unwrap());
        assert!(!said.contains("example.com"), "{said}");
    }
    for to in ["", "not an address", "a@b.c\r\nBcc: x@y.z"] {
        let refused = server.dispatcher(to, insecure()).await.unwrap_err();
        assert!(
            refused.to_string().contains("expected addresses"),
            "{refused}"
        );
    }
    for to in [
        "{{ event.attributes.nothing }}",
        "{{ '' }}",
        "{{ 'not an address' }}",
        "{{ 'a@b.c\\r\\nBcc: x@y.z' }}",
    ] {
        let error = dispatch(&server.dispatcher(to, insecure()).await.unwrap())
            .await
            .unwrap_err();
        assert!(
            matches!(error, DispatchError::Permanent { .. }),
            "{to}: {error:?}"
        );
    }
    assert!(server.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_field_names_one_recipient_and_settings_may_name_more() {
    let server = Server::start(false);
    let field = "{{ 'a@example.com, b@example.com' }}";
    for to in [
        field,
        "{{ 'Jo <a@example.com>,b@example.com' }}",
        "{{ 'x@y.z, Jo' }} <a@example.com>",
    ] {
        let error = dispatch(&server.dispatcher(to, insecure()).await.unwrap())
            .await
            .unwrap_err();
        assert!(
            matches!(error, DispatchError::Permanent { .. }),
            "{to}: {error:?}"
        );
    }
    let error = dispatch(
        &server
            .dispatcher(&format!("c@example.com, {field}"), insecure())
            .await
            .unwrap(),
    )
    .await;
    assert!(error.is_err(), "nor beside one of the settings");
    dispatch(
        &server
            .dispatcher("c@example.com, {{ 'd@example.com' }}", insecure())
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(
        mails[0].contains("c@example.com") && mails[0].contains("d@example.com"),
        "{mails:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_to_another_host_in_clear_only_where_that_is_said() {
    let server = Server::start(false);
    fs::write(server.folder.path().join("password"), "s3cret\n").unwrap();
    let login = |host: &str, allowed: bool| {
        json!({
            "host": host, "security": "none", "user": "shop", "password": { "file": "password" },
            "allow-plaintext-credentials": allowed,
        })
    };
    for host in [
        "smtp.example.com",
        "10.0.0.9",
        "localhost.example.com",
        "2001:db8::1",
    ] {
        let error = server
            .dispatcher("a@example.com", login(host, false))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("allow-plaintext-credentials"),
            "{host}: {error}"
        );
        server
            .dispatcher("a@example.com", login(host, true))
            .await
            .unwrap();
    }
    for host in ["localhost", "127.0.0.1", "127.8.9.10", "::1"] {
        server
            .dispatcher("a@example.com", login(host, false))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_is_protected_and_a_wrong_login_buries_nothing() {
    let server = Server::start(true);
    fs::write(server.folder.path().join("right"), "s3cret\n").unwrap();
    fs::write(server.folder.path().join("wrong"), "guess\n").unwrap();
    let login =
        |file: &str| json!({ "ca": "ca.pem", "user": "shop", "password": { "file": file } });
    let to = "hd@example.com";
    dispatch(&server.dispatcher(to, login("right")).await.unwrap())
        .await
        .unwrap();
    for refused in [
        login("wrong"),
        json!({ "ca": "ca.pem" }),
        json!({}),
        insecure(),
    ] {
        let error = dispatch(&server.dispatcher(to, refused.clone()).await.unwrap())
            .await
            .unwrap_err();
        assert!(
            matches!(error, DispatchError::Transient { .. }),
            "{refused}: {error:?}"
        );
    }
    assert_eq!(server.mails().len(), 1);
}

#[test]
fn the_sample_route_is_right() {
    let registry = dispatcher::registry().with::<EmailDispatcher>();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("route.yml");
    let routes = SettingsTree::load(&sample, std::iter::empty())
        .unwrap()
        .routes(Some(&registry))
        .unwrap();
    assert_eq!(routes.0[0].dispatcher, "email");
}

#[test]
fn its_service_checks_its_settings_and_says_what_they_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["route.yml", "pickup.txt"] {
        fs::copy(sample.join(name), folder.path().join(name)).unwrap();
    }
    let run = |argument: &str| {
        let mut service = Command::new(env!("CARGO_BIN_EXE_fluent-dispatch-email"));
        service
            .args([argument, "--config"])
            .arg(folder.path().join("route.yml"))
            .output()
            .unwrap()
    };
    let refused = run("--check");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(
        said.contains("route.yml:") && said.contains("smtp-password"),
        "{said}"
    );
    fs::create_dir(folder.path().join("secrets")).unwrap();
    fs::write(folder.path().join("secrets/smtp-password"), "s3cret").unwrap();
    let good = run("--check");
    assert!(good.status.success(), "{good:?}");
    let mut service = Command::new(env!("CARGO_BIN_EXE_fluent-dispatch-email"));
    service
        .args(["--check", "--config"])
        .arg(folder.path().join("route.yml"));
    service
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", folder.path());
    let said = String::from_utf8_lossy(&service.output().unwrap().stderr).into_owned();
    assert!(
        said.contains("server.ca") && said.contains("SSL_CERT_FILE"),
        "no authorities: {said}"
    );
    let schema: Value = serde_json::from_slice(&run("--schema").stdout).unwrap();
    assert!(schema.to_string().contains("\"email\""));
}
