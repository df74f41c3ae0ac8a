//! Certificates and tokens between a route and a handler.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dispatch::{DispatchError, Dispatcher, Done, OpenContext};
use fluent_dispatch_grpc::Remote;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use settings::{CertificateSettings, OperatorSettings, OperatorTls, Role, TokenSettings};

use crate::handler::{Handler, Process, anybody, cx, event, serve};

/// Makes an authority, and certificates of it with these names.
fn make(folder: &Path, authority: &str, names: &[(&str, &str)]) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join(format!("{authority}.pem")), ca.pem()).unwrap();
    for (file, name) in names {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![(*name).to_owned()]).unwrap();
        fs::write(
            folder.join(format!("{file}.pem")),
            params.signed_by(&key, &ca).unwrap().pem(),
        )
        .unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

struct World {
    folder: tempfile::TempDir,
    process: Process,
    handler: Handler,
}

/// Starts a handler that asks for certificates of `ca`, and knows one name and one token.
async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    make(
        folder.path(),
        "ca",
        &[
            ("server", "handlers.test"),
            ("known", "routes.test"),
            ("unknown", "x.test"),
        ],
    );
    make(folder.path(), "other", &[("foreign", "routes.test")]);
    fs::write(path("token"), "0123456789abcdef\n").unwrap();
    fs::write(path("weaker"), "fedcba9876543210\n").unwrap();
    fs::write(path("wrong"), "0123456789abcdeF\n").unwrap();
    let token = |name: &str, roles| TokenSettings {
        name: name.to_owned(),
        file: path(name),
        roles,
    };
    let settings = OperatorSettings {
        tls: Some(OperatorTls {
            certificate: path("server.pem"),
            key: path("server.key"),
            client_ca: Some(path("ca.pem")),
        }),
        tokens: vec![
            token("token", vec![Role::Dispatch]),
            token("weaker", vec![Role::Operate]),
        ],
        certificates: vec![CertificateSettings {
            name: "routes.test".to_owned(),
            roles: vec![Role::Dispatch],
        }],
        ..anybody()
    };
    let handler = Handler::default();
    let process = serve(&handler, &settings).await;
    World {
        folder,
        process,
        handler,
    }
}

impl World {
    async fn dispatch(&self, changes: Value) -> Result<Done, DispatchError> {
        let mut table = json!({
            "endpoints": [format!("https://{}", self.process.address)],
            "tls": { "ca": "ca.pem", "name": "handlers.test", "certificate": "known.pem", "key": "known.key" },
        });
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Object(inner) => {
                    inner
                        .iter()
                        .for_each(|(name, value)| table[key][name] = value.clone());
                }
                other => table[key] = other.clone(),
            }
        }
        let cx_open = OpenContext::new("route", self.folder.path());
        let remote = Remote::open(serde_json::from_value(table).unwrap(), &cx_open)
            .await
            .unwrap();
        remote
            .dispatch(&event("Done"), &cx(Duration::from_secs(5)))
            .await
    }

    /// Checks that the connection failed before the call: no handler was asked, and the attempt
    /// is made again. What the client calls it depends on what it saw first, a closed connection
    /// or an alert of TLS that is no frame of HTTP/2.
    #[track_caller]
    fn not_reached(&self, answer: &Result<Done, DispatchError>) {
        assert!(
            matches!(answer, Err(DispatchError::Transient { .. })),
            "{answer:?}"
        );
        assert_eq!(self.handler.asked.load(Ordering::SeqCst), 0, "{answer:?}");
    }

    #[track_caller]
    fn refused(answer: &Result<Done, DispatchError>, why: &str) {
        let Err(DispatchError::Transient { source, .. }) = answer else {
            panic!("{answer:?}")
        };
        let text = format!("{source:?}");
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_by_certificate_or_token_may_dispatch() {
    let world = world().await;
    world.dispatch(json!({})).await.unwrap();
    let by_token = json!({ "tls": { "certificate": "unknown.pem", "key": "unknown.key" }, "token": { "file": "token" } });
    world.dispatch(by_token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may() {
    let world = world().await;
    let unknown = |token: Value| json!({ "tls": { "certificate": "unknown.pem", "key": "unknown.key" }, "token": token });
    World::refused(
        &world.dispatch(unknown(Value::Null)).await,
        "Unauthenticated",
    );
    World::refused(
        &world.dispatch(unknown(json!({ "file": "wrong" }))).await,
        "Unauthenticated",
    );
    World::refused(
        &world.dispatch(unknown(json!({ "file": "weaker" }))).await,
        "PermissionDenied",
    );
    let without =
        json!({ "tls": { "certificate": null, "key": null }, "token": { "file": "token" } });
    world.not_reached(&world.dispatch(without).await);
    let foreign = json!({ "tls": { "certificate": "foreign.pem", "key": "foreign.key" } });
    world.not_reached(&world.dispatch(foreign).await);
    world
        .dispatch(json!({}))
        .await
        .expect("somebody listens, and takes who is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_must_be_who_it_is_said_to_be() {
    let world = world().await;
    World::refused(
        &world
            .dispatch(json!({ "tls": { "ca": "other.pem" } }))
            .await,
        "Unavailable",
    );
    World::refused(
        &world
            .dispatch(json!({ "tls": { "name": "another.test" } }))
            .await,
        "Unavailable",
    );
    // No falling back to no TLS.
    let plain = json!({ "endpoints": [format!("http://{}", world.process.address)], "tls": null });
    world.not_reached(&world.dispatch(plain).await);
    world
        .dispatch(json!({}))
        .await
        .expect("somebody listens, and takes who is known");
}

#[tokio::test]
async fn settings_that_can_not_work_are_refused_at_the_start() {
    let open = |table: Value| async move {
        let settings = serde_json::from_value(table).map_err(|error| error.to_string())?;
        let opened = Remote::open(settings, &OpenContext::new("route", "/")).await;
        opened.map(drop).map_err(|error| error.to_string())
    };
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "token-of-a-handler").unwrap();
    for (table, why) in [
        (
            json!({ "endpoints": ["http://handlers.example:50061"], "token": { "file": token } }),
            "anybody on the way could read the token",
        ),
        (json!({ "endpoints": [] }), "expected 1 to 64 addresses"),
        (
            json!({ "endpoints": ["handlers:50061"] }),
            "expected an address such as https://",
        ),
        (
            json!({ "endpoints": ["http://user:secret@handlers"] }),
            "expected an address such as https://",
        ),
        (
            json!({ "endpoints": ["http://handlers/path"] }),
            "expected an address such as https://",
        ),
        (
            json!({ "endpoints": ["http://h"], "tls": {} }),
            "`tls` is for https://",
        ),
        (
            json!({ "endpoints": ["https://h"], "tls": { "key": "k" } }),
            "expected `certificate` and `key`",
        ),
        (
            json!({ "endpoints": ["https://h"], "tls": { "ca": "none.pem" } }),
            "none.pem",
        ),
        (
            json!({ "endpoints": ["http://h"], "timeout": "1h" }),
            "at most 5m",
        ),
        (
            json!({ "endpoints": ["http://h"], "token": { "file": "none" } }),
            "reading /none",
        ),
    ] {
        let error = open(table).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
