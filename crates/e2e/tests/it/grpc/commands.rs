//! Commands at a server, with TLS and certificates, beside a cluster.

use std::fs;
use std::path::Path;

use e2e::deployment::{Deployment, Plan, Service};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use simulator::{Retry, Sender};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, free_ports, signed, until};
use crate::sink::{Sink, status};

/// An authority, and a certificate of it for the server and for a person.
fn certificates(folder: &Path) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for (file, name) in [
        ("server", "127.0.0.1"),
        ("person", "night-shift.test"),
        ("nobody", "nobody.test"),
    ] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        fs::write(
            folder.join(format!("{file}.pem")),
            params.signed_by(&key, &ca).unwrap().pem(),
        )
        .unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_with_a_certificate_works_off_a_clusters_letters_from_elsewhere() {
    let sink = Sink::answering(|_, before| status(if before == 0 { 422 } else { 200 })).await;
    let routes = sink.route("all", "match: {}, start: beginning");
    let deployment = Deployment::start(Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    });
    let folder = deployment.folder.path();
    certificates(folder);
    let [grpc, health] = free_ports();
    let more = format!(
        "  health: {health}\n  operator:\n    grpc: \"{grpc}\"\n    \
         tls: {{ certificate: server.pem, key: server.key, client-ca: ca.pem }}\n    \
         certificates: [{{ name: night-shift.test, roles: [admin] }}]\n"
    );
    let config = deployment.write_operator(&more, &SANDBOX.public_base64().unwrap());
    let mut server = Service::new("operator-api", "stage-operator", config, health, None);
    server.restart();

    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    for number in 0..5 {
        assert_eq!(
            sender
                .send(&signed("E", &format!("C_{number}")))
                .await
                .answer
                .unwrap()
                .status,
            200
        );
    }
    let file = |name: &str| folder.join(name).display().to_string();
    let ask = |who: &str, args: &[&str]| {
        let certificate = file(&format!("{who}.pem"));
        let key = file(&format!("{who}.key"));
        let url = format!("https://{grpc}");
        let ca = file("ca.pem");
        let more = [
            "--server",
            &url,
            "--ca",
            &ca,
            "--certificate",
            &certificate,
            "--key",
            &key,
            "--json",
        ];
        deployment.command("gateway", &[args, &more].concat())
    };
    let json = |args: &[&str]| -> serde_json::Value {
        let output = ask("person", args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    until("all are dead", || {
        json(&["dead-letters", "list"]).as_array().unwrap().len() == 5
    })
    .await;
    let refused = ask("nobody", &["dead-letters", "list"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("--token"),
        "{said}"
    );

    assert_eq!(json(&["status"])["deadLetters"], 5);
    let redriven = json(&["dead-letters", "redrive", "--all", "--yes"]);
    assert_eq!(redriven["succeeded"], 5, "{redriven}");
    until("they arrived again", || sink.len() == 10).await;
    until("it is written down", || {
        json(&["deliveries", "--outcome", "done"])
            .as_array()
            .unwrap()
            .len()
            == 5
    })
    .await;
    let first = json(&["events", "show", "C_0"]);
    assert_eq!(first[0]["attempts"].as_array().unwrap().len(), 2, "{first}");
    let replayed = json(&["replay", "--route", "all", "--from", "1h", "--yes"]);
    assert_eq!(
        (&replayed["succeeded"], &replayed["skipped"]),
        (&0.into(), &5.into()),
        "done with all: {replayed}"
    );
    let audit = json(&["audit"]);
    assert_eq!(
        audit
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["action"] == "RedriveDeadLetters")
            .unwrap()["actor"],
        "night-shift.test"
    );
    assert_eq!(server.stop(), Some(0), "{}", server.log());
}

#[test]
fn a_token_is_shown_to_nobody_on_the_way() {
    let pipeline = Pipeline::prepare("    []\n");
    let token = pipeline.folder.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let token = token.to_str().unwrap();
    let refused = pipeline.command(&[
        "status",
        "--server",
        "http://fluent.internal:50051",
        "--token",
        token,
    ]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("expected https://"),
        "{said}"
    );
    let nobody = pipeline.command(&["status", "--server", "http://127.0.0.1:9", "--token", token]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(
        said.contains("nothing listens there") && !said.contains("0123456789"),
        "{said}"
    );
}

#[test]
fn shells_can_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pipeline"));
        let script =
            String::from_utf8(command.args(["completion", shell]).output().unwrap().stdout)
                .unwrap();
        for word in ["dead-letters", "recheck", "replay", "--server"] {
            assert!(
                script.contains(word.trim_start_matches('-')),
                "{shell}: {word}"
            );
        }
    }
    let sourced = std::process::Command::new("bash")
        .args(["-n", "/dev/stdin"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            let script = std::process::Command::new(env!("CARGO_BIN_EXE_pipeline"))
                .args(["completion", "bash"])
                .output()?
                .stdout;
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), &script)?;
            child.wait()
        });
    assert!(sourced.unwrap().success());
}
