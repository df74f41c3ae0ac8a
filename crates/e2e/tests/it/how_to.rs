//! The steps of how-tos, as they are written there.

use std::fs;
use std::path::Path;
use std::process::Command;

use simulator::{KeyPair, Retry, SignedBody};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, signed, until};

/// Lists these keys for the sandbox: YAML, one or a list.
fn list_keys(pipeline: &Pipeline, keys: &str) {
    pipeline.write_settings("    - { name: all, match: {}, dispatcher: log }\n");
    let settings = fs::read_to_string(pipeline.config()).unwrap();
    let listed = format!("\"{}\"", SANDBOX.public_base64().unwrap());
    assert_eq!(settings.matches(&listed).count(), 1);
    fs::write(pipeline.config(), settings.replace(&listed, keys)).unwrap();
}

fn by(key: &KeyPair, reference: &str) -> SignedBody {
    key.sign(signed("E", reference).body).unwrap()
}

async fn status_of(pipeline: &Pipeline, signed: &SignedBody) -> u16 {
    let sender = pipeline.sender(Retry::Never);
    sender.send(signed).await.answer.unwrap().status
}

/// docs/how-to/rotate-a-key.md
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_without_refusing_a_webhook() {
    let mut pipeline = Pipeline::prepare("    []\n");
    let new = KeyPair::generate(1024).unwrap();
    let keys = pipeline.folder.path().join("keys");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("old.pem"), SANDBOX.public_base64().unwrap()).unwrap();
    fs::write(keys.join("new.pem"), new.public_base64().unwrap()).unwrap();
    list_keys(&pipeline, "{ file: keys/old.pem }");
    pipeline.run();
    assert_eq!(status_of(&pipeline, &by(&SANDBOX, "BEFORE")).await, 200);
    assert_eq!(status_of(&pipeline, &by(&new, "EARLY")).await, 401);

    list_keys(
        &pipeline,
        "[{ file: keys/old.pem }, { file: keys/new.pem }]",
    );
    let check = String::from_utf8(pipeline.command(&["check"]).stdout).unwrap();
    assert_eq!(
        check.matches("sydney_sandbox: RSA 1024 bits").count(),
        2,
        "{check}"
    );
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    for key in [&SANDBOX, &new] {
        assert_eq!(status_of(&pipeline, &by(key, "BOTH")).await, 200);
    }
    // What came too early is stored as refused, and admitted now.
    until("what came too early is admitted", || {
        let rechecked = pipeline.command(&["refused", "recheck", "--yes"]);
        rechecked.status.success()
            && pipeline
                .command(&["events", "show", "EARLY"])
                .status
                .success()
    })
    .await;

    list_keys(
        &pipeline,
        "[{ file: keys/old.pem, retired: true }, { file: keys/new.pem }]",
    );
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    assert_eq!(status_of(&pipeline, &by(&new, "AFTER")).await, 200);
    assert_eq!(status_of(&pipeline, &by(&SANDBOX, "LATE")).await, 401);
}

/// docs/how-to/run-under-systemd.md
#[test]
fn systemd_reads_the_sample_units_without_a_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/systemd");
    for name in ["fluent-webhooks.service", "fluent-webhooks.socket"] {
        let unit = fs::read_to_string(shipped.join(name)).unwrap();
        // What it starts has to be there.
        let unit = unit.replace("/usr/local/bin/fluent-webhooks", "/bin/true");
        fs::write(folder.path().join(name), unit).unwrap();
    }
    let checked = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(["./fluent-webhooks.socket", "./fluent-webhooks.service"])
        .current_dir(folder.path())
        .output();
    let Ok(checked) = checked else {
        e2e::say_not_run("systemd-analyze is not installed here");
        return;
    };
    // It says what it ignores, and succeeds.
    let said = String::from_utf8(checked.stderr).unwrap();
    let about_ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("fluent-webhooks"))
        .collect();
    assert_eq!(about_ours, Vec::<&str>::new());
    assert!(checked.status.success(), "{said}");
}
