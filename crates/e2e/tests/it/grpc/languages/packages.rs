//! The examples as packages: what would be published has all that it needs.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::programs::{Copied, examples, npm, python_packages, run};

/// The contract's files, as they are named in both packages.
fn protos() -> Vec<String> {
    let folder = examples().join("../proto/fluent/webhooks/v1");
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    files
        .map(|file| file.file_name().into_string().unwrap())
        .map(|name| format!("proto/fluent/webhooks/v1/{name}"))
        .collect()
}

fn version_of(json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap();
    value["version"].as_str().unwrap().to_owned()
}

#[test]
fn the_python_package_works_wherever_it_is_installed() {
    let copied = Copied::python();
    let wheels = tempfile::tempdir().unwrap();
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "wheel"])
        .args(["--quiet", "--no-deps", "--no-build-isolation", "-w"])
        .arg(wheels.path())
        .arg(copied.folder.path())
        .env("PYTHONPATH", python_packages());
    run(&mut pip);
    let wheel = fs::read_dir(wheels.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let name = wheel.file_name().into_string().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        name.starts_with(&format!("fluent_webhooks-{version}-")),
        "{name}"
    );
    // A wheel is a ZIP archive, and Python imports from those, but the contract has to be files.
    let installed = tempfile::tempdir().unwrap();
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(wheel.path())
        .arg(installed.path()));
    for proto in protos() {
        let file = installed.path().join("fluent_webhooks").join(proto);
        assert!(file.is_file(), "{} is not in the wheel", file.display());
    }
    let program = "import fluent_webhooks as f; print(f.operator_services.OperatorStub.__name__)";
    let path = std::env::join_paths([installed.path().to_owned(), python_packages()]).unwrap();
    let printed = run(Command::new("python3")
        .args(["-c", program])
        .env("PYTHONPATH", path)
        .current_dir(wheels.path()));
    assert_eq!(printed.trim(), "OperatorStub");
}

#[test]
fn the_node_package_has_all_that_it_needs() {
    let copied = Copied::node();
    let manifest = fs::read_to_string(copied.folder.path().join("package.json")).unwrap();
    assert_eq!(version_of(&manifest), env!("CARGO_PKG_VERSION"));
    let printed = run(npm()
        .args(["pack", "--dry-run", "--json"])
        .current_dir(copied.folder.path()));
    let packed: Value = serde_json::from_str(&printed).unwrap();
    let files = packed[0]["files"].to_string();
    let programs = [
        "contract.mjs",
        "dispatch.mjs",
        "handler.mjs",
        "subscribe.mjs",
    ];
    for file in programs.map(str::to_owned).into_iter().chain(protos()) {
        assert!(files.contains(&format!("\"{file}\"")), "no {file}: {files}");
    }
}
