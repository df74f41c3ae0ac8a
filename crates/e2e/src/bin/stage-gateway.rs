//! The gateway as a service of its own, for tests to start.

fn main() -> std::process::ExitCode {
    gateway::main()
}
