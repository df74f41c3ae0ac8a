//! The gateway in a process of its own, for tests.

fn main() -> std::process::ExitCode {
    gateway::main()
}
