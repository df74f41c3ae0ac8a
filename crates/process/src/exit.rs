//! Exit codes, and the last message of a program to whoever started it.

use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use settings::SettingsError;
use telemetry::ErrorChain;

/// A command or service failed.
pub const FAILED: u8 = 1;
/// An argument is wrong, so that nothing was done.
pub const USAGE: u8 = 2;
/// The product is not well, and somebody is needed now.
pub const NEEDED: u8 = 3;
/// The settings are wrong: `EX_CONFIG` of sysexits.h.
pub const SETTINGS: u8 = 78;

/// The result of a command that has printed everything, and whose finding needs somebody now.
#[derive(Debug)]
pub struct NeedsAttention;

impl fmt::Display for NeedsAttention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("somebody is needed now")
    }
}

impl std::error::Error for NeedsAttention {}

/// The error of an argument that only the server or the queue could judge.
#[derive(Debug)]
pub struct WrongArgument(pub String);

impl fmt::Display for WrongArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongArgument {}

/// True if errors are printed as JSON.
static AS_JSON: AtomicBool = AtomicBool::new(false);

/// Lets [`code`] print errors as JSON from now on, for programs.
pub fn print_errors_as_json() {
    AS_JSON.store(true, Ordering::Relaxed);
}

/// The exit code for a result. Prints an error to standard error.
#[expect(clippy::print_stderr, reason = "the last words of a command")]
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if error.is::<NeedsAttention>() {
        return ExitCode::from(NEEDED);
    }
    // The text may repeat what somebody else wrote, such as the name of a route.
    let said = ErrorChain(&*error).to_string();
    let lines: Vec<String> = said.lines().map(telemetry::plain).collect();
    let said = lines.join("\n");
    let code = match () {
        () if error.is::<SettingsError>() => SETTINGS,
        () if error.is::<WrongArgument>() => USAGE,
        () => FAILED,
    };
    match AS_JSON.load(Ordering::Relaxed) {
        true => eprintln!("{}", serde_json::json!({ "error": said, "exitCode": code })),
        false => eprintln!("error: {said}"),
    }
    ExitCode::from(code)
}
