//! Reports of tests that can't run on this machine.

use std::fs::OpenOptions;
use std::io::Write;

/// The variable with the file in which tests report this, and which `cargo xtask test` prints.
pub const NOT_RUN_FILE: &str = "FLUENT_WEBHOOKS_TESTS_NOT_RUN";

/// Reports that the calling test could not run here, and why. The output of a test that passes is
/// shown to nobody.
///
/// ```no_run
/// e2e::say_not_run("mkfs.ext4 is not here");
/// ```
pub fn say_not_run(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: {why}\n");
    let file = std::env::var_os(NOT_RUN_FILE);
    let written = file.map(|file| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)?
            .write_all(line.as_bytes())
    });
    if !matches!(written, Some(Ok(()))) {
        let _ = write!(std::io::stderr(), "NOT RUN: {line}");
    }
}
