//! The gateway as a service of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::main()
}
