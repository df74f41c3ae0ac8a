//! The binary knows its dispatcher, and says what is wrong with its settings.

use std::process::{Command, Output};

fn check(table: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("application.yml");
    let route = format!("    - {{ name: audit, match: {{}}, dispatcher: file, file: {table} }}");
    let settings = fluent_dispatch::testing::application(&route);
    std::fs::write(&config, settings).unwrap();
    Command::new(env!("CARGO_BIN_EXE_my-dispatcher"))
        .args(["check", "--config"])
        .arg(&config)
        .output()
        .unwrap()
}

#[test]
fn its_route_is_valid() {
    let output = check("{ path: events.txt }");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("audit"));
}

#[test]
fn a_typo_in_its_table_is_found_with_its_line() {
    let output = check("{ pth: events.txt }");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("application.yml:4") && said.contains("did you mean `path`?"),
        "{said}"
    );
}
