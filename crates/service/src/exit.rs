use std::process::ExitCode;

use settings::SettingsError;
use telemetry::Chain;

/// Something failed.
pub const FAILED: u8 = 1;
/// The settings are wrong: `EX_CONFIG` of sysexits.h.
pub const SETTINGS: u8 = 78;

/// The exit code for a result; says on standard error what went wrong.
#[expect(clippy::print_stderr, reason = "the last words of a command")]
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {}", Chain(&*error));
    match error.downcast_ref::<SettingsError>() {
        Some(_) => ExitCode::from(SETTINGS),
        None => ExitCode::from(FAILED),
    }
}
