//! The steps of how-tos, as they are written there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
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

/// The lines of a page's commands that begin so.
fn commands(page: &str, beginnings: &[&str]) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/how-to")
        .join(page);
    let text = fs::read_to_string(file).unwrap();
    let is_wanted = |line: &&str| {
        beginnings
            .iter()
            .any(|beginning| line.starts_with(beginning))
    };
    text.lines().filter(is_wanted).map(str::to_owned).collect()
}

/// docs/how-to/run-under-systemd.md, up to where systemd is asked
#[test]
fn the_user_of_the_service_can_read_what_the_page_makes() {
    let folder = tempfile::tempdir().unwrap();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open).unwrap();
    let etc = folder.path().join("fluent-webhooks");
    let own_group = format!(":{}", rustix::process::getegid().as_raw());
    let steps = commands(
        "run-under-systemd.md",
        &["fluent-webhooks init", "chgrp", "chmod"],
    );
    assert_eq!(steps.len(), 3, "{steps:?}");
    fs::create_dir(&etc).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o750)).unwrap();
    for step in steps {
        let here = step.replace("/etc/fluent-webhooks", etc.to_str().unwrap());
        let here = here.replace("chgrp -R fluent-webhooks", &format!("chown -R {own_group}"));
        let here = here.replacen("fluent-webhooks init", "\"$0\" init", 1);
        let mut shell = Command::new("sh");
        shell.args(["-c", &here, env!("CARGO_BIN_EXE_pipeline")]);
        let done = shell.output().unwrap();
        assert!(done.status.success(), "{here}: {done:?}");
        let key = etc.join("keys/sydney_sandbox.pem");
        if !key.exists() {
            fs::write(&key, SANDBOX.public_base64().unwrap()).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    for path in [".", "application.yml", "keys", "keys/sydney_sandbox.pem"] {
        let found = fs::metadata(etc.join(path)).unwrap();
        let expected = if found.is_dir() { 0o750 } else { 0o640 };
        assert_eq!(found.permissions().mode() & 0o777, expected, "{path}");
    }
}
